"""HalfCheetah at a hidden goal velocity.

MAML (Finn et al. 2017, arXiv 1703.03400), ProMP (Rothfuss et al. 2018, arXiv 1810.06784), PEARL (Rakelly et al.
2019, arXiv 1903.08254), VariBAD (Zintgraf et al. 2020, arXiv 1910.08348), LDM (Lee and Chung 2021, arXiv
2110.13471), MIER (Mendonca et al. 2020, arXiv 2006.07178), MACAW (Mitchell et al. 2021, arXiv 2008.06043),
MetaCURE (Zhang et al. 2021, arXiv 2006.08170), CAVIA (Zintgraf et al. 2019, arXiv 1810.03642).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kshot.arrays import Array, namespace, squared_norm
from kshot.families.half_cheetah import (
    ACTIONS,
    GYM_BODY,
    RLLAB_BODY,
    TORSO_BODY,
    joints,
    speed,
    with_com,
    with_torso,
)
from kshot.family import GYM_NOISE, RLLAB_NOISE, Family, Field, Split, Variant
from kshot.laws import Choice, JointLaw, Mixture, Uniform
from kshot.physics.bodies import MjState
from kshot.rendering.scene import Arrow, Scene


class Constants(NamedTuple):
    """Constants of the reward."""

    control_cost: float = 0.05  # per squared action
    bonus: float = 0.0  # at the goal velocity
    band: float = math.inf  # m/s, the reward is felt within this of the goal velocity


class Task(NamedTuple):
    """How fast to run."""

    velocity: Array  # (N,) m/s


def reward_terms(
    before: MjState, action: Array, after: MjState, task: Task, c: Constants, v: Array = None
) -> dict[str, Array]:
    """Charge the distance from the goal velocity, and control."""
    error = abs((speed(before, after) if v is None else v) - task.velocity)
    felt = -error if c.band == math.inf else namespace(error).where(error <= c.band, c.bonus - error, 0.0 * error)
    return {"velocity": felt, "control": -c.control_cost * squared_norm(action)}


def metrics(before: MjState, after: MjState, task: Task, c: Constants, v: Array = None) -> dict[str, Array]:
    """Show the velocity."""
    return {"x_velocity": speed(before, after) if v is None else v}


def scene(state: MjState, task: Task, c: Constants) -> Scene:
    """Show the goal velocity and the actual one as arrows of one scale above the body."""
    x, goal, actual = float(state.qpos[0, 0]), float(task.velocity[0]), float(state.qvel[0, 0])
    scale = 1.4 / max(3.0, abs(goal))
    shown = min(max(scale * actual, -1.5), 1.5)
    marks = (Arrow(x, 1.5, scale * goal, 0, "goal"), Arrow(x, 1.35, shown, 0, "actual"))
    return Scene(marks, f"goal {goal:.2f} m/s, now {actual:.2f} m/s", plane="side")


FAMILY = Family(
    name="HalfCheetahVel",
    summary="Run at a hidden goal velocity.",
    hidden="the goal velocity",
    formula="−|v − velocity| (bonus − |v − velocity| within band, else 0, where band is finite) − control_cost·|a|²",
    task=Task,
    fields={"velocity": Field("goal velocity", -10, 10, "m/s")},
    reward_terms=reward_terms,
    metrics=metrics,
    shared=speed,
    scene=scene,
)


def between(low: float, high: float) -> JointLaw:
    """Return the law of a velocity uniform between two."""
    return {"velocity": Uniform(low, high)}


def faster(low: float, high: float) -> dict[str, Split]:
    """Return the split of velocities above those of training."""
    return {"ood-faster": Split(between(low, high), "extrapolation", about="faster than in training")}


def beyond(top: float, more: float) -> dict[str, Split]:
    """Return the splits of velocities above and below those of training."""
    return {**faster(top, more), "ood-backward": Split(between(-2, 0), "extrapolation", about="running backward")}


DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after ProMP (1810.06784)",
    horizon=200,
    trial=2,
    action_space=ACTIONS,
    observe=joints,
    constants=Constants(),
    train=between(0, 3),
    ood=beyond(3, 4),
    frozen_tasks=40,
    body=GYM_BODY,
    frame_skip=5,
    reset_noise=GYM_NOISE,
)
PEARL = replace(DEFAULT, name="pearl", source="PEARL (1903.08254) cheetah-vel", observe=with_torso, body=TORSO_BODY)
_SPEEDS = tuple(float(v) for v in np.linspace(0.075, 3, 40))
VARIANTS = (
    DEFAULT,
    replace(
        DEFAULT,
        name="maml",
        source="MAML (1703.03400)",
        observe=with_com,
        train=between(0, 2),
        ood=beyond(2, 3),
        body=RLLAB_BODY,
        frame_skip=1,
        reset_noise=RLLAB_NOISE,
        budgets=(0, 20, 40, 60),  # its test batches are of 4,000 steps
    ),
    replace(DEFAULT, name="promp", source="ProMP (1810.06784)", horizon=100),
    PEARL,
    replace(PEARL, name="varibad", source="VariBAD (1910.08348), pomdp-baselines (2110.05038)"),
    replace(PEARL, name="pmr", source="pytorch-maml-rl, garage", horizon=100, train=between(0, 2), ood=beyond(2, 3)),
    replace(PEARL, name="cavia", source="CAVIA (1810.03642)", train=between(0, 2), ood=beyond(2, 3)),
    replace(
        PEARL,
        name="ldm",
        source="LDM (2110.13471)",
        train={"velocity": Mixture(0.5, Uniform(0, 0.5), Uniform(3, 3.5))},
        ood={
            "ood-between": Split(
                {"velocity": Choice((0.75, 1.25, 1.75, 2.25, 2.75))}, "hole", about="its unseen evaluation velocities"
            )
        },
    ),
    replace(PEARL, name="mier", source="MIER (2006.07178), medium", train=between(0, 2.5), ood=faster(2.5, 3)),
    replace(PEARL, name="mier-hard", source="MIER (2006.07178), hard", train=between(0, 1.5), ood=faster(2.5, 3)),
    replace(
        PEARL,
        name="macaw",
        source="MACAW (2008.06043), extrapolation",
        train={"velocity": Choice(_SPEEDS[:26])},
        ood={"ood-faster": Split({"velocity": Choice(_SPEEDS[26:])}, "extrapolation", about="its 14 test velocities")},
    ),
    replace(
        PEARL,
        name="metacure",
        source="MetaCURE (2006.08170) cheetah-vel-sparse",
        horizon=64,
        constants=Constants(bonus=2.0, band=0.5),
    ),
    replace(DEFAULT, name="amago", source="AMAGO (2310.09971)", horizon=1000, trial=1),
)
