"""Every variant's reward, term by term, its dynamics in closed form and its end, against numbers worked out by hand.

The numbers come from the papers' formulas (the comment beside each says how), never from the package.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

import kshot
from kshot.families import bandit, grid_nav, point_goal, point_rotated, point_sparse, tabular_mdp
from kshot.physics.bodies import MjState

PI = math.pi
INF = math.inf


class Case(NamedTuple):
    """One batch through a variant's pure functions."""

    variant: str  # id without "kshot/" and "-v0"
    task: dict[str, Any]
    before: Any
    action: Any
    after: Any
    terms: dict[str, list[float]]  # name: one number a row
    split: str = "train"
    noise: Any = None  # of the transition from `before` to `after`


def name_of(case: Case) -> str:
    return f"{case.variant}-{case.split}"


def get(name: str) -> Any:
    return kshot.VARIANTS[f"kshot/{name}-v0"]


def rows(x: Any) -> np.ndarray:
    return np.array(x, np.float64)


CASES: list[Case] = []

# --- Bandit -----------------------------------------------------------------------------------------------
# Row 0 pulls the last arm, row 1 arm 1, row 2 the last arm. Bernoulli: 1 where the uniform is below the mean.
BERNOULLI = {
    "k5n10": 5,
    "k10n10": 10,
    "k50n10": 50,
    "k5n100": 5,
    "k10n100": 10,
    "k50n100": 50,
    "k5n500": 5,
    "k10n500": 10,
    "k50n500": 50,
    "rl3": 5,
    "wang-easy": 2,
    "wang-medium": 2,
    "wang-hard": 2,
    "wang-independent": 2,
}


def means(arms: int, others: list[float], arm: list[int], mean: list[float]) -> dict[str, np.ndarray]:
    """Return arms that all pay `others`, but for one of them a row."""
    table = np.repeat(rows(others)[:, None], arms, 1)
    table[np.arange(len(arm)), arm] = mean
    return {"means": table}


def pulls(payoff: list[float], arm: list[int]) -> bandit.State:
    return bandit.State(rows(payoff), rows(arm))


for name, k in BERNOULLI.items():
    arm = [k - 1, 1, k - 1]
    CASES.append(
        Case(
            f"Bandit-{name}",
            # The other arms pay for sure where the pulled one shall not, and never where it shall.
            means(k, [0.0, 1.0, 0.0], arm, [0.3, 0.3, 0.8]),
            pulls([0, 0, 0], [-1, -1, -1]),
            np.array(arm),
            pulls([1, 0, 1], arm),
            {"payoff": [1, 0, 1]},  # 0.29 < 0.3; 0.31 > 0.3; 0.79 < 0.8
            noise=rows([[0.29], [0.31], [0.79]]),
        )
    )
# Box and Muller: sqrt(-2 ln exp(-2)) = 2; sqrt(-2 ln exp(-1/2)) = 1; cos(2 pi v) = 1, -1, 1/2 at v = 0, 1/2, 1/6.
GAUSS = rows([[math.exp(-2), 0.0], [math.exp(-0.5), 0.5], [math.exp(-2), 1 / 6]])
for name, payoff in (
    ("gaussian", [2.3, -0.25, 1.8]),  # 0.3 + 1 * 2; 0.75 + 1 * -1; 0.8 + 1 * 2 / 2
    ("dpt", [0.9, 0.45, 1.1]),  # 0.3 + 0.3 * 2; 0.75 + 0.3 * -1; 0.8 + 0.3 * 2 / 2
):
    CASES.append(
        Case(
            f"Bandit-{name}",
            means(5, [0.0, 1.0, 0.0], [4, 1, 2], [0.3, 0.75, 0.8]),
            pulls([0, 0, 0], [-1, -1, -1]),
            np.array([4, 1, 2]),
            pulls(payoff, [4, 1, 2]),
            {"payoff": payoff},
            noise=GAUSS,
        )
    )

# --- TabularMDP -------------------------------------------------------------------------------------------


def mdp() -> dict[str, np.ndarray]:
    """Return three MDPs, in which only the row's own state and action hold the numbers that matter."""
    transitions, rewards = np.zeros((3, 10, 5, 10)), np.full((3, 10, 5), 100.0)
    transitions[..., 5] = 1.0
    transitions[0, 2, 3] = [0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0, 0, 0]
    transitions[1, 9, 0] = [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]
    transitions[2, 0, 4] = [0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0, 0, 0]
    rewards[0, 2, 3], rewards[1, 9, 0], rewards[2, 0, 4] = 1.5, -0.5, 3.0
    return {"transitions": transitions, "rewards": rewards}


for n in (10, 25, 50, 75, 100):
    CASES.append(
        Case(
            f"TabularMDP-n{n}",
            mdp(),
            tabular_mdp.State(np.array([2, 9, 0]), rows([7, 7, 7])),
            np.array([3, 0, 4]),
            # 0.1 + 0.2 < 0.55 <= 0.1 + 0.2 + 0.3: state 2; 0.75 > 0.5: the last; 0.05 <= 0.1: state 0
            tabular_mdp.State(np.array([2, 9, 0]), rows([3.5, -1.5, 4.0])),
            {"payoff": [3.5, -1.5, 4.0]},  # 1.5 + 1 * 2; -0.5 + 1 * -1; 3.0 + 1 * 2 / 2
            noise=np.concatenate([rows([[0.55], [0.75], [0.05]]), GAUSS], 1),
        )
    )

