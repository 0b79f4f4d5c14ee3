"""Dense navigation in the plane: a point mass moves to a hidden goal, paid by its distance.

MAML (Finn et al. 2017, arXiv 1703.03400), ProMP (Rothfuss et al. 2018, arXiv 1810.06784),
PEARL (Rakelly et al. 2019, arXiv 1903.08254), ES-MAML (Song et al. 2020, arXiv 1910.01215).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, norm
from kshot.family import Analytic, Family, Field, Policy, Split, Variant
from kshot.laws import Choice, Frame, Uniform
from kshot.rendering.scene import Disc, Rectangle, Scene


class Constants(NamedTuple):
    """Constants of the plane."""

    step: float = 0.1  # m a step at an action of 1
    start: float = 0.0  # m, the start is uniform within ± this
    arena: float = math.inf  # m, positions are clipped to ± this
    power: float = 1.0  # of the distance in the cost
    tolerance: float = 0.0  # m an axis, ends the episode
    radius: float = 0.0  # m, ends the episode
    success: float = 0.1  # m


class Task(NamedTuple):
    """Where the goal is."""

    goal: Array  # (N, 2) m


class State(NamedTuple):
    """Where the point is."""

    position: Array  # (N, 2) m


def initial(noise: Array, task: Task, c: Constants) -> State:
    """Start at the origin, or anywhere within the start square."""
    return State(0.0 * task.goal if c.start == 0 else (2.0 * noise - 1.0) * c.start)


def transition(state: State, action: Array, noise: Array, task: Task, c: Constants) -> State:
    """Move by the action."""
    position = state.position + c.step * action
    return State(position if c.arena == math.inf else position.clip(-c.arena, c.arena))


def observe(state: State) -> Array:
    """Return the position."""
    return state.position + 0.0


def distance_to_goal(before: State, after: State, task: Task, c: Constants) -> Array:
    """Return the distance to the goal, (N,) m."""
    return norm(after.position - task.goal)


def reward_terms(
    before: State, action: Array, after: State, task: Task, c: Constants, distance: Array = None
) -> dict[str, Array]:
    """Charge the distance to the goal."""
    distance = distance_to_goal(before, after, task, c) if distance is None else distance
    return {"distance": -distance if c.power == 1 else -(distance**c.power)}


def terminated(state: State, task: Task, c: Constants) -> Array:
    """End within tolerance of the goal on both axes, or within radius of it."""
    offset = state.position - task.goal
    return (abs(offset) < c.tolerance).all(-1) | (norm(offset) <= c.radius)


def metrics(before: State, after: State, task: Task, c: Constants, distance: Array = None) -> dict[str, Array]:
    """Success: within the success radius of the goal."""
    return {"success": (distance_to_goal(before, after, task, c) if distance is None else distance) < c.success}


def expert(task: Task, c: Constants) -> Policy:
    """Go straight to the goal, each axis as fast as it may."""
    return lambda state, clock: (task.goal - state.position) / c.step


def scene(state: State, task: Task, c: Constants) -> Scene:
    """Show the goal, the point, and the border of the arena."""
    x, y = (float(v) for v in state.position[0])
    gx, gy = (float(v) for v in task.goal[0])
    reach = 1.15 * max(1.0, abs(gx), abs(gy), abs(x), abs(y))
    border = (
        () if c.arena == math.inf else (Rectangle(-c.arena, -c.arena, 2 * c.arena, 2 * c.arena, "ink", hollow=True),)
    )
    goal = (Disc(gx, gy, c.success, "reach"), Disc(gx, gy, reach / 40, "goal"))
    marks = (*goal, *border, Disc(x, y, reach / 30, "agent"))
    return Scene(marks, f"goal ({gx:.2f}, {gy:.2f}) m", (-reach, reach, -reach, reach), grid=0.5)


FAMILY = Family(
    name="PointGoal",
    summary="Move a point in the plane to a hidden goal, paid by the distance to it at every step.",
    hidden="the goal",
    formula="−distance to the goal ^ power",
    task=Task,
    fields={"goal": Field("goal position", -10, 10, "m")},
    reward_terms=reward_terms,
    metrics=metrics,
    shared=distance_to_goal,
    analytic=Analytic(initial=initial, transition=transition),
    expert=expert,
    scene=scene,
)
ENDING = replace(FAMILY, terminated=terminated)
SCATTERED = replace(FAMILY, analytic=Analytic(initial=initial, transition=transition, initial_noise=2))
UNIT, TENTH = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-0.1, 0.1, (2,), np.float32)


def square(half: float) -> dict[str, Uniform]:
    """Return the law of a goal uniform in the square [-half, half]²."""
    return {"goal": Uniform(-half, half, (2,))}


def outside(inner: float, outer: float) -> dict[str, Split]:
    """Return the split of goals outside the training square."""
    return {"ood-far": Split({"goal": Frame(inner, outer)}, "extrapolation", about="goals outside the training square")}


DEFAULT = Variant(
    family=FAMILY,
    source="kshot",
    horizon=20,
    trial=2,
    action_space=UNIT,
    observe=observe,
    constants=Constants(),
    train=square(1.0),
    ood=outside(1.0, 1.5),
)
MAML = replace(
    DEFAULT,
    family=ENDING,
    name="maml",
    source="MAML (1703.03400)",
    horizon=100,
    action_space=TENTH,
    constants=Constants(step=1.0, tolerance=0.01),
    train=square(0.5),
    ood=outside(0.5, 1.0),
    budgets=(0, 40, 80, 120),  # its test batches are of 4,000 steps
)
VARIANTS = (
    DEFAULT,
    MAML,
    replace(
        MAML,
        name="maml-2goal",
        train={"goal": Choice(((-0.5, 0.0), (0.5, 0.0)))},
        ood={
            "ood-sideways": Split({"goal": Choice(((0.0, -0.5), (0.0, 0.5)))}, "extrapolation", about="the other axis")
        },
    ),
    replace(
        MAML,
        name="promp",
        source="ProMP (1810.06784) point_env_2d_v2",
        train=square(2.0),
        ood=outside(2.0, 3.0),
        note="ends at the goal; the released code ends at the origin",
    ),
    replace(
        DEFAULT,
        family=SCATTERED,
        name="pearl",
        source="PEARL (1903.08254) point-robot",
        action_space=TENTH,
        constants=Constants(step=1.0, start=1.0),
    ),
    replace(
        DEFAULT,
        family=SCATTERED,
        name="pb",
        source="pomdp-baselines (2110.05038) PointRobot-v0",
        horizon=60,
        action_space=TENTH,
        constants=Constants(step=1.0, start=1.0),
    ),
    replace(
        MAML,
        name="esmaml",
        source="ES-MAML (1910.01215) NavigationTask2d",
        constants=Constants(step=1.0, arena=1.0, power=2.0, radius=0.1),
        train=square(1.0),
        ood={
            "ood-corners": Split(
                {"goal": Frame(1.0, 1.25)},
                "extrapolation",
                about="goals just outside the arena: the border is the best place",
            )
        },
    ),
)
