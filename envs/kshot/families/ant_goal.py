"""Ant to a hidden goal position, paid by its distance or only near it.

MAML (Finn et al. 2017, arXiv 1703.03400), ProMP (Rothfuss et al. 2018, arXiv 1810.06784), PEARL (Rakelly et al.
2019, arXiv 1903.08254), VariBAD and HyperX (Zintgraf et al. 2020, 2021, arXiv 1910.08348, 2010.01062), MAESN
(Gupta et al. 2018, arXiv 1802.07245), GMPS (Mendonca et al. 2019, arXiv 1904.00956), LDM (Lee and Chung 2021,
arXiv 2110.13471), BOReL (Dorfman et al. 2021, arXiv 2008.02598), MetaCURE (Zhang et al. 2021, arXiv 2006.08170).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from kshot.arrays import Array, as_float, namespace, norm, squared_norm
from kshot.families.ant import (
    ACTIONS,
    CONTACT_BODY,
    GYM_BODY,
    LOW_GEAR_BODY,
    MATRIX_BODY,
    NO_NOISE,
    RLLAB_BODY,
    contact_cost,
    fallen,
    matrix_contact,
    matrix_contact_com,
    matrix_contact_torso,
    placed,
    placed_contact,
    torso_placed_contact,
)
from kshot.family import GYM_NOISE, RLLAB_NOISE, Family, Field, Split, Variant
from kshot.laws import Annulus, Choice, Frame, JointLaw, Mixture, Uniform
from kshot.physics.bodies import MjState
from kshot.rendering.scene import Disc, Scene


class Constants(NamedTuple):
    """Constants of the reward and of the end."""

    goal: Literal["dense", "near", "flat", "frozen", "threshold"] = "dense"  # see `_goal`
    radius: float = math.inf  # m, within which a sparse reward is felt
    outside: float = 0.0  # reward outside the radius, where goal is "near"
    control_cost: float = 0.1  # per squared action
    contact_cost: float = 0.0  # per squared contact, clipped
    offset: float = 0.0  # a step
    low: float = -math.inf  # m, torso heights outside end the episode
    high: float = math.inf  # m


class Task(NamedTuple):
    """Where the goal is."""

    goal: Array  # (N, 2) m


def _place(state: MjState) -> Array:
    """Return where the ant is, (N, 2) m: the centre of mass where the body reads it, else the torso."""
    return (state.torso if state.com is None else state.com)[:, :2]


def _goal(offset: Array, costs: Array, task: Task, c: Constants) -> Array:
    """Return the goal term of the family's formula."""
    xp = namespace(offset)
    l1, l2 = abs(offset).sum(-1), norm(offset)
    if c.goal == "near":
        return xp.where(l2 <= c.radius, 1.0 - l2, 0.0 * l2 + c.outside)
    if c.goal == "flat":
        return as_float(l2 <= c.radius, l2)
    if c.goal == "frozen":
        return xp.where(l2 > c.radius, -abs(task.goal).sum(-1), -l1)
    if c.goal == "threshold":
        dense = -l1 + costs
        return xp.where(dense < -c.radius, 0.0 * dense, 2.0 + dense)
    return -l1


def reward_terms(before: MjState, action: Array, after: MjState, task: Task, c: Constants) -> dict[str, Array]:
    """Pay closeness to the goal, charge control and contact."""
    terms = {"control": -c.control_cost * squared_norm(action)}
    if c.contact_cost:
        terms["contact"] = -c.contact_cost * contact_cost(after)
    costs = terms["control"] + terms["contact"] if c.contact_cost else terms["control"]
    terms = {"goal": _goal(_place(after) - task.goal, costs, task, c), **terms}
    return {**terms, "offset": 0.0 * costs + c.offset} if c.offset else terms


def terminated(state: MjState, task: Task, c: Constants) -> Array:
    """End where the torso's height is outside [low, high]."""
    return fallen(state, c.low, c.high)


def metrics(before: MjState, after: MjState, task: Task, c: Constants) -> dict[str, Array]:
    """Show the distance; success is within the radius, or within 0.5 m where the reward is dense."""
    distance = norm(_place(after) - task.goal)
    return {"distance": distance, "success": distance <= (c.radius if c.radius < math.inf else 0.5)}


def scene(state: MjState, task: Task, c: Constants) -> Scene:
    """Show the goal and its radius on the ground; the goal is larger where it is far, so that it is seen."""
    x, y = (float(v) for v in task.goal[0])
    away = math.hypot(x - float(state.qpos[0, 0]), y - float(state.qpos[0, 1]))
    reach = (Disc(x, y, c.radius, "reach"),) if c.radius < math.inf else ()
    return Scene((*reach, Disc(x, y, max(0.2, away / 25), "goal")), f"goal ({x:.2f}, {y:.2f}) m")


FAMILY = Family(
    name="AntGoal",
    summary="Walk to a hidden goal position.",
    hidden="the goal",
    formula="goal term − control_cost·|a|² − contact_cost·|contact|² + offset; the goal term is, for dense: −L1; near: "
    "1 − L2 within radius, else outside; flat: 1 within radius, else 0; frozen: −L1, outside radius the origin's; "
    "threshold: 2 − L1 − costs where −L1 − costs ≥ −radius, else 0",
    task=Task,
    fields={"goal": Field("goal position", -20, 20, "m")},
    reward_terms=reward_terms,
    terminated=terminated,
    metrics=metrics,
    scene=scene,
)


