"""Grid navigation: find a hidden goal cell, then stay on it, over several episodes.

VariBAD (Zintgraf et al. 2020, arXiv 1910.08348), LDM (Lee and Chung 2021, arXiv 2110.13471),
BOReL (Dorfman et al. 2021, arXiv 2008.02598), DPT's dark room (Lee et al. 2023, arXiv 2306.14892).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from kshot.arrays import Array, as_float, constant
from kshot.family import Analytic, Family, Field, Policy, Split, Variant
from kshot.laws import Choice
from kshot.rendering.scene import Disc, Rectangle, Scene

STAY, UP, RIGHT, DOWN, LEFT = (0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)


class Constants(NamedTuple):
    """Constants of a grid."""

    size: int = 5  # cells a side
    moves: tuple[tuple[int, int], ...] = (STAY, UP, RIGHT, DOWN, LEFT)  # of each action
    at_goal: float = 1.0  # reward on the goal
    elsewhere: float = -0.1  # reward off the goal


class Task(NamedTuple):
    """Where the goal is."""

    goal: Array  # (N, 2) cell, x to the right and y up


class State(NamedTuple):
    """Where the agent is."""

    cell: Array  # (N, 2)


def initial(noise: Array, task: Task, c: Constants) -> State:
    """Start in the lower left corner."""
    return State(0.0 * task.goal)


def transition(state: State, action: Array, noise: Array, task: Task, c: Constants) -> State:
    """Move by one cell, not beyond the border."""
    return State((state.cell + constant(c.moves, state.cell)[action]).clip(0.0, c.size - 1.0))


def observe(state: State) -> Array:
    """Return the cell."""
    return state.cell + 0.0


def _on_goal(state: State, task: Task) -> Array:
    return (state.cell == task.goal).all(-1)


def reward_terms(before: State, action: Array, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Pay for every step on the goal."""
    on_goal = as_float(_on_goal(after, task), after.cell)
    return {"goal": c.elsewhere + (c.at_goal - c.elsewhere) * on_goal}


def metrics(before: State, after: State, task: Task, c: Constants) -> dict[str, Array]:
    """Success: on the goal."""
    return {"success": _on_goal(after, task)}


def expert(task: Task, c: Constants) -> Policy:
    """Take a shortest path: the first move that comes closest, which on the goal is to stay or to bump."""

    def policy(state: State, clock: Array) -> Array:
        reached = (state.cell[:, None] + constant(c.moves, state.cell)).clip(0.0, c.size - 1.0)
        return abs(reached - task.goal[:, None]).sum(-1).argmin(-1)

    return policy


def scene(state: State, task: Task, c: Constants) -> Scene:
    """Show the grid, the goal cell and the agent."""
    cells = [Rectangle(x, y, 1, 1, "faint", hollow=True) for x in range(c.size) for y in range(c.size)]
    gx, gy = (float(v) for v in task.goal[0])
    x, y = (float(v) for v in state.cell[0])
    return Scene(
        (*cells, Rectangle(gx, gy, 1, 1, "goal"), Disc(x + 0.5, y + 0.5, 0.3, "agent")),
        f"goal cell ({gx:.0f}, {gy:.0f})",
        (-0.2, c.size + 0.2, -0.2, c.size + 0.2),
    )


def cells(size: int) -> np.ndarray:
    """Return all cells of a grid, (size², 2)."""
    return np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).reshape(-1, 2)


def among(table: np.ndarray) -> dict[str, Choice]:
    """Return the law of a goal uniform over these cells."""
    return {"goal": Choice(tuple(tuple(float(v) for v in cell) for cell in table))}


def beyond(size: int, *rings: int) -> dict[str, Choice]:
    """Return the law of a goal uniform over these Chebyshev rings around the start."""
    grid = cells(size)
    return among(grid[np.isin(grid.max(-1), rings)])


FAMILY = Family(
    name="GridNav",
    summary="Find a hidden goal cell on a grid and stay on it.",
    hidden="the goal cell",
    formula="at_goal on the goal cell, elsewhere off it, every step",
    task=Task,
    fields={"goal": Field("goal cell", 0, 9, whole=True)},
    reward_terms=reward_terms,
    metrics=metrics,
    analytic=Analytic(initial=initial, transition=transition),
    expert=expert,
    scene=scene,
)
DEFAULT = Variant(
    family=FAMILY,
    source="VariBAD (1910.08348)",
    horizon=15,
    horizon_terminates=True,
    trial=4,
    action_space=spaces.Discrete(5),
    observe=observe,
    observation_bounds=(0.0, 4.0),
    bounds={"goal": (0, 4)},
    constants=Constants(),
    train=beyond(5, 2, 3, 4),
    ood={"ood-near": Split(beyond(5, 1), "extrapolation", about="the three cells around the start")},
)
_DARK = cells(10)[np.random.RandomState(0).permutation(100)]  # 80 cells train, 20 held out, as the paper splits them
VARIANTS = (
    DEFAULT,
    replace(
        DEFAULT,
        name="ldm",
        source="LDM (2110.13471)",
        horizon=30,
        observation_bounds=(0.0, 6.0),
        bounds={"goal": (0, 6)},
        constants=Constants(size=7),
        train=beyond(7, 2, 6),
        ood={"ood-rings": Split(beyond(7, 3, 4, 5), "hole", about="the rings left out of training")},
    ),
    replace(
        DEFAULT,
        name="borel",
        source="BOReL (2008.02598) GridNavi-v2",
        ood={
            **DEFAULT.ood,
            "ood-sparse": Split(DEFAULT.train, "reward", {"elsewhere": 0.0}, "its sparse option: no cost off the goal"),
        },
    ),
    replace(
        DEFAULT,
        name="dpt",
        source="DPT (2306.14892) dark room",
        horizon=100,
        trial=1,
        observation_bounds=(0.0, 9.0),
        bounds={},
        constants=Constants(10, (RIGHT, LEFT, UP, DOWN, STAY), 1.0, 0.0),
        train=among(_DARK[:80]),
        ood={"ood-held-out": Split(among(_DARK[80:]), "hole", about="20 of 100 cells")},
    ),
)
