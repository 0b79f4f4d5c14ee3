"""What the Ant families share: bodies, start noise, observations, costs and the height that ends an episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, namespace, squared_norm
from kshot.family import ResetNoise
from kshot.laws import always
from kshot.physics.bodies import ANT, MjState

ACTIONS = spaces.Box(-1, 1, (8,), np.float32)
GYM_BODY = ANT
CONTACT_BODY = replace(ANT, readouts=("torso", "contact"))
MATRIX_BODY = replace(ANT, readouts=("torso", "rotation", "contact"))
# rllab's: one physics step of 0.02 s an env step, a crouching start, read-outs at the new state.
RLLAB_BODY = replace(
    ANT,
    timestep=0.02,
    start=(0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1),
    readouts=("torso", "rotation", "com", "com_velocity", "contact"),
    current=True,
)
LOW_GEAR_BODY = replace(RLLAB_BODY, timestep=0.01, gear=30)
NO_NOISE = ResetNoise(always(0.0), always(0.0), origin=True)


def velocity(before: MjState, after: MjState) -> Array:
    """Return the velocity in the plane, (N, 2) m/s: of the centre of mass where it is read, else of the torso."""
    if after.com_velocity is not None:
        return after.com_velocity[:, :2] + 0.0  # shares no memory with the state
    return (after.torso[:, :2] - before.torso[:, :2]) / after.dt


def contact_cost(state: MjState) -> Array:
    """Return the squared contact wrenches of all bodies, each number clipped to ±1, (N,)."""
    return squared_norm(state.contact.clip(-1.0, 1.0).reshape(len(state.contact), -1))


def fallen(state: MjState, low: float, high: float) -> Array:
    """Tell where the torso's height is outside its bounds."""
    height = state.qpos[:, 2]
    return (height < low) | (height > high)


def _join(*parts: Array) -> Array:
    return namespace(parts[0]).concatenate(list(parts), -1)


def _wrenches(state: MjState) -> Array:
    return state.contact.clip(-1.0, 1.0).reshape(len(state.contact), -1)


def joints(state: MjState) -> Array:
    """Return positions without x and y, and velocities: 27 numbers."""
    return _join(state.qpos[:, 2:], state.qvel)


def joints_contact(state: MjState) -> Array:
    """Return positions without x and y, velocities and contact: 111 numbers."""
    return _join(state.qpos[:, 2:], state.qvel, _wrenches(state))


def placed(state: MjState) -> Array:
    """Return positions and velocities: 29 numbers."""
    return _join(state.qpos, state.qvel)


def placed_contact(state: MjState) -> Array:
    """Return positions, velocities and contact: 113 numbers."""
    return _join(state.qpos, state.qvel, _wrenches(state))


def torso_placed_contact(state: MjState) -> Array:
    """Return the torso's position, positions, velocities and contact: 116 numbers."""
    return _join(state.torso, state.qpos, state.qvel, _wrenches(state))


def matrix_contact(state: MjState) -> Array:
    """Return positions, velocities, contact and the torso's rotation matrix: 122 numbers."""
    return _join(state.qpos, state.qvel, _wrenches(state), state.rotation)


def matrix_contact_com(state: MjState) -> Array:
    """Return `matrix_contact` and the centre of mass: 125 numbers."""
    return _join(matrix_contact(state), state.com)


def matrix_contact_torso(state: MjState) -> Array:
    """Return `matrix_contact` and the torso's position: 125 numbers."""
    return _join(matrix_contact(state), state.torso)