# --- GridNav ----------------------------------------------------------------------------------------------
# From the middle and from two corners, every action; the goal is (2, 2).
LAST = {"GridNav": 4, "GridNav-ldm": 6, "GridNav-borel": 4, "GridNav-dpt": 9}  # the last cell of a side
VARIBAD_MOVES = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]  # stay, up, right, down, left
DPT_MOVES = [(1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)]  # x + 1, x - 1, y + 1, y - 1, stay
CORNER_ENDS = {  # where each of these actions leads from (0, 0) and from (last, last), with e the last cell
    "varibad": ([(0, 0), (0, 1), (1, 0), (0, 0), (0, 0)], lambda e: [(e, e), (e, e), (e, e), (e, e - 1), (e - 1, e)]),
    "dpt": ([(1, 0), (0, 0), (0, 1), (0, 0), (0, 0)], lambda e: [(e, e), (e - 1, e), (e, e), (e, e - 1), (e, e)]),
}
MIDDLE_ENDS = {  # from (2, 1)
    "varibad": [(2, 1), (2, 2), (3, 1), (2, 0), (1, 1)],
    "dpt": [(3, 1), (1, 1), (2, 2), (2, 0), (2, 1)],
}


def grid_case(name: str, moves: str, on: float, off: float, split: str = "train") -> Case:
    e = LAST[name]
    low, high = CORNER_ENDS[moves]
    cells = [(2, 1)] * 5 + [(0, 0)] * 5 + [(e, e)] * 5
    ends = MIDDLE_ENDS[moves] + low + high(e)
    goal_row = {"varibad": 1, "dpt": 2}[moves]  # up from (2, 1)
    terms = [off] * 15
    terms[goal_row] = on
    return Case(
        name,
        {"goal": rows([(2, 2)] * 15)},
        grid_nav.State(rows(cells)),
        np.array([0, 1, 2, 3, 4] * 3),
        grid_nav.State(rows(ends)),
        {"goal": terms},
        split,
    )


CASES += [
    grid_case("GridNav", "varibad", 1.0, -0.1),
    grid_case("GridNav-ldm", "varibad", 1.0, -0.1),
    grid_case("GridNav-borel", "varibad", 1.0, -0.1),
    grid_case("GridNav-borel", "varibad", 1.0, 0.0, "ood-sparse"),
    grid_case("GridNav-dpt", "dpt", 1.0, 0.0),
]

# --- PointGoal --------------------------------------------------------------------------------------------


def point(
    name: str, goal: Any, before: Any, action: Any, after: Any, distance: list[float], split: str = "train"
) -> Case:
    return Case(
        f"PointGoal{name}",
        {"goal": rows(goal)},
        point_goal.State(rows(before)),
        rows(action),
        point_goal.State(rows(after)),
        {"distance": distance},
        split,
    )


# An action of 1 moves by 0.1 m; the reward is -distance at the new place.
CASES.append(
    point("", [(0.4, 0.5), (-1, 1)], [(0, 0), (1, 1)], [(1, 1), (-1, 0)], [(0.1, 0.1), (0.9, 1)], [-0.5, -1.9])
)
for name in ("-maml", "-maml-2goal", "-promp", "-pearl", "-pb"):  # an action of 0.1 moves by 0.1 m; no border
    CASES.append(
        point(
            name,
            [(0.4, 0.5), (-0.5, 0)],
            [(0, 0), (2.5, 4)],
            [(0.1, 0.1), (-0.1, 0)],
            [(0.1, 0.1), (2.4, 4)],
            [-0.5, -math.sqrt(24.41)],  # (0.3, 0.4) has 0.5; 2.9^2 + 4^2 = 8.41 + 16 = 24.41
        )
    )
CASES.append(
    point(
        "-esmaml",
        [(0.4, 0.5), (-1, 1)],
        [(0, 0), (0.95, -0.95)],
        [(0.1, 0.1), (0.1, -0.1)],
        [(0.1, 0.1), (1, -1)],  # 1.05 is clipped to 1
        [-0.25, -8.0],  # -(0.3^2 + 0.4^2); -(2^2 + 2^2)
    )
)

# --- PointSparse ------------------------------------------------------------------------------------------
# The point ends at these places; with the goal (0, 1) they are 0, 0.15, 0.25, 0.35 and sqrt(1.25) from it.
PLACES = [(0, 1), (0, 0.85), (0, 0.75), (0, 0.65), (1, 0.5)]


def sparse(name: str, terms: dict[str, list[float]], scale: float, split: str = "train", goal: Any = (0, 1)) -> Case:
    """Return a case that moves by 0.1 m to the right (with actions of `scale` for 0.1 m), to PLACES."""
    after = rows(PLACES) + (rows(goal) - [0, 1])
    zeros = np.zeros(len(PLACES))
    return Case(
        f"PointSparse{name}",
        {"goal": np.repeat(rows([goal]), len(PLACES), 0)},
        point_sparse.State(after - [0.1, 0], zeros),
        np.repeat(rows([(scale, 0)]), len(PLACES), 0),
        point_sparse.State(after, zeros),
        terms,
        split,
        noise=np.full((len(PLACES), 1), 0.5),
    )