def disc(inner: float, outer: float) -> JointLaw:
    """Return the law of a goal uniform by area between two radii."""
    return {"goal": Annulus(inner, outer)}


def arc(radius: float, start: float, stop: float) -> JointLaw:
    """Return the law of a goal on an arc, angles in half turns."""
    return {"goal": Annulus(radius, radius, start * math.pi, stop * math.pi)}


FAR = {"ood-far": Split(disc(3, 4), "extrapolation", about="beyond the disc")}
OTHER_HALF = Split(arc(1, 1, 2), "extrapolation", about="the other half circle")
DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after ProMP (1810.06784)",
    horizon=200,
    trial=2,
    action_space=ACTIONS,
    observe=placed,
    constants=Constants(),
    train=disc(0, 3),
    ood=FAR,
    frozen_tasks=40,
    body=GYM_BODY,
    frame_skip=5,
    reset_noise=GYM_NOISE,
)
PROMP = replace(
    DEFAULT,
    name="promp",
    source="ProMP (1810.06784)",
    observe=placed_contact,
    constants=Constants(contact_cost=5e-4),
    body=CONTACT_BODY,
)
MAML = replace(
    DEFAULT,
    name="maml",
    source="MAML (1703.03400)",
    observe=matrix_contact_com,
    constants=Constants(control_cost=0.005, contact_cost=5e-4, offset=4.05, low=0.2, high=1.0),
    train={"goal": Uniform(-3, 3, (2,))},
    ood={"ood-far": Split({"goal": Frame(3, 4)}, "extrapolation", about="goals outside the training square")},
    body=RLLAB_BODY,
    frame_skip=1,
    reset_noise=RLLAB_NOISE,
    note="the control cost is on the action in [-1, 1]; rllab's Ant is Gymnasium's with its time step and start",
)
MAESN = replace(
    MAML,
    name="maesn",
    source="MAESN (1802.07245)",
    train=arc(2, 0, 1),
    ood={
        "ood-sparse": Split(arc(2, 0, 1), "reward", {"goal": "frozen", "radius": 0.8}, "train dense, score sparse"),
        "ood-other-half": Split(arc(2, 1, 2), "extrapolation", about="the other half circle"),
    },
    body=LOW_GEAR_BODY,
    note="low-gear Ant (30 Nm); the control cost is on the action in [-1, 1]",
)
BOREL = replace(
    DEFAULT,
    name="borel",
    source="BOReL (2008.02598) AntSemiCircle",
    train=arc(1, 0, 1),
    ood={"ood-other-half": OTHER_HALF},
    reset_noise=NO_NOISE,
)
_RING = tuple((2 * math.cos(t), 2 * math.sin(t)) for t in (math.pi / 2 * i / 39 for i in range(40)))
VARIANTS = (
    DEFAULT,
    MAML,
    replace(
        MAML,
        name="pmr",
        source="pytorch-maml-rl AntPos",
        horizon=100,
        observe=matrix_contact_torso,
        body=MATRIX_BODY,
        frame_skip=5,
        reset_noise=GYM_NOISE,
        note="",
    ),
    PROMP,
    replace(PROMP, name="pearl", source="PEARL (1903.08254) ant-goal"),
    replace(PROMP, name="varibad", source="VariBAD (1910.08348) AntGoal-v0"),
    replace(PROMP, name="hyperx", source="HyperX (2010.01062) AntGoal-v0", observe=torso_placed_contact),
    replace(
        PROMP,
        name="hyperx-sparse",
        source="HyperX (2010.01062) AntGoalSparse-v0",
        trial=6,
        observe=torso_placed_contact,
        constants=Constants("near", radius=0.75, outside=-0.75, control_cost=0.01, contact_cost=5e-4),
    ),
    MAESN,
    replace(
        MAESN,
        name="gmps",
        source="GMPS (1904.00956)",
        observe=matrix_contact,
        train={"goal": Choice(_RING)},
        ood={"ood-other-side": Split(arc(2, 1, 1.5), "extrapolation", about="the opposite quarter circle")},
    ),
    replace(
        PROMP,
        name="ldm",
        source="LDM (2110.13471)",
        train={"goal": Mixture(4 / 15, Annulus(0, 1), Annulus(2.5, 3))},
        ood={
            "ood-ring": Split(
                {"goal": Choice(((1.75, 0.0), (0.0, 1.75), (-1.75, 0.0), (0.0, -1.75)))},
                "hole",
                about="its evaluation goals on the unseen ring",
            )
        },
    ),
    replace(
        PROMP,
        name="mier",
        source="MIER (2006.07178), restricted",
        train={"goal": Annulus(0, 3, 0, math.pi)},
        ood={
            "ood-other-half": Split(
                {"goal": Annulus(0, 3, math.pi, 2 * math.pi)}, "extrapolation", about="the other half disc"
            )
        },
    ),
    BOREL,
    replace(
        BOREL,
        name="borel-sparse",
        source="BOReL (2008.02598) AntSemiCircleSparse-v0",
        constants=Constants("flat", radius=0.2),
    ),
    replace(
        PROMP,
        name="metacure-sparse",
        source="MetaCURE (2006.08170) ant-goal-sparse",
        horizon=32,
        constants=Constants("threshold", radius=0.8, contact_cost=5e-4),
        train=arc(1, 0, 1),
        ood={"ood-other-half": OTHER_HALF},
        note="as released: within the radius, costs count twice",
    ),
)
