"""Ant in a hidden direction of the plane, by its true angle.

MAML (Finn et al. 2017, arXiv 1703.03400), ProMP (Rothfuss et al. 2018, arXiv 1810.06784), PEARL (Rakelly et al.
2019, arXiv 1903.08254), VariBAD (Zintgraf et al. 2020, arXiv 1910.08348), LDM (Lee and Chung 2021, arXiv
2110.13471), MIER (Mendonca et al. 2020, arXiv 2006.07178), MACAW (Mitchell et al. 2021, arXiv 2008.06043).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import mujoco
import numpy as np

from kshot.arrays import Array, squared_norm, unit
from kshot.families.ant import (
    ACTIONS,
    CONTACT_BODY,
    GYM_BODY,
    RLLAB_BODY,
    contact_cost,
    fallen,
    joints,
    joints_contact,
    matrix_contact_com,
    velocity,
)
from kshot.family import GYM_NOISE, RLLAB_NOISE, Family, Field, Split, Variant
from kshot.laws import Choice, JointLaw, Law, Uniform, always
from kshot.physics.bodies import MjState, scaled_friction
from kshot.rendering.scene import Arrow, Scene


class Constants(NamedTuple):
    """Constants of the reward and of the end."""

    control_cost: float = 0.5  # per squared action
    contact_cost: float = 0.0  # per squared contact, clipped
    alive: float = 1.0  # a step
    low: float = 0.2  # m, torso heights outside end the episode
    high: float = 1.0  # m


class Task(NamedTuple):
    """Where to run, and what the ground is like."""

    angle: Array  # (N,) rad, counter-clockwise from x
    friction: Array  # (N,) multiplier of all friction


def model_params(task: Task, model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Scale the friction."""
    return scaled_friction(task.friction, model)


def reward_terms(before: MjState, action: Array, after: MjState, task: Task, c: Constants) -> dict[str, Array]:
    """Pay the velocity in the direction and being alive, charge control and contact."""
    forward = (velocity(before, after) * unit(task.angle)).sum(-1)
    terms = {"forward": forward, "control": -c.control_cost * squared_norm(action), "alive": 0.0 * forward + c.alive}
    return {**terms, "contact": -c.contact_cost * contact_cost(after)} if c.contact_cost else terms


def terminated(state: MjState, task: Task, c: Constants) -> Array:
    """End where the torso's height is outside [low, high]."""
    return fallen(state, c.low, c.high)


def metrics(before: MjState, after: MjState, task: Task, c: Constants) -> dict[str, Array]:
    """Show the velocity."""
    v = velocity(before, after)
    return {"x_velocity": v[:, 0], "y_velocity": v[:, 1]}


def scene(state: MjState, task: Task, c: Constants) -> Scene:
    """Show the direction as an arrow on the ground, before the feet."""
    x, y, angle, friction = (float(v) for v in (*state.qpos[0, :2], task.angle[0], task.friction[0]))
    cos, sin = math.cos(angle), math.sin(angle)
    ahead = Arrow(x + 1.2 * cos, y + 1.2 * sin, 1.5 * cos, 1.5 * sin, "goal")
    extra = f", friction × {friction:.2f}" if friction != 1 else ""
    return Scene((ahead,), f"direction {math.degrees(angle):.0f}°{extra}")


FAMILY = Family(
    name="AntDir",
    summary="Run in a hidden direction of the plane.",
    hidden="the direction",
    formula="v·(cos angle, sin angle) − control_cost·|a|² − contact_cost·|contact|² + alive",
    task=Task,
    fields={
        "angle": Field("direction, counter-clockwise from x", -2 * math.pi, 2 * math.pi, "rad"),
        "friction": Field("multiplier of all friction", 0.01, 10),
    },
    reward_terms=reward_terms,
    terminated=terminated,
    metrics=metrics,
    model_params=model_params,
    scene=scene,
)


NORMAL = always(1.0)  # friction


def towards(angle: Law, friction: Law = NORMAL) -> JointLaw:
    """Return the law of a direction on one ground."""
    return {"angle": angle, "friction": friction}


QUARTERS = Choice((0.0, math.pi / 2, math.pi, 3 * math.pi / 2))
CIRCLE, THREE_QUARTERS = Uniform(0, 2 * math.pi), Uniform(0, 1.5 * math.pi)
SLIPPERY = {"ood-slippery": Split(towards(CIRCLE, Uniform(0.1, 0.5)), "dynamics", about="little friction")}
SIDEWAYS = {
    "ood-sideways": Split(towards(Choice((math.pi / 2, 3 * math.pi / 2))), "extrapolation", about="the other axis")
}
QUARTER = {"ood-quarter": Split(towards(Uniform(1.5 * math.pi, 2 * math.pi)), "hole", about="MIER's unseen quarter")}

DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after MIER (2006.07178)",
    horizon=200,
    trial=2,
    action_space=ACTIONS,
    observe=joints,
    constants=Constants(),
    train=towards(THREE_QUARTERS),
    ood=QUARTER,
    frozen_tasks=40,
    body=GYM_BODY,
    frame_skip=5,
    reset_noise=GYM_NOISE,
)
PEARL = replace(
    DEFAULT,
    name="pearl",
    source="PEARL (1903.08254) ant-dir, forward and backward",
    constants=Constants(contact_cost=5e-4),
    train=towards(Choice((0.0, math.pi))),
    ood=SIDEWAYS,
    body=CONTACT_BODY,
    note="the released configuration draws two random angles instead, unseeded",
)
PROMP = replace(
    PEARL,
    name="promp",
    source="ProMP (1810.06784) AntRandDirec",
    observe=joints_contact,
    constants=Constants(contact_cost=5e-4, low=0.0),
    note="",
)
VARIANTS = (
    DEFAULT,
    replace(
        PEARL,
        name="maml",
        source="MAML (1703.03400)",
        observe=matrix_contact_com,
        constants=Constants(control_cost=0.005, contact_cost=5e-4, alive=0.05),
        body=RLLAB_BODY,
        frame_skip=1,
        reset_noise=RLLAB_NOISE,
        budgets=(0, 20, 40, 60),  # its test batches are of 4,000 steps
        note="the control cost is on the action in [-1, 1]; rllab's Ant is Gymnasium's with its time step and start",
    ),
    PROMP,
    replace(PROMP, name="promp-2d", source="ProMP (1810.06784) AntRandDirec2D", train=towards(CIRCLE), ood=SLIPPERY),
    PEARL,
    replace(
        PEARL,
        name="varibad",
        source="VariBAD (1910.08348), pomdp-baselines (2110.05038) AntDir-v0",
        train=towards(Choice((1.0, -1.0))),
        note="its two directions are ±1 radian, though named forward and backward",
    ),
    replace(
        PEARL,
        name="ldm",
        source="LDM (2110.13471)",
        train=towards(QUARTERS),
        ood={
            "ood-diagonals": Split(
                towards(Choice(tuple(a + math.pi / 4 for a in QUARTERS.options))), "hole", about="the diagonals"
            )
        },
        note="",
    ),
    replace(PEARL, name="mier", source="MIER (2006.07178)", train=towards(THREE_QUARTERS), ood=QUARTER, note=""),
    replace(PEARL, name="macaw", source="MACAW (2008.06043)", train=towards(CIRCLE), ood=SLIPPERY, note=""),
    replace(PROMP, name="l2l", source="learn2learn AntDirection", horizon=100, train=towards(CIRCLE), ood=SLIPPERY),
)