SIDE = -math.sqrt(1.25)  # 1^2 + 0.5^2
CASES += [
    sparse("", {"goal": [1.0, 0.85, 0, 0, 0]}, 1.0),  # 1 - distance within 0.2
    sparse("-varibad", {"goal": [1.0, 0.85, 0, 0, 0]}, 1.0),
    sparse("-pearl", {"goal": [0, -0.15, -0.25, -0.35, SIDE]}, 0.1),  # -distance while training
    sparse("-pearl", {"goal": [1.0, 0.85, 0, 0, 0]}, 0.1, "ood-sparse"),
    sparse("-pb", {"goal": [1, 1, 0, 0, 0]}, 0.1),  # 1 within 0.2
    sparse("-borel", {"goal": [1, 1, 0, 0, 0]}, 0.1),
    sparse("-metacure", {"goal": [1.0, 0.85, 0.75, 0, 0]}, 0.1),  # within 0.3
    sparse("-metacure-noise", {"goal": [1.0, 0.85, 0.75, 0, 0]}, 0.1),
    # MAESN: -distance - 0.05 * 1^2. The goal is (0, 2).
    sparse("-maesn", {"goal": [0, -0.15, -0.25, -0.35, SIDE], "control": [-0.05] * 5}, 1.0, goal=(0, 2)),
    # Within 0.8 -distance, beyond it minus the goal's own distance from the origin, 2.
    sparse("-maesn", {"goal": [0, -0.15, -0.25, -0.35, -2], "control": [-0.05] * 5}, 1.0, "ood-sparse", (0, 2)),
]
CASES += [
    Case(  # just inside and just outside each radius
        f"PointSparse{name}",
        {"goal": rows([goal] * 2)},
        point_sparse.State(rows(goal) - rows([(0, inside), (0, outside)]), np.zeros(2)),
        np.zeros((2, 2)),  # it stays
        point_sparse.State(rows(goal) - rows([(0, inside), (0, outside)]), np.zeros(2)),
        {"goal": terms, **({"control": [0, 0]} if "maesn" in name else {})},
        split,
        np.full((2, 1), 0.5),
    )
    for name, split, goal, inside, outside, terms in (
        ("", "train", (0, 1), 0.199, 0.201, [0.801, 0]),
        ("-varibad", "train", (0, 1), 0.199, 0.201, [0.801, 0]),
        ("-pearl", "ood-sparse", (0, 1), 0.199, 0.201, [0.801, 0]),
        ("-pb", "train", (0, 1), 0.199, 0.201, [1, 0]),
        ("-borel", "train", (0, 1), 0.199, 0.201, [1, 0]),
        ("-metacure", "train", (0, 1), 0.299, 0.301, [0.701, 0]),
        ("-metacure-noise", "train", (0, 1), 0.299, 0.301, [0.701, 0]),
        ("-maesn", "ood-sparse", (0, 2), 0.799, 0.801, [-0.799, -2]),
    )
]
CASES.append(
    Case(  # near (0, -1) the third observation is 4 times the uniform
        "PointSparse-metacure-noise",
        {"goal": rows([(0, 1)] * 4)},
        point_sparse.State(rows([(0, -0.8), (0, -0.6), (0.2, -1.2), (0, 0)]), rows([1, 1, 1, 1])),
        rows([(0, -0.1), (0, -0.05), (0, 0), (0.1, 0)]),
        # 0.1, 0.35, sqrt(0.08) = 0.283 and more from (0, -1), within 0.3 or not: 4 * 0.25, 0, 4 * 0.5, 0
        point_sparse.State(rows([(0, -0.9), (0, -0.65), (0.2, -1.2), (0.1, 0)]), rows([1.0, 0, 2.0, 0])),
        {"goal": [0, 0, 0, 0]},
        noise=rows([[0.25], [0.75], [0.5], [0.5]]),
    )
)

# --- PointRotated -----------------------------------------------------------------------------------------
# The action is turned counter-clockwise; mirrored means that its y is negated first. The goal is (1, 0).


def turned(name: str, split: str, mirrored: list[float], after: Any, terms: dict[str, list[float]]) -> Case:
    return Case(
        f"PointRotated{name}",
        {"angle": rows([0, PI / 2, -PI / 2, PI / 4]), "mirrored": rows(mirrored)},
        point_rotated.State(rows([(0, 0), (0, 0), (0.5, 0), (1.9, 1.9)])),
        rows([(0.5, 0.5), (1, 0.5), (1, 0.5), (1, 0)]),
        point_rotated.State(rows(after)),
        terms,
        split,
    )


