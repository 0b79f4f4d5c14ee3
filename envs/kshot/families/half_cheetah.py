"""What the HalfCheetah families share: bodies, start noise, observations, and the speed that rewards measure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, namespace
from kshot.physics.bodies import HALF_CHEETAH, MjState

ACTIONS = spaces.Box(-1, 1, (6,), np.float32)
GYM_BODY = HALF_CHEETAH
TORSO_BODY = replace(GYM_BODY, readouts=("torso",))
RLLAB_BODY = replace(GYM_BODY, readouts=("com", "com_velocity"), current=True)


def speed(before: MjState, after: MjState, task: Any = None, c: Any = None) -> Array:
    """Return the forward velocity, (N,) m/s: of the centre of mass where the body reads it, else dx/dt of the root."""
    if after.com_velocity is not None:
        return after.com_velocity[:, 0] + 0.0  # shares no memory with the state
    return (after.qpos[:, 0] - before.qpos[:, 0]) / after.dt


def joints(state: MjState) -> Array:
    """Return positions without x, and velocities: 17 numbers."""
    return namespace(state.qpos).concatenate([state.qpos[:, 1:], state.qvel], -1)


def with_torso(state: MjState) -> Array:
    """Return positions without x, velocities and the torso's position: 20 numbers."""
    return namespace(state.qpos).concatenate([state.qpos[:, 1:], state.qvel, state.torso], -1)


def with_com(state: MjState) -> Array:
    """Return positions without x, velocities and the centre of mass: 20 numbers."""
    return namespace(state.qpos).concatenate([state.qpos[:, 1:], state.qvel, state.com], -1)


def torso_first(state: MjState) -> Array:
    """Return the torso's position, all positions and velocities: 21 numbers."""
    return namespace(state.qpos).concatenate([state.torso, state.qpos, state.qvel], -1)
