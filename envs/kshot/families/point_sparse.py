"""Sparse navigation in the plane: a point looks for a hidden goal on a half circle, paid only near it.

MAESN (Gupta et al. 2018, arXiv 1802.07245), PEARL (Rakelly et al. 2019, arXiv 1903.08254), VariBAD and HyperX
(Zintgraf et al. 2020, 2021, arXiv 1910.08348, 2010.01062), MetaCURE (Zhang et al. 2021, arXiv 2006.08170),
BOReL (Dorfman et al. 2021, arXiv 2008.02598), pomdp-baselines (Ni et al. 2022, arXiv 2110.05038).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, as_float, namespace, norm, squared_norm
from kshot.family import Analytic, Family, Field, Policy, Split, Variant
from kshot.laws import Annulus
from kshot.rendering.scene import Disc, Scene


class Constants(NamedTuple):
    """Constants of the plane; a reward is `near` within the radius of the goal and `far` outside."""

    radius: float = 0.2  # m within which the goal is felt; inf: the reward is dense
    flat: bool = False  # pay 1 within the radius, instead of closeness
    closeness: float = 1.0  # near the goal the reward is closeness − distance
    frozen: bool = False  # outside, charge the goal's distance from the origin, instead of nothing
    control_cost: float = 0.0  # per squared action
    step: float = 0.1  # m a step at an action of 1
    start: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # m, x_min, x_max, y_min, y_max of the start
    distractor: bool = False  # a third observation, noise near (0, −1)


class Task(NamedTuple):
    """Where the goal is."""

    goal: Array  # (N, 2) m


class State(NamedTuple):
    """Where the point is, and the distractor."""

    position: Array  # (N, 2) m
    distractor: Array  # (N,)


def initial(noise: Array, task: Task, c: Constants) -> State:
    """Start at the origin, or anywhere in the start box."""
    x_min, x_max, y_min, y_max = c.start
    x, y = x_min + (x_max - x_min) * noise[:, 0], y_min + (y_max - y_min) * noise[:, 1]
    return State(namespace(noise).stack([x, y], -1), 0.0 * x)


def transition(state: State, action: Array, noise: Array, task: Task, c: Constants) -> State:
    """Move by the action."""
    position = state.position + c.step * action
    if not c.distractor:
        return State(position, state.distractor)
    x, y = position[:, 0], position[:, 1] + 1.0
    return State(position, 4.0 * noise[:, 0] * as_float(x * x + y * y <= 0.3**2, position))


def observe(state: State) -> Array:
    """Return the position."""
    return state.position + 0.0


def observe_distractor(state: State) -> Array:
    """Return the position and the distractor."""
    return namespace(state.position).concatenate([state.position, state.distractor[:, None]], -1)


def reward_terms(before: State, action: Array, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Pay near the goal."""
    distance = norm(after.position - task.goal)
    near = 1.0 + 0.0 * distance if c.flat else c.closeness - distance
    far = -norm(task.goal) if c.frozen else 0.0 * distance
    terms = {"goal": namespace(distance).where(distance <= c.radius, near, far)}
    return {**terms, "control": -c.control_cost * squared_norm(action)} if c.control_cost else terms