DIAGONAL = 1.9 + 0.2 * math.sqrt(0.5)  # 2.041, clipped to 2
assert DIAGONAL > 2
# (0.5, 0.5) by 0: itself. (1, 0.5) by 90 degrees: (-0.5, 1); by -90 degrees: (0.5, -1).
PLAIN = [(0.5, 0.5), (-0.5, 1), (1, -1), (2, 2)]
# Mirrored: (0.5, -0.5); (1, -0.5) by 90 degrees: (0.5, 1); by -90 degrees: (-0.5, -1).
MIRRORED = [(0.5, -0.5), (0.5, 1), (0, -1), (2, 2)]
# From the goal: sqrt(0.5), sqrt(1.5^2 + 1), 1, sqrt(1 + 4); mirrored sqrt(0.5), sqrt(0.25 + 1), sqrt(1 + 1), sqrt(5).
PLAIN_COST = [-math.sqrt(0.5), -math.sqrt(3.25), -1, -math.sqrt(5)]
MIRRORED_COST = [-math.sqrt(0.5), -math.sqrt(1.25), -math.sqrt(2), -math.sqrt(5)]
# With steps of 0.2: (0.1, 0.1), (-0.1, 0.2), (0.5 + 0.1, -0.2); from the goal (0.9, 0.1), (1.1, 0.2), (0.4, 0.2).
SMALL = [(0.1, 0.1), (-0.1, 0.2), (0.6, -0.2), (2, 2)]
SMALL_COST = [-math.sqrt(0.82), -math.sqrt(1.25), -math.sqrt(0.2), -math.sqrt(5)]
# Mirrored: (0.1, -0.1), (0.1, 0.2), (0.5 - 0.1, -0.2); from the goal (0.9, 0.1), (0.9, 0.2), (0.6, 0.2).
SMALL_MIRRORED = [(0.1, -0.1), (0.1, 0.2), (0.4, -0.2), (2, 2)]
SMALL_MIRRORED_COST = [-math.sqrt(0.82), -math.sqrt(0.85), -math.sqrt(0.4), -math.sqrt(5)]
CASES += [
    turned("", "train", [0] * 4, SMALL, {"distance": SMALL_COST}),
    turned("", "ood-mirrored", [1] * 4, SMALL_MIRRORED, {"distance": SMALL_MIRRORED_COST}),
    turned("-norml", "train", [0] * 4, PLAIN, {"distance": PLAIN_COST}),
    turned("-norml", "ood-mirrored", [1] * 4, MIRRORED, {"distance": MIRRORED_COST}),
    turned("-norml", "ood-sparse", [0] * 4, PLAIN, {"time": [-1] * 4}),
    turned("-norml-sparse", "train", [0] * 4, PLAIN, {"time": [-1] * 4}),
    turned("-norml-sparse", "ood-mirrored", [1] * 4, MIRRORED, {"time": [-1] * 4}),
]

# --- MuJoCo states ----------------------------------------------------------------------------------------


class Mj(NamedTuple):
    """What is the case in a MuJoCo body; a variant sees those fields that its body reads out, and no others."""

    dt: float
    x: Any  # of the root joint
    torso: Any = None
    com: Any = None
    com_velocity: Any = None
    contact: Any = None
    height: Any = 0.5


def mj_state(name: str, s: Mj) -> MjState:
    """Build the state as the variant's body would hand it over; every field but those of `s` is absurd."""
    ant = name.startswith("Ant")
    n = len(s.x)
    qpos, qvel = np.full((n, 15 if ant else 9), 77.0), np.full((n, 14 if ant else 9), -55.0)
    qpos[:, 0] = s.x
    if ant:
        qpos[:, 2] = s.height
    fields = {"rotation": np.full((n, 9), 33.0)}
    fields |= {k: None if v is None else rows(v) for k, v in s._asdict().items() if k in MjState._fields[3:]}
    return MjState(qpos, qvel, s.dt, **{k: fields[k] for k in get(name).body.readouts})


# --- HalfCheetah ------------------------------------------------------------------------------------------
# The root goes from 1 to 1.1 and from -2 to -1.95; the centre of mass moves at 1.25 and 3 m/s.
SIX = rows([[0.5] * 6, [1, -1, 0.5, 0, 0, 0]])  # squared: 6 * 0.25 = 1.5; 1 + 1 + 0.25 = 2.25
SIX_COST = [-0.075, -0.1125]  # -0.05 * 1.5; -0.05 * 2.25


def cheetah(dt: float) -> dict[str, Mj]:
    return {
        "before": Mj(dt, [1.0, -2.0], [(50, 0, 0)] * 2, [(60, 0, 0)] * 2, [(70, 0, 0)] * 2),
        "after": Mj(dt, [1.1, -1.95], [(9, 0, 0), (-7, 0, 0)], [(80, 0, 0)] * 2, [(1.25, 8, 8), (3, 8, 8)]),
    }


def cheetah_case(name: str, dt: float, task: dict[str, Any], terms: dict[str, list[float]], split: str) -> Case:
    s = cheetah(dt)
    return Case(name, task, mj_state(name, s["before"]), SIX, mj_state(name, s["after"]), terms, split)


# Velocities 0.1 / 0.05 = 2 and 0.05 / 0.05 = 1 against 1.5 and 1.75: -0.5, -0.75.
for name in ("", "-promp", "-pearl", "-varibad", "-pmr", "-cavia", "-ldm", "-mier", "-mier-hard", "-macaw", "-amago"):
    CASES.append(
        cheetah_case(
            f"HalfCheetahVel{name}",
            0.05,
            {"velocity": rows([1.5, 1.75])},
            {"velocity": [-0.5, -0.75], "control": SIX_COST},
            "train",
        )
    )
CASES += [
    # rllab: the centre of mass at 1.25 and 3 against 1 and 0.5 (dx/dt would be 10 and 5): -0.25, -2.5.
    cheetah_case(
        "HalfCheetahVel-maml",
        0.01,
        {"velocity": rows([1, 0.5])},
        {"velocity": [-0.25, -2.5], "control": SIX_COST},
        "train",
    ),
    # MetaCURE: 2 - error within 0.5 m/s, else 0: 2 - 0.4; 1.75 - 1 = 0.75 is outside.
    cheetah_case(
        "HalfCheetahVel-metacure",
        0.05,
        {"velocity": rows([1.6, 1.75])},
        {"velocity": [1.6, 0], "control": SIX_COST},
        "train",
    ),
    # Just inside on one side, just outside on the other: 2 - 0.499; 1 - 0.499 = 0.501 off.
    cheetah_case(
        "HalfCheetahVel-metacure",
        0.05,
        {"velocity": rows([2.499, 0.499])},
        {"velocity": [1.501, 0], "control": SIX_COST},
        "train",
    ),
]


