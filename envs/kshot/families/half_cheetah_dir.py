"""HalfCheetah in a hidden direction, forward or backward; out of distribution, its dynamics change.

MAML (Finn et al. 2017, arXiv 1703.03400), ProMP (Rothfuss et al. 2018, arXiv 1810.06784), PEARL (Rakelly et al.
2019, arXiv 1903.08254), VariBAD (Zintgraf et al. 2020, arXiv 1910.08348), HyperX (Zintgraf et al. 2021, arXiv
2010.01062); swapped motors from NoRML (Yang et al. 2019, arXiv 1903.01063).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import mujoco
import numpy as np

from kshot.arrays import Array, as_float, namespace, squared_norm
from kshot.families.half_cheetah import (
    ACTIONS,
    GYM_BODY,
    RLLAB_BODY,
    TORSO_BODY,
    joints,
    speed,
    torso_first,
    with_com,
    with_torso,
)
from kshot.family import GYM_NOISE, RLLAB_NOISE, Family, Field, Split, Variant
from kshot.laws import Choice, JointLaw, Law, Uniform, always
from kshot.physics.bodies import MjState, scaled_friction
from kshot.rendering.scene import Arrow, Scene

SWAPPED = [3, 1, 2, 0, 4, 5]  # the back and the front thigh change places


class Constants(NamedTuple):
    """Constants of the reward."""

    control_cost: float = 0.05  # per squared action
    free: float = 0.0  # m, the direction is rewarded only this far from the origin


class Task(NamedTuple):
    """Where to run, and what the body is like."""

    direction: Array  # (N,) 1 forward, -1 backward
    swapped: Array  # (N,) 0 or 1: the thigh motors are swapped
    friction: Array  # (N,) multiplier of all friction


def actuate(action: Array, task: Task, c: Constants) -> Array:
    """Swap the motors where the task says so."""
    return namespace(action).where(task.swapped[:, None] > 0, action[:, SWAPPED], action)


def model_params(task: Task, model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Scale the friction."""
    return scaled_friction(task.friction, model)


def reward_terms(
    before: MjState, action: Array, after: MjState, task: Task, c: Constants, v: Array = None
) -> dict[str, Array]:
    """Pay the velocity in the direction, charge control."""
    forward = task.direction * (speed(before, after) if v is None else v)
    if c.free > 0:
        forward = forward * as_float(abs(after.torso[:, 0]) >= c.free, forward)
    return {"forward": forward, "control": -c.control_cost * squared_norm(action)}


def metrics(before: MjState, after: MjState, task: Task, c: Constants, v: Array = None) -> dict[str, Array]:
    """Show the velocity."""
    return {"x_velocity": speed(before, after) if v is None else v}


def scene(state: MjState, task: Task, c: Constants) -> Scene:
    """Show the direction and the actual velocity as arrows above the body."""
    x, direction, actual = float(state.qpos[0, 0]), float(task.direction[0]), float(state.qvel[0, 0])
    shown = min(max(0.4 * actual, -1.5), 1.5)
    marks = (Arrow(x, 1.5, direction, 0, "goal"), Arrow(x, 1.35, shown, 0, "actual"))
    swapped, friction = bool(task.swapped[0]), float(task.friction[0])
    extra = (", motors swapped" if swapped else "") + (f", friction × {friction:.2f}" if friction != 1 else "")
    return Scene(marks, f"{'forward' if direction > 0 else 'backward'}, now {actual:.2f} m/s{extra}", plane="side")


FAMILY = Family(
    name="HalfCheetahDir",
    summary="Run in a hidden direction, forward or backward.",
    hidden="the direction",
    formula="direction·v (only where |x| ≥ free) − control_cost·|a|²",
    task=Task,
    fields={
        "direction": Field("1 forward, -1 backward", -1, 1, values=(1, -1)),
        "swapped": Field("whether the thigh motors are swapped", 0, 1, whole=True),
        "friction": Field("multiplier of all friction", 0.01, 10),
    },
    reward_terms=reward_terms,
    metrics=metrics,
    shared=speed,
    actuate=actuate,
    model_params=model_params,
    scene=scene,
)


NORMAL = always(1.0)  # friction


def either(swapped: int = 0, friction: Law = NORMAL) -> JointLaw:
    """Return the law of both directions on one body."""
    return {"direction": Choice((1, -1)), "swapped": always(swapped), "friction": friction}


DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after ProMP (1810.06784)",
    horizon=200,
    trial=2,
    action_space=ACTIONS,
    observe=joints,
    constants=Constants(),
    train=either(),
    ood={
        "ood-swapped": Split(either(swapped=1), "dynamics", about="NoRML's swapped thigh motors"),
        "ood-slippery": Split(either(friction=Uniform(0.1, 0.5)), "dynamics", about="little friction"),
    },
    frozen_tasks=40,
    body=GYM_BODY,
    frame_skip=5,
    reset_noise=GYM_NOISE,
)
PEARL = replace(DEFAULT, name="pearl", source="PEARL (1903.08254) cheetah-dir", observe=with_torso, body=TORSO_BODY)
VARIANTS = (
    DEFAULT,
    replace(
        DEFAULT,
        name="maml",
        source="MAML (1703.03400)",
        observe=with_com,
        body=RLLAB_BODY,
        frame_skip=1,
        reset_noise=RLLAB_NOISE,
        budgets=(0, 20, 40, 60),  # its test batches are of 4,000 steps
    ),
    replace(DEFAULT, name="promp", source="ProMP (1810.06784)", horizon=100),
    PEARL,
    replace(PEARL, name="varibad", source="VariBAD (1910.08348), CAVIA (1810.03642), pomdp-baselines (2110.05038)"),
    replace(PEARL, name="pmr", source="pytorch-maml-rl, learn2learn", horizon=100),
    replace(
        PEARL,
        name="hyperx-sparse",
        source="HyperX (2010.01062) HalfCheetahDirSparse-v0",
        trial=1,
        observe=torso_first,
        constants=Constants(free=5.0),
    ),
)