def metrics(before: State, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Success: within the radius of the goal (of 0.2 m where the reward is dense)."""
    return {"success": norm(after.position - task.goal) <= (c.radius if c.radius < math.inf else 0.2)}


def expert(task: Task, c: Constants) -> Policy:
    """Go straight to the goal, each axis as fast as it may."""
    return lambda state, clock: (task.goal - state.position) / c.step


def scene(state: State, task: Task, c: Constants) -> Scene:
    """Show the circle of goals, the goal with its radius, and the point."""
    x, y = (float(v) for v in state.position[0])
    gx, gy = (float(v) for v in task.goal[0])
    circle, felt = math.hypot(gx, gy), c.radius < math.inf
    reach = max(1.5 * circle, 1.2 * abs(x), 1.2 * abs(y), 0.5)
    ring = Disc(0, 0, circle, "faint", hollow=True)
    goal = (Disc(gx, gy, c.radius if felt else 0.2, "reach"), Disc(gx, gy, reach / 45, "goal"))
    caption = f"goal ({gx:.2f}, {gy:.2f}) m, felt {f'within {c.radius:g} m' if felt else 'everywhere'}"
    marks = (ring, *goal, Disc(x, y, reach / 32, "agent"))
    return Scene(marks, caption, (-reach, reach, -reach, reach), grid=0.5)


FAMILY = Family(
    name="PointSparse",
    summary="Find a hidden goal on a half circle; only near it the reward tells anything.",
    hidden="the goal",
    formula="within radius of the goal: closeness − distance (1 where flat); outside: 0 (−|goal| where frozen); "
    "− control_cost·|a|²",
    task=Task,
    fields={"goal": Field("goal position", -10, 10, "m")},
    reward_terms=reward_terms,
    metrics=metrics,
    analytic=Analytic(initial=initial, transition=transition, initial_noise=2),
    expert=expert,
    scene=scene,
)
NOISY = replace(FAMILY, analytic=Analytic(initial=initial, transition=transition, initial_noise=2, noise=1))
UNIT, TENTH = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-0.1, 0.1, (2,), np.float32)


def arc(radius: float, start: float, stop: float) -> dict[str, Annulus]:
    """Return the law of a goal on an arc, angles in half turns."""
    return {"goal": Annulus(radius, radius, start * math.pi, stop * math.pi)}


OTHER_HALF = {"ood-other-half": Split(arc(1, 1, 2), "extrapolation", about="the other half circle")}
DEFAULT = Variant(
    family=FAMILY,
    source="kshot, after VariBAD (1910.08348)",
    horizon=20,
    trial=4,
    action_space=UNIT,
    observe=observe,
    constants=Constants(),
    train=arc(1, 0, 1),
    ood=OTHER_HALF,
)
VARIBAD = replace(
    DEFAULT,
    name="varibad",
    source="VariBAD (1910.08348) and HyperX (2010.01062) SparsePointEnv-v0",
    horizon=100,
    trial=3,
)
PB = replace(
    VARIBAD,
    name="pb",
    source="pomdp-baselines (2110.05038) PointRobotSparse-v0",
    horizon=60,
    trial=2,
    action_space=TENTH,
    constants=Constants(flat=True, step=1.0, start=(-1.5, 1.5, -0.5, 1.5)),
)
DENSE = Constants(radius=math.inf, closeness=0.0)
VARIANTS = (
    DEFAULT,
    replace(
        DEFAULT,
        name="maesn",
        source="MAESN (1802.07245), its wheeled robot's reward on a point",
        horizon=200,
        constants=DENSE._replace(control_cost=0.05),
        train=arc(2, 0, 1),
        ood={
            "ood-sparse": Split(arc(2, 0, 1), "reward", {"radius": 0.8, "frozen": True}, "train dense, score sparse"),
            "ood-other-half": Split(arc(2, 1, 2), "extrapolation", about="the other half circle"),
        },
        note="the paper's body is a wheeled robot in MuJoCo; here it is a point that moves 0.1 m a step",
    ),
    replace(
        DEFAULT,
        name="pearl",
        source="PEARL (1903.08254) sparse-point-robot",
        action_space=TENTH,
        constants=DENSE._replace(step=1.0),
        ood={
            "ood-sparse": Split(arc(1, 0, 1), "reward", {"radius": 0.2, "closeness": 1.0}, "train dense, score sparse"),
            **OTHER_HALF,
        },
    ),
    VARIBAD,
    PB,
    replace(PB, name="borel", source="BOReL (2008.02598) PointRobotSparse-v0"),
    replace(
        VARIBAD,
        name="metacure",
        source="MetaCURE (2006.08170) sparse-point-robot",
        horizon=32,
        trial=1,
        action_space=TENTH,
        constants=Constants(radius=0.3, step=1.0),
    ),
    replace(
        VARIBAD,
        family=NOISY,
        name="metacure-noise",
        source="MetaCURE (2006.08170) sparse-point-robot-noise",
        horizon=32,
        trial=1,
        action_space=TENTH,
        observe=observe_distractor,
        constants=Constants(radius=0.3, step=1.0, distractor=True),
    ),
)