def directions(first: int, second: int, swapped: int = 0, friction: float = 1.0) -> dict[str, Any]:
    return {"direction": rows([first, second]), "swapped": rows([swapped] * 2), "friction": rows([friction] * 2)}


for name in ("", "-promp", "-pearl", "-varibad", "-pmr"):
    CASES += [
        cheetah_case(f"HalfCheetahDir{name}", 0.05, task, {"forward": forward, "control": SIX_COST}, split)
        for split, task, forward in (
            ("train", directions(1, -1), [2, -1]),
            ("train", directions(-1, 1), [-2, 1]),
            ("ood-swapped", directions(1, -1, swapped=1), [2, -1]),
            ("ood-slippery", directions(1, -1, friction=0.25), [2, -1]),
        )
    ]
CASES += [
    # rllab: the centre of mass at 1.25 and 3.
    cheetah_case("HalfCheetahDir-maml", 0.01, directions(-1, 1), {"forward": [-1.25, 3], "control": SIX_COST}, "train"),
    Case(  # HyperX: 2 m/s, rewarded where the torso's |x| is 5 m or more
        "HalfCheetahDir-hyperx-sparse",
        {"direction": rows([1, 1, 1, -1, 1]), "swapped": np.zeros(5), "friction": np.ones(5)},
        mj_state("HalfCheetahDir-hyperx-sparse", Mj(0.05, [4.0] * 5, [(9, 0, 0)] * 5)),
        np.full((5, 6), -0.5),
        mj_state(
            "HalfCheetahDir-hyperx-sparse",
            Mj(0.05, [4.1] * 5, [(0, 0, 0), (4.999, 0, 0), (5, 0, 0), (-5.001, 0, 0), (-4.999, 9, 9)]),
        ),
        {"forward": [0, 0, 2, -2, 0], "control": [-0.075] * 5},
    ),
]

# --- Ant --------------------------------------------------------------------------------------------------
# The torso moves from (1, 2) to (1.1, 1.95) and from (0, 0) to (-0.05, 0.2): (2, -1) and (-1, 4) m/s in 0.05 s.
# The centre of mass is at (0.5, -0.5) and (2, 1) and moves at (1.5, 0.5) and (-2, 3) m/s.
EIGHT = rows([[0.5] * 8, [1, -1, 0.5, 0, 0, 0, 0, 0]])  # squared: 8 * 0.25 = 2; 1 + 1 + 0.25 = 2.25
WRENCHES = np.zeros((2, 14, 6))  # of the world and 13 bodies
WRENCHES[0, 1, 2], WRENCHES[0, 3, 5], WRENCHES[0, 13, 0] = 0.5, 3.0, -4.0  # clipped: 0.25 + 1 + 1 = 2.25
WRENCHES[1, 4, 3], WRENCHES[1, 6, 1] = 0.2, -0.4  # 0.04 + 0.16 = 0.2
CONTACT = [-0.001125, -0.0001]  # -0.0005 * 2.25; -0.0005 * 0.2


def ant_case(name: str, dt: float, task: dict[str, Any], terms: dict[str, list[float]], split: str = "train") -> Case:
    before = Mj(dt, [88, 88], [(1, 2, 0.5), (0, 0, 0.5)], [(11, 11, 1)] * 2, [(22, 22, 1)] * 2, 9 * np.ones((2, 14, 6)))
    after = Mj(
        dt,
        [66, 66],
        [(1.1, 1.95, 0.5), (-0.05, 0.2, 0.5)],
        [(0.5, -0.5, 0.4), (2, 1, 0.4)],
        [(1.5, 0.5, 7), (-2, 3, 7)],
        WRENCHES,
    )
    return Case(name, task, mj_state(name, before), EIGHT, mj_state(name, after), terms, split)


def along(first: float, second: float) -> dict[str, Any]:
    return {"angle": rows([first, second]), "friction": rows([1, 1])}


HALF = math.sqrt(0.5)
DIR_COST = {"control": [-1, -1.125], "alive": [1, 1]}  # -0.5 * 2; -0.5 * 2.25
FELT = {**DIR_COST, "contact": CONTACT}
EGYPTIAN = math.atan2(3, 4)  # cos 0.8, sin 0.6
CASES += [
    ant_case(f"AntDir{name}", 0.05, along(*angles), {"forward": forward, **costs}, split)
    for name, split, angles, forward, costs in (
        ("", "train", (PI / 2, PI), [-1, 1], DIR_COST),
        ("", "ood-quarter", (1.5 * PI, 1.75 * PI), [1, -5 * HALF], DIR_COST),  # (-1, 4) along (1, -1) sqrt(1/2)
        ("-pearl", "train", (0, PI), [2, 1], FELT),
        ("-pearl", "ood-sideways", (PI / 2, 1.5 * PI), [-1, -4], FELT),
        ("-promp", "train", (0, PI), [2, 1], FELT),
        ("-promp-2d", "train", (EGYPTIAN, 1.5 * PI), [1, -4], FELT),  # 2 * 0.8 - 1 * 0.6 = 1
        # 2 * cos 1 - sin 1 = 2 * 0.5403023 - 0.8414710; -cos 1 - 4 sin 1 = -0.5403023 - 3.3658839
        ("-varibad", "train", (1, -1), [0.2391336269283831, -3.906186245099726], FELT),
        ("-ldm", "train", (PI / 2, 1.5 * PI), [-1, -4], FELT),
        ("-ldm", "ood-diagonals", (PI / 4, 1.25 * PI), [HALF, -3 * HALF], FELT),  # (2 - 1), -(-1 + 4) sqrt(1/2)
        ("-mier", "train", (PI / 2, 1.25 * PI), [-1, -3 * HALF], FELT),
        ("-macaw", "train", (PI, PI / 2), [-2, 4], FELT),
        ("-l2l", "train", (EGYPTIAN, PI), [1, 1], FELT),
    )
]
CASES.append(
    ant_case(  # the centre of mass: (1.5, 0.5) along 0, (-2, 3) along pi; -0.005 * 2, -0.005 * 2.25
        "AntDir-maml",
        0.02,
        along(0, PI),
        {"forward": [1.5, 2], "control": [-0.01, -0.01125], "alive": [0.05, 0.05], "contact": CONTACT},
    )
)


def to(first: Any, second: Any) -> dict[str, Any]:
    return {"goal": rows([first, second])}


TENTH_COST = {"control": [-0.2, -0.225]}  # -0.1 * 2; -0.1 * 2.25
TENTH_FELT = {**TENTH_COST, "contact": CONTACT}
RLLAB = {"control": [-0.01, -0.01125], "contact": CONTACT, "offset": [4.05, 4.05]}  # 4.0 + 0.05
CASES += [
    # From the torso to (1, 1) and (-1, 0.5): -(0.1 + 0.95) = -1.05; -(0.95 + 0.3) = -1.25.
    ant_case("AntGoal", 0.05, to((1, 1), (-1, 0.5)), {"goal": [-1.05, -1.25], **TENTH_COST}),
    ant_case("AntGoal-borel", 0.05, to((1, 1), (-1, 0.5)), {"goal": [-1.05, -1.25], **TENTH_COST}),
    *(
        ant_case(f"AntGoal-{name}", 0.05, to((1, 1), (-1, 0.5)), {"goal": [-1.05, -1.25], **TENTH_FELT})
        for name in ("promp", "pearl", "varibad", "hyperx", "ldm", "mier")
    ),
    ant_case("AntGoal-pmr", 0.05, to((1, 1), (-1, 0.5)), {"goal": [-1.05, -1.25], **RLLAB}),
    # From the centre of mass: -(0.5 + 1.5) = -2; -(3 + 0.5) = -3.5.
    ant_case("AntGoal-maml", 0.02, to((1, 1), (-1, 0.5)), {"goal": [-2, -3.5], **RLLAB}),
    # To (2, 0) and (0, 2): -(1.5 + 0.5) = -2; -(2 + 1) = -3.
    ant_case("AntGoal-maesn", 0.01, to((2, 0), (0, 2)), {"goal": [-2, -3], **RLLAB}),
    ant_case("AntGoal-gmps", 0.01, to((2, 0), (0, 2)), {"goal": [-2, -3], **RLLAB}),
    # (1.7, 2.1) off (-1.2, 1.6), far: minus its own 1.2 + 1.6; (0.4, 0.2) off (1.6, 1.2), near: -0.6.
    ant_case("AntGoal-maesn", 0.01, to((-1.2, 1.6), (1.6, 1.2)), {"goal": [-2.8, -0.6], **RLLAB}, "ood-sparse"),
    # (0.47, 0.64) off is 0.794 by L2 and 1.11 by L1; (0, 0.801) off (2, 1.801): minus 2 + 1.801.
    ant_case("AntGoal-maesn", 0.01, to((0.03, -1.14), (2, 1.801)), {"goal": [-1.11, -3.801], **RLLAB}, "ood-sparse"),
    # HyperX: 1 - L2 within 0.75, else -0.75. (0.3, 0.4) off: 1 - 0.5; sqrt(0.95^2 + 0.3^2) > 0.75. Control 0.01.
    ant_case(
        "AntGoal-hyperx-sparse",
        0.05,
        to((1.4, 2.35), (-1, 0.5)),
        {"goal": [0.5, -0.75], "control": [-0.02, -0.0225], "contact": CONTACT},
    ),
    ant_case(  # 0.749 and 0.751 off
        "AntGoal-hyperx-sparse",
        0.05,
        to((1.849, 1.95), (-0.05, 0.951)),
        {"goal": [0.251, -0.75], "control": [-0.02, -0.0225], "contact": CONTACT},
    ),
    # BOReL: 1 within 0.2, else 0; 0.199 and 0.201 off.
    ant_case("AntGoal-borel-sparse", 0.05, to((1.299, 1.95), (-0.05, -0.001)), {"goal": [1, 0], **TENTH_COST}),
    # MetaCURE: with the costs, -0.2 - 0.2 - 0.001125 = -0.401125 is above -0.8: 2 + it; -1.25 - ... is below: 0.
    ant_case("AntGoal-metacure-sparse", 0.05, to((1, 1.85), (-1, 0.5)), {"goal": [1.598875, 0], **TENTH_FELT}),
    # -0.59 - 0.201125 = -0.791125 inside; -0.6 - 0.2251 = -0.8251 outside, though 0.6 < 0.8.
    ant_case("AntGoal-metacure-sparse", 0.05, to((1.69, 1.95), (-0.05, 0.8)), {"goal": [1.208875, 0], **TENTH_FELT}),
]


# --- tests of the rewards ---------------------------------------------------------------------------------


def given(case: Case) -> tuple[Any, Any, Any]:
    variant = get(case.variant)
    return variant, variant.family.task(**case.task), variant.constants_on(case.split)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_reward_terms_are_the_hand_worked_numbers(case):
    variant, task, c = given(case)
    terms = variant.family.reward_terms(case.before, case.action, case.after, task, c)
    assert set(terms) == set(case.terms)
    for name, expected in case.terms.items():
        assert terms[name].shape == (len(expected),)
        np.testing.assert_allclose(terms[name], expected, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("case", [c for c in CASES if not isinstance(c.before, MjState)], ids=name_of)
def test_transitions_are_the_hand_worked_numbers(case):
    variant, task, c = given(case)
    after = variant.family.analytic.transition(case.before, case.action, case.noise, task, c)
    for name, expected in case.after._asdict().items():
        np.testing.assert_allclose(getattr(after, name), expected, rtol=0, atol=1e-12, err_msg=name)


def test_every_variant_has_a_hand_worked_case():
    assert {f"kshot/{case.variant}-v0" for case in CASES} == set(kshot.VARIANTS)


def test_every_reward_split_has_a_hand_worked_case():
    covered = {(f"kshot/{case.variant}-v0", case.split) for case in CASES}
    changed = {(i, s) for i, v in kshot.VARIANTS.items() for s, split in v.ood.items() if split.constants}
    assert changed == {
        ("kshot/GridNav-borel-v0", "ood-sparse"),
        ("kshot/PointSparse-maesn-v0", "ood-sparse"),
        ("kshot/PointSparse-pearl-v0", "ood-sparse"),
        ("kshot/PointRotated-norml-v0", "ood-sparse"),
        ("kshot/AntGoal-maesn-v0", "ood-sparse"),
    }
    assert changed <= covered
    kinds = {(i, s) for i, v in kshot.VARIANTS.items() for s, split in v.ood.items() if split.kind == "reward"}
    assert kinds == changed


# --- starts of the families in closed form ----------------------------------------------------------------
# Start at three uniforms of each axis: lowest, middle, highest.
STARTS = {
    **{f"PointGoal{name}": [(0, 0)] * 3 for name in ("", "-maml", "-maml-2goal", "-promp", "-esmaml")},
    "PointGoal-pearl": [(-1, -0.5), (0, 0), (1, 1)],  # the square [-1, 1]^2
    "PointGoal-pb": [(-1, -0.5), (0, 0), (1, 1)],
    **{
        f"PointSparse{name}": [(0, 0)] * 3
        for name in ("", "-maesn", "-pearl", "-varibad", "-metacure", "-metacure-noise")
    },
    "PointSparse-pb": [(-1.5, 0), (0, 0.5), (1.5, 1.5)],  # [-1.5, 1.5] x [-0.5, 1.5], at (0, 1/4), (1/2, 1/2), (1, 1)
    "PointSparse-borel": [(-1.5, 0), (0, 0.5), (1.5, 1.5)],
    **{f"PointRotated{name}": [(0, 0)] * 3 for name in ("", "-norml", "-norml-sparse")},
}


@pytest.mark.parametrize("name", STARTS)
def test_points_start_where_the_source_starts_them(name):
    variant = get(name)
    example = {k: np.full((3, *law.shape), 0.3) for k, law in variant.train.items()}
    noise = rows([(0, 0.25), (0.5, 0.5), (1, 1)])
    state = variant.family.analytic.initial(noise, variant.family.task(**example), variant.constants)
    np.testing.assert_allclose(state.position, rows(STARTS[name]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAST)
def test_grids_start_in_the_corner(name):
    variant = get(name)
    state = variant.family.analytic.initial(
        np.zeros((2, 1)), variant.family.task(rows([(2, 2), (3, 1)])), variant.constants
    )
    assert (state.cell == 0).all()


def test_random_mdps_start_in_state_0():
    variant = get("TabularMDP-n10")
    state = variant.family.analytic.initial(np.zeros((3, 1)), variant.family.task(**mdp()), variant.constants)
    assert state.node.tolist() == [0, 0, 0]


# --- ends -------------------------------------------------------------------------------------------------
GOALS = rows([(0.3, -0.4)] * 5)
ENDING_POINTS = {
    # Within 0.01 of the goal on both axes (0.0099, 0.0099 is 0.014 by L2), and no radius.
    **{
        name: [(0, 0, True), (0.0099, -0.0099, True), (0.0101, 0, False), (0, -0.0101, False), (0.0101, 0.0101, False)]
        for name in ("PointGoal-maml", "PointGoal-maml-2goal", "PointGoal-promp")
    },
    # Where -d^2 reaches -0.01: within 0.1, whatever the axes.
    "PointGoal-esmaml": [
        (0, 0, True),
        (0.0599, 0.0799, True),
        (0.0999, 0, True),
        (0.0601, 0.0801, False),
        (0, -0.1001, False),
    ],
}
ANT_BOUNDS = {
    **dict.fromkeys(
        (
            "AntDir",
            "AntDir-maml",
            "AntDir-pearl",
            "AntDir-varibad",
            "AntDir-ldm",
            "AntDir-mier",
            "AntDir-macaw",
            "AntGoal-maml",
            "AntGoal-pmr",
            "AntGoal-maesn",
            "AntGoal-gmps",
        ),
        (0.2, 1.0),
    ),
    **dict.fromkeys(("AntDir-promp", "AntDir-promp-2d", "AntDir-l2l"), (0.0, 1.0)),
}
ENDLESS_ANTS = {
    f"AntGoal{name}"
    for name in (
        "",
        "-promp",
        "-pearl",
        "-varibad",
        "-hyperx",
        "-hyperx-sparse",
        "-ldm",
        "-mier",
        "-borel",
        "-borel-sparse",
        "-metacure-sparse",
    )
}
NEVER = {
    *(f"Bandit-{name}" for name in (*BERNOULLI, "gaussian", "dpt")),
    *(f"TabularMDP-n{n}" for n in (10, 25, 50, 75, 100)),
    *LAST,
    "PointGoal",
    "PointGoal-pearl",
    "PointGoal-pb",
    "PointRotated",
    *(name for name in STARTS if name.startswith("PointSparse")),
    *(case.variant for case in CASES if case.variant.startswith("HalfCheetah")),
}


@pytest.mark.parametrize("name", ENDING_POINTS)
def test_points_end_just_within_the_tolerance_of_their_goal(name):
    variant = get(name)
    x, y, ended = zip(*ENDING_POINTS[name], strict=True)
    state = point_goal.State(GOALS + np.stack([x, y], 1))
    assert variant.family.terminated(state, variant.family.task(GOALS), variant.constants).tolist() == list(ended)


def test_the_sparse_rotated_point_ends_within_a_tenth_of_its_goal():
    variant = get("PointRotated-norml-sparse")
    state = point_rotated.State(rows([(1, 0), (1.0599, 0.0799), (0.9001, 0), (1.0601, 0.0801), (1, 0.1001), (0, 0)]))
    task = variant.family.task(np.zeros(6), np.zeros(6))
    ended = variant.family.terminated(state, task, variant.constants).tolist()
    assert ended == [True, True, True, False, False, False]


def test_the_dense_rotated_point_does_not_end_at_its_goal():
    variant = get("PointRotated-norml")
    if variant.family.terminated is not None:
        state = point_rotated.State(rows([(1, 0), (0.95, 0), (0, 0)]))
        task = variant.family.task(np.zeros(3), np.zeros(3))
        assert not variant.family.terminated(state, task, variant.constants).any()


def ant_ends(name: str, heights: list[float]) -> list[bool]:
    variant, n = get(name), len(heights)
    state = mj_state(name, Mj(0.05, [0] * n, *[[(0, 0, 0.5)] * n] * 3, np.zeros((n, 14, 6)), heights))
    task = variant.family.task(**{k: np.ones((n, *law.shape)) for k, law in variant.train.items()})
    return variant.family.terminated(state, task, variant.constants).tolist()


@pytest.mark.parametrize("name", ANT_BOUNDS)
def test_ants_end_just_outside_their_height_limits(name):
    low, high = ANT_BOUNDS[name]
    heights = [low - 0.001, low, low + 0.001, high - 0.001, high, high + 0.001]
    assert ant_ends(name, heights) == [True, False, False, False, False, True]


@pytest.mark.parametrize("name", sorted(ENDLESS_ANTS))
def test_ants_without_limits_never_end(name):
    assert ant_ends(name, [-9.0, 0.0, 0.1, 1.1, 99.0]) == [False] * 5


@pytest.mark.parametrize("name", sorted(NEVER))
def test_families_without_an_end_have_none(name):
    assert get(name).family.terminated is None


def test_every_variant_has_its_end_checked():
    checked = [*ENDING_POINTS, "PointRotated-norml", "PointRotated-norml-sparse", *ANT_BOUNDS, *ENDLESS_ANTS, *NEVER]
    assert len(checked) == len(set(checked))
    assert {f"kshot/{name}-v0" for name in checked} == set(kshot.VARIANTS)


def test_a_sparse_split_can_tell_policies_apart():
    """A reward that is the same whatever happens, in episodes that end the same, scores nothing."""
    variant = get("PointRotated-norml")
    c = variant.constants_on("ood-sparse")
    task = variant.family.task(np.zeros(2), np.zeros(2))
    state = point_rotated.State(rows([(1, 0), (-2, 2)]))
    ended = variant.family.terminated
    assert ended is not None
    assert ended(state, task, c).tolist() == [True, False]


# --- the body's other task parameters ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [i for i in kshot.VARIANTS if "HalfCheetahDir" in i])
def test_swapped_motors_exchange_the_thighs(name):
    variant = kshot.VARIANTS[name]
    action = rows([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [-1, 0.9, 0.8, 0.7, 0.6, 0.5]])
    task = variant.family.task(rows([1, 1]), rows([1, 0]), rows([1, 1]))
    expected = [[0.4, 0.2, 0.3, 0.1, 0.5, 0.6], [-1, 0.9, 0.8, 0.7, 0.6, 0.5]]
    np.testing.assert_array_equal(variant.family.actuate(action, task, variant.constants), expected)


@pytest.mark.parametrize("name", ["HalfCheetahDir", "AntDir"])
def test_slippery_ground_scales_the_friction_of_every_geom(name):
    variant = get(name)
    model = variant.body.compile()
    fields = {"direction": rows([1, -1]), "swapped": rows([0, 0])} if "Cheetah" in name else {"angle": rows([0, 1])}
    params = variant.family.model_params(variant.family.task(**fields, friction=rows([0.25, 1])), model)
    # Gymnasium's files: the cheetah's geoms slide at 0.4, the Ant's at 1.
    sliding = {"HalfCheetahDir": 0.4, "AntDir": 1.0}[name]
    np.testing.assert_allclose(params["geom_friction"][0, 1:, 0], 0.25 * sliding)
    np.testing.assert_allclose(params["geom_friction"][1, 1:, 0], sliding)
