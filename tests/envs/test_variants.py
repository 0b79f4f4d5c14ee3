"""Every variant's horizon, spaces, body and task laws against a table written by hand from the papers' code."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium import spaces

import kshot
from kshot import tasks
from kshot.physics.bodies import MjState

PI = math.pi
DRAWS = 2000  # tasks a split
SIGMAS = 5.0  # of the standard error, what a moment may be off: the seeds are fixed, so it fails always or never

# --- laws, by hand ----------------------------------------------------------------------------------------


class U(NamedTuple):
    """Uniform on [low, high], each element alone; `shape` is that of one task's field."""

    low: float
    high: float
    shape: tuple[int, ...] = ()

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == self.shape
        assert x.min() >= self.low
        assert x.max() <= self.high
        width = self.high - self.low
        # Mean (a + b) / 2, variance w^2 / 12, fourth central moment w^4 / 80.
        moments(x.reshape(len(x), -1), (self.low + self.high) / 2, width**2 / 12, width**4 / 80)


class Finite(NamedTuple):
    """Uniform over exactly these values."""

    values: tuple[Any, ...]

    def check(self, x: np.ndarray) -> None:
        options = np.array(self.values, np.float64)
        assert x.shape[1:] == options.shape[1:]
        gap = np.abs(x.reshape(len(x), 1, -1) - options.reshape(1, len(options), -1)).max(-1)
        assert gap.min(1).max() < 1e-12  # nothing else
        counts = np.bincount(gap.argmin(1), minlength=len(options))
        assert counts.min() > 0
        expected = len(x) / len(options)
        assert np.abs(counts - expected).max() <= SIGMAS * math.sqrt(expected)


class Arc(NamedTuple):
    """Uniform by area (by length where the radii agree) between two radii and two angles, in half turns."""

    inner: float
    outer: float
    start: float = 0.0
    stop: float = 2.0

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (2,)
        square = x[:, 0] ** 2 + x[:, 1] ** 2
        if self.inner == self.outer:
            np.testing.assert_allclose(square, self.outer**2, rtol=1e-12)
        else:
            U(self.inner**2 - 1e-12, self.outer**2 + 1e-12).check(square)  # the area within r grows as r^2
        angle = np.arctan2(x[:, 1], x[:, 0]) / PI
        U(self.start - 1e-12, self.stop + 1e-12).check(np.where(angle < self.start - 1e-9, angle + 2, angle))


class SquareRing(NamedTuple):
    """Uniform by area on [-outer, outer]^2 without [-inner, inner]^2."""

    inner: float
    outer: float

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (2,)
        reach, side = np.abs(x).max(1), np.abs(x).argmax(1)
        U(self.inner**2, self.outer**2).check(reach**2)  # the area within a square grows as its side^2
        sign = x[np.arange(len(x)), side]
        Finite((0, 1, 2, 3)).check(2.0 * side + (sign > 0))  # four equal sides
        U(-1, 1).check(x[np.arange(len(x)), 1 - side] / reach)  # evenly along each


class Mix(NamedTuple):
    """One of two laws; `first_is` tells which of the draws the first gave."""

    weight: float
    first: Any
    second: Any
    below: float  # the first gives what is shorter than this

    def check(self, x: np.ndarray) -> None:
        first = np.abs(x) < self.below if x.ndim == 1 else np.hypot(x[:, 0], x[:, 1]) < self.below
        assert abs(first.mean() - self.weight) <= SIGMAS * math.sqrt(self.weight * (1 - self.weight) / len(x))
        self.first.check(x[first])
        self.second.check(x[~first])


class ClippedNormal(NamedTuple):
    """N(1/2, 1/2^2) clipped to [0, 1], each of k elements alone."""

    k: int

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (self.k,)
        assert x.min() == 0
        assert x.max() == 1
        # One deviation to either side: P(z > 1) = 0.1586553 at each end.
        # Variance 2 * 0.1586553 / 4 + (0.6826895 - 2 * 0.2419707) / 4 = 0.0793276 + 0.0496870.
        # Fourth moment 2 * 0.1586553 / 16 + (3 * 0.6826895 - 8 * 0.2419707) / 16 = 0.0198319 + 0.0070189.
        moments(x, 0.5, 0.1290146, 0.0268508)
        for end in (0, 1):
            assert abs((x == end).mean() - 0.1586553) <= SIGMAS * math.sqrt(0.1335 / x.size)


class OneGood(NamedTuple):
    """One of k elements is U[0.6, 0.8], the others are U[0, 0.4]."""

    k: int

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (self.k,)
        good = x >= 0.6
        assert (good.sum(1) == 1).all()
        Finite(tuple(range(self.k))).check(good.argmax(1).astype(float))
        U(0.6, 0.8).check(x[good])
        U(0.0, 0.4, (self.k - 1,)).check(x[~good].reshape(len(x), -1))


class Dirichlet(NamedTuple):
    """10 x 5 rows of a symmetric Dirichlet over 10 states."""

    concentration: float

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (10, 5, 10)
        assert x.min() >= 0
        np.testing.assert_allclose(x.sum(-1), 1, rtol=0, atol=1e-12)
        # Mean 1/10, variance (1/10)(9/10) / (10 a + 1): 0.09 / 11 for a = 1, 0.09 / 3.5 for a = 1/4.
        variance = {1: 0.0081818, 0.25: 0.0257143}[self.concentration]
        # E p^2, E p^3, E p^4 = a (a+1) (a+2) (a+3) / (A (A+1) (A+2) (A+3)), A = 10 a, term by term: for a = 1/4
        # 0.25 * 1.25 / (2.5 * 3.5), then * 2.25 / 4.5, then * 3.25 / 5.5. About the mean: p4 - 0.4 p3 + 0.06 p2 - 3e-4.
        p2, p3, p4 = {1: (2 / 110, 6 / 1320, 24 / 17160), 0.25: (0.0357143, 0.0178571, 0.0105519)}[self.concentration]
        moments(x.reshape(len(x), -1), 0.1, variance, p4 - 0.4 * p3 + 0.06 * p2 - 3e-4)


class NormalTable(NamedTuple):
    """N(mean, deviation^2) in each of 10 x 5 cells."""

    mean: float
    deviation: float

    def check(self, x: np.ndarray) -> None:
        assert x.shape[1:] == (10, 5)
        moments(x.reshape(len(x), -1), self.mean, self.deviation**2, 3 * self.deviation**4)
        # Of 10,000 normal numbers 15.9 % lie above mean + deviation.
        assert abs((x > self.mean + self.deviation).mean() - 0.1587) <= SIGMAS * math.sqrt(0.1335 / x.size)


def moments(x: np.ndarray, mean: float, variance: float, fourth: float) -> None:
    """Check mean and variance of all elements, and that the elements of a task are not one and the same."""
    n = x.size
    assert abs(x.mean() - mean) <= SIGMAS * math.sqrt(variance / n)
    assert abs(((x - mean) ** 2).mean() - variance) <= SIGMAS * math.sqrt((fourth - variance**2) / n)
    if x.ndim == 2 and 1 < x.shape[1] <= 50:
        correlation = ((x[:, 0] - mean) * (x[:, -1] - mean)).mean() / variance
        assert abs(correlation) <= (SIGMAS + 1) / math.sqrt(len(x))


Laws = dict[str, dict[str, Any]]  # split: {field: law}


def goal(train: Any, **ood: Any) -> Laws:
    """Return laws of a goal."""
    return {name.replace("_", "-"): {"goal": law} for name, law in {"train": train, **ood}.items()}


def square(half: float) -> U:
    return U(-half, half, (2,))


def grid(*cells: tuple[int, int]) -> Finite:
    return Finite(cells)


def ring(k: int) -> list[tuple[int, int]]:
    """Return the cells whose larger coordinate is k."""
    return [(k, i) for i in range(k + 1)] + [(i, k) for i in range(k)]


# --- the table --------------------------------------------------------------------------------------------


class Reset(NamedTuple):
    """How far a start strays from the start pose: the law and its scale, of qpos and of qvel."""

    qpos: tuple[str, float]
    qvel: tuple[str, float]


GYM_NOISE = Reset(("uniform", 0.1), ("normal", 0.1))
RLLAB_NOISE = Reset(("normal", 0.01), ("normal", 0.1))
NO_NOISE = Reset(("none", 0.0), ("none", 0.0))


class Robot(NamedTuple):
    """A body."""

    dt: float
    timestep: float
    frame_skip: int
    gear: tuple[float, ...]
    start: tuple[float, ...]
    noise: Reset
    mass: float | None = None


CHEETAH_GEAR, CHEETAH_START = (120, 90, 60, 120, 60, 30), (0,) * 9
CHEETAH = Robot(0.05, 0.01, 5, CHEETAH_GEAR, CHEETAH_START, GYM_NOISE, 14)
RLLAB_CHEETAH = Robot(0.01, 0.01, 1, CHEETAH_GEAR, CHEETAH_START, RLLAB_NOISE, 14)
ANT_START = (0, 0, 0.75, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
RLLAB_ANT_START = (0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1)  # ankles at 1 rad
ANT = Robot(0.05, 0.01, 5, (150,) * 8, ANT_START, GYM_NOISE)
RLLAB_ANT = Robot(0.02, 0.02, 1, (150,) * 8, RLLAB_ANT_START, RLLAB_NOISE)
LOW_GEAR_ANT = Robot(0.01, 0.01, 1, (30,) * 8, RLLAB_ANT_START, RLLAB_NOISE)
STILL_ANT = ANT._replace(noise=NO_NOISE)


class Row(NamedTuple):
    """What the sources say of a variant."""

    horizon: int
    terminates: bool  # at the horizon
    observation: int  # numbers
    action: Any  # n of a Discrete, or (bound, size) of a Box
    laws: Laws
    trial: int | None = None  # episodes, None where the source gives none
    robot: Robot | None = None


def bandit(arms: int, pulls: int, train: Any = None) -> Row:
    first = train or U(0, 1, (arms,))
    splits = {"train": first, "ood-normal": ClippedNormal(arms), "ood-one-good": OneGood(arms)}
    return Row(pulls, True, 1, arms, {name: {"means": law} for name, law in splits.items()})


def mdp(episodes: int) -> Row:
    plain = {"transitions": Dirichlet(1), "rewards": NormalTable(1, 1)}
    return Row(
        10,
        True,
        10,
        5,
        {
            "train": plain,
            "ood-deterministic": {**plain, "transitions": Dirichlet(0.25)},
            "ood-rich": {**plain, "rewards": NormalTable(0, 2)},
        },
        episodes,
    )


NEAR = grid((0, 1), (1, 0), (1, 1))
FAR_21 = grid(*[(x, y) for x in range(5) for y in range(5) if (x, y) not in ((0, 0), (0, 1), (1, 0), (1, 1))])
assert len(FAR_21.values) == 21
# DPT lists the cells with x outermost, shuffles the list by RandomState(0) and holds the last 20 out.
DARK = [(x, y) for x in range(10) for y in range(10)]
_order = np.arange(100)
np.random.RandomState(0).shuffle(_order)
DARK_TRAIN, DARK_HELD_OUT = grid(*[DARK[i] for i in _order[:80]]), grid(*[DARK[i] for i in _order[80:]])


def point(horizon: int, bound: float, laws: Laws, trial: int | None = None, observation: int = 2) -> Row:
    return Row(horizon, False, observation, (bound, 2), laws, trial)


HALF_CIRCLE = goal(Arc(1, 1, 0, 1), ood_other_half=Arc(1, 1, 1, 2))
WITH_SPARSE = {**HALF_CIRCLE, "ood-sparse": HALF_CIRCLE["train"]}
WIDE = goal(Arc(2, 2, 0, 1), ood_sparse=Arc(2, 2, 0, 1), ood_other_half=Arc(2, 2, 1, 2))


def rotated(mirrored: int, start: float, stop: float) -> dict[str, Any]:
    return {"angle": U(start * PI, stop * PI), "mirrored": Finite((mirrored,))}


def run_at(
    horizon: int, observation: int, train: Any, ood: dict[str, Any], trial: int | None = None, robot: Robot = CHEETAH
) -> Row:
    laws = {"train": {"velocity": train}, **{name: {"velocity": law} for name, law in ood.items()}}
    return Row(horizon, False, observation, (1.0, 6), laws, trial, robot)


TO_3 = U(0, 3), {"ood-faster": U(3, 4), "ood-backward": U(-2, 0)}
TO_2 = U(0, 2), {"ood-faster": U(2, 3), "ood-backward": U(-2, 0)}


def run_to(horizon: int, observation: int, trial: int | None = None, robot: Robot = CHEETAH) -> Row:
    plain = {"direction": Finite((1, -1)), "swapped": Finite((0,)), "friction": Finite((1,))}
    laws = {
        "train": plain,
        "ood-swapped": {**plain, "swapped": Finite((1,))},
        "ood-slippery": {**plain, "friction": U(0.1, 0.5)},
    }
    return Row(horizon, False, observation, (1.0, 6), laws, trial, robot)


def ant_along(
    horizon: int,
    observation: int,
    train: Any,
    ood: str,
    angle: Any,
    friction: Any = None,
    trial: int | None = None,
    robot: Robot = ANT,
) -> Row:
    laws = {
        "train": {"angle": train, "friction": Finite((1,))},
        ood: {"angle": angle, "friction": friction or Finite((1,))},
    }
    return Row(horizon, False, observation, (1.0, 8), laws, trial, robot)


AHEAD_OR_BACK, SIDEWAYS = Finite((0, PI)), Finite((PI / 2, 3 * PI / 2))
ANY_ANGLE, SLIPPERY = U(0, 2 * PI), U(0.1, 0.5)


def ant_to(horizon: int, observation: int, laws: Laws, trial: int | None = None, robot: Robot = ANT) -> Row:
    return Row(horizon, False, observation, (1.0, 8), laws, trial, robot)


DISC = goal(Arc(0, 3), ood_far=Arc(3, 4))
ANT_SQUARE = goal(square(3), ood_far=SquareRing(3, 4))
GMPS_GOALS = Finite(tuple((2 * math.cos(i * PI / 78), 2 * math.sin(i * PI / 78)) for i in range(40)))  # to 90 degrees

TABLE = {
    "Bandit-k5n10": bandit(5, 10),
    "Bandit-k10n10": bandit(10, 10),
    "Bandit-k50n10": bandit(50, 10),
    "Bandit-k5n100": bandit(5, 100),
    "Bandit-k10n100": bandit(10, 100),
    "Bandit-k50n100": bandit(50, 100),
    "Bandit-k5n500": bandit(5, 500),
    "Bandit-k10n500": bandit(10, 500),
    "Bandit-k50n500": bandit(50, 500),
    "Bandit-gaussian": bandit(5, 100),
    "Bandit-dpt": bandit(5, 500),
    "Bandit-rl3": bandit(5, 512),
    "Bandit-wang-easy": bandit(2, 100, Finite(((0.9, 0.1), (0.1, 0.9)))),
    "Bandit-wang-medium": bandit(2, 100, Finite(((0.75, 0.25), (0.25, 0.75)))),
    "Bandit-wang-hard": bandit(2, 100, Finite(((0.6, 0.4), (0.4, 0.6)))),
    "Bandit-wang-independent": bandit(2, 100),
    "TabularMDP-n10": mdp(10),
    "TabularMDP-n25": mdp(25),
    "TabularMDP-n50": mdp(50),
    "TabularMDP-n75": mdp(75),
    "TabularMDP-n100": mdp(100),
    "GridNav": Row(15, True, 2, 5, goal(FAR_21, ood_near=NEAR), 4),
    "GridNav-ldm": Row(30, True, 2, 5, goal(grid(*ring(2), *ring(6)), ood_rings=grid(*ring(3), *ring(4), *ring(5))), 4),
    "GridNav-borel": Row(15, True, 2, 5, goal(FAR_21, ood_near=NEAR, ood_sparse=FAR_21)),
    "GridNav-dpt": Row(100, True, 2, 5, goal(DARK_TRAIN, ood_held_out=DARK_HELD_OUT)),
    "PointGoal": point(20, 1.0, goal(square(1), ood_far=SquareRing(1, 1.5))),
    "PointGoal-maml": point(100, 0.1, goal(square(0.5), ood_far=SquareRing(0.5, 1))),
    "PointGoal-maml-2goal": point(
        100, 0.1, goal(Finite(((-0.5, 0), (0.5, 0))), ood_sideways=Finite(((0, -0.5), (0, 0.5))))
    ),
    "PointGoal-promp": point(100, 0.1, goal(square(2), ood_far=SquareRing(2, 3))),
    "PointGoal-pearl": point(20, 0.1, goal(square(1), ood_far=SquareRing(1, 1.5))),
    "PointGoal-pb": point(60, 0.1, goal(square(1), ood_far=SquareRing(1, 1.5)), 2),
    "PointGoal-esmaml": point(100, 0.1, goal(square(1), ood_corners=SquareRing(1, 1.25))),
    "PointSparse": point(20, 1.0, HALF_CIRCLE),
    "PointSparse-maesn": point(200, 1.0, WIDE),
    "PointSparse-pearl": point(20, 0.1, WITH_SPARSE),
    "PointSparse-varibad": point(100, 1.0, HALF_CIRCLE, 3),
    "PointSparse-pb": point(60, 0.1, HALF_CIRCLE, 2),
    "PointSparse-borel": point(60, 0.1, HALF_CIRCLE),
    "PointSparse-metacure": point(32, 0.1, HALF_CIRCLE),
    "PointSparse-metacure-noise": point(32, 0.1, HALF_CIRCLE, observation=3),
    "PointRotated": point(
        20, 1.0, {"train": rotated(0, -1, 0.5), "ood-sector": rotated(0, 0.5, 1), "ood-mirrored": rotated(1, -1, 0.5)}
    ),
    "PointRotated-norml": point(
        10, 1.0, {"train": rotated(0, -1, 1), "ood-sparse": rotated(0, -1, 1), "ood-mirrored": rotated(1, -1, 1)}
    ),
    "PointRotated-norml-sparse": point(100, 1.0, {"train": rotated(0, -1, 1), "ood-mirrored": rotated(1, -1, 1)}),
    "HalfCheetahVel": run_at(200, 17, *TO_3),
    "HalfCheetahVel-maml": run_at(200, 20, *TO_2, robot=RLLAB_CHEETAH),
    "HalfCheetahVel-promp": run_at(100, 17, *TO_3),
    "HalfCheetahVel-pearl": run_at(200, 20, *TO_3),
    "HalfCheetahVel-varibad": run_at(200, 20, *TO_3, trial=2),
    "HalfCheetahVel-pmr": run_at(100, 20, *TO_2),
    "HalfCheetahVel-cavia": run_at(200, 20, *TO_2),
    "HalfCheetahVel-ldm": run_at(
        200, 20, Mix(0.5, U(0, 0.5), U(3, 3.5), 1), {"ood-between": Finite((0.75, 1.25, 1.75, 2.25, 2.75))}
    ),
    "HalfCheetahVel-mier": run_at(200, 20, U(0, 2.5), {"ood-faster": U(2.5, 3)}),
    "HalfCheetahVel-mier-hard": run_at(200, 20, U(0, 1.5), {"ood-faster": U(2.5, 3)}),
    "HalfCheetahVel-macaw": run_at(  # 0.075, 0.15, ... 1.95; 2.025, ... 3
        200,
        20,
        Finite(tuple(0.075 * i for i in range(1, 27))),
        {"ood-faster": Finite(tuple(0.075 * i for i in range(27, 41)))},
    ),
    "HalfCheetahVel-metacure": run_at(64, 20, *TO_3),
    "HalfCheetahVel-amago": run_at(1000, 17, *TO_3, trial=1),
    "HalfCheetahDir": run_to(200, 17),
    "HalfCheetahDir-maml": run_to(200, 20, robot=RLLAB_CHEETAH),
    "HalfCheetahDir-promp": run_to(100, 17),
    "HalfCheetahDir-pearl": run_to(200, 20),
    "HalfCheetahDir-varibad": run_to(200, 20, 2),
    "HalfCheetahDir-pmr": run_to(100, 20),
    "HalfCheetahDir-hyperx-sparse": run_to(200, 21, 1),
    "AntDir": ant_along(200, 27, U(0, 1.5 * PI), "ood-quarter", U(1.5 * PI, 2 * PI)),
    "AntDir-maml": ant_along(200, 125, AHEAD_OR_BACK, "ood-sideways", SIDEWAYS, robot=RLLAB_ANT),
    "AntDir-promp": ant_along(200, 111, AHEAD_OR_BACK, "ood-sideways", SIDEWAYS),
    "AntDir-promp-2d": ant_along(200, 111, ANY_ANGLE, "ood-slippery", ANY_ANGLE, SLIPPERY),
    "AntDir-pearl": ant_along(200, 27, AHEAD_OR_BACK, "ood-sideways", SIDEWAYS),
    "AntDir-varibad": ant_along(200, 27, Finite((1, -1)), "ood-sideways", SIDEWAYS, trial=2),
    "AntDir-ldm": ant_along(
        200,
        27,
        Finite((0, PI / 2, PI, 3 * PI / 2)),
        "ood-diagonals",
        Finite((PI / 4, 3 * PI / 4, 5 * PI / 4, 7 * PI / 4)),
    ),
    "AntDir-mier": ant_along(200, 27, U(0, 1.5 * PI), "ood-quarter", U(1.5 * PI, 2 * PI)),
    "AntDir-macaw": ant_along(200, 27, ANY_ANGLE, "ood-slippery", ANY_ANGLE, SLIPPERY),
    "AntDir-l2l": ant_along(100, 111, ANY_ANGLE, "ood-slippery", ANY_ANGLE, SLIPPERY),
    "AntGoal": ant_to(200, 29, DISC),
    "AntGoal-maml": ant_to(200, 125, ANT_SQUARE, robot=RLLAB_ANT),
    "AntGoal-pmr": ant_to(100, 125, ANT_SQUARE),
    "AntGoal-promp": ant_to(200, 113, DISC),
    "AntGoal-pearl": ant_to(200, 113, DISC),
    "AntGoal-varibad": ant_to(200, 113, DISC, 2),
    "AntGoal-hyperx": ant_to(200, 116, DISC),
    "AntGoal-hyperx-sparse": ant_to(200, 116, DISC, 6),
    "AntGoal-maesn": ant_to(200, 125, WIDE, robot=LOW_GEAR_ANT),
    "AntGoal-gmps": ant_to(200, 122, goal(GMPS_GOALS, ood_other_side=Arc(2, 2, 1, 1.5)), robot=LOW_GEAR_ANT),
    "AntGoal-ldm": ant_to(
        200,
        113,
        goal(Mix(4 / 15, Arc(0, 1), Arc(2.5, 3), 2), ood_ring=Finite(((1.75, 0), (0, 1.75), (-1.75, 0), (0, -1.75)))),
    ),
    "AntGoal-mier": ant_to(200, 113, goal(Arc(0, 3, 0, 1), ood_other_half=Arc(0, 3, 1, 2))),
    "AntGoal-borel": ant_to(200, 29, HALF_CIRCLE, robot=STILL_ANT),
    "AntGoal-borel-sparse": ant_to(200, 29, HALF_CIRCLE, robot=STILL_ANT),
    "AntGoal-metacure-sparse": ant_to(32, 113, HALF_CIRCLE),
}
ROBOTS = {name: row for name, row in TABLE.items() if row.robot is not None}


def get(name: str) -> Any:
    return kshot.VARIANTS[f"kshot/{name}-v0"]


def test_the_table_holds_every_variant():
    assert {f"kshot/{name}-v0" for name in TABLE} == set(kshot.VARIANTS)


# --- figures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_horizon_trial_and_spaces_are_those_of_the_source(name):
    variant, row = get(name), TABLE[name]
    assert (variant.horizon, variant.horizon_terminates) == (row.horizon, row.terminates)
    assert row.trial is None or variant.trial == row.trial
    assert variant.observation_space.shape == (row.observation,)
    if isinstance(row.action, int):
        assert variant.action_space == spaces.Discrete(row.action)
    else:
        bound, size = row.action
        assert variant.action_space == spaces.Box(-bound, bound, (size,), np.float32)
    assert list(variant.ood) == [name for name in variant.splits if name in row.laws and name != "train"]
    assert set(row.laws) == {"train", *variant.ood}


@pytest.mark.parametrize("name", TABLE)
def test_body_is_that_of_the_source(name):
    variant, robot = get(name), TABLE[name].robot
    if robot is None:
        assert variant.body is None
        assert variant.dt == 0
        return
    model = variant.body.compile()
    assert variant.dt == pytest.approx(robot.dt, abs=1e-12)
    assert model.opt.timestep == pytest.approx(robot.timestep, abs=1e-12)
    assert variant.frame_skip == robot.frame_skip
    assert tuple(model.actuator_gear[:, 0]) == robot.gear
    assert tuple(model.qpos0) == robot.start
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1, 1]] * model.nu)
    np.testing.assert_allclose(model.opt.gravity, [0, 0, -9.81])
    if robot.mass is not None:
        assert model.body_mass.sum() == pytest.approx(robot.mass, abs=1e-9)


# --- laws -------------------------------------------------------------------------------------------------


def splits() -> list[tuple[str, str]]:
    """Return every split of every variant; `val` and `test` follow the law of `train`."""
    return [(name, split) for name, row in TABLE.items() for split in ("train", "val", "test", *list(row.laws)[1:])]


@pytest.mark.parametrize(("name", "split"), splits())
def test_tasks_follow_the_law_of_the_source(name, split):
    # A random MDP is 550 numbers, so fewer of them say as much.
    drawn = tasks.sample(get(name), split, 100 if name.startswith("TabularMDP") else DRAWS, seed=7)
    laws = TABLE[name].laws["train" if split in ("val", "test") else split]
    assert set(drawn._fields) == set(laws)
    for field, law in laws.items():
        law.check(getattr(drawn, field))


def test_the_checks_of_laws_can_fail():
    x = np.random.default_rng(0).random(DRAWS)
    y = np.random.default_rng(1).random((DRAWS, 2))
    circle = np.stack([np.cos(x * PI), np.sin(x * PI)], 1)
    wrong = [
        (U(0, 1.1), x),
        (U(0, 0.99), x),
        (U(0, 1), np.sqrt(x)),
        (U(0, 1, (2,)), np.stack([x, x], 1)),
        (Finite((0, 1)), (x > 0.4).astype(float)),
        (Finite((0, 1, 2)), (x > 0.5).astype(float)),
        (Finite((0.0,)), (x > 0.5).astype(float)),
        (Arc(1, 1, 0, 2), circle),
        (Arc(1, 1, 0, 0.9), circle),
        (Arc(0, 1, 0, 1), circle * y[:, :1]),  # uniform in the radius, not in the area
        (SquareRing(0, 1), y),  # one quadrant of four
        (Mix(0.5, U(0, 0.3), U(0.3, 1), 0.3), x),
    ]
    for law, values in wrong:
        with pytest.raises(AssertionError):
            law.check(values)
    U(0, 1).check(x)
    Arc(1, 1, 0, 1).check(circle)
    Arc(0, 1, 0, 1).check(circle * np.sqrt(y[:, :1]))


# --- starts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROBOTS)
def test_bodies_start_with_the_noise_of_the_source(name):
    robot = ROBOTS[name].robot
    n = 64
    envs = gym.make_vec(f"kshot/{name}-v0", n, autoreset_mode="DISABLED", threads=1)
    envs.reset(seed=3)
    state = envs.unwrapped.engine.state
    for offset, (kind, scale) in ((state.qpos - robot.start, robot.noise.qpos), (state.qvel, robot.noise.qvel)):
        if kind == "none":
            assert not offset.any()
        elif kind == "uniform":
            U(-scale, scale, (offset.shape[1],)).check(offset)
        else:
            moments(offset, 0.0, scale**2, 3 * scale**4)
            assert (np.abs(offset) > 2.5 * scale).any()  # 1.2 % of a normal law, none of a uniform one
    envs.close()


# --- observations -----------------------------------------------------------------------------------------
PARTS = {
    # qpos[1:] 8, qvel 9; the centre of mass (rllab) or the torso 3; HyperX torso 3, qpos 9, qvel 9
    **{name: "qpos[1:] qvel" for name, row in ROBOTS.items() if row.observation == 17},
    **{name: "qpos[1:] qvel torso" for name, row in ROBOTS.items() if row.observation == 20},
    "HalfCheetahVel-maml": "qpos[1:] qvel com",
    "HalfCheetahDir-maml": "qpos[1:] qvel com",
    "HalfCheetahDir-hyperx-sparse": "torso qpos qvel",
    # Ant: qpos[2:] 13 or qpos 15, qvel 14, clipped contact 84, torso 3, rotation matrix 9, centre of mass 3
    **{name: "qpos[2:] qvel" for name, row in ROBOTS.items() if row.observation == 27},
    **{name: "qpos qvel" for name, row in ROBOTS.items() if row.observation == 29},
    **{name: "qpos[2:] qvel contact" for name, row in ROBOTS.items() if row.observation == 111},
    **{name: "qpos qvel contact" for name, row in ROBOTS.items() if row.observation == 113},
    **{name: "torso qpos qvel contact" for name, row in ROBOTS.items() if row.observation == 116},
    "AntDir-maml": "qpos qvel contact rotation com",
    "AntGoal-maml": "qpos qvel contact rotation com",
    "AntGoal-maesn": "qpos qvel contact rotation com",
    "AntGoal-gmps": "qpos qvel contact rotation",
    "AntGoal-pmr": "qpos qvel contact rotation torso",
}


@pytest.mark.parametrize("name", ROBOTS)
def test_observations_hold_what_the_source_lists_in_its_order(name):
    variant = get(name)
    nq, nv = (9, 9) if "Cheetah" in name else (15, 14)
    wrenches = 200 + np.arange(2 * 84.0).reshape(2, 14, 6)
    wrenches[:, :, 0], wrenches[:, :, 1] = 0.25, -300  # the rest is clipped to 1
    values = {
        "qpos": 10 + np.arange(2.0 * nq).reshape(2, nq),
        "qvel": 60 + np.arange(2.0 * nv).reshape(2, nv),
        "torso": 110 + np.arange(6.0).reshape(2, 3),
        "com": 120 + np.arange(6.0).reshape(2, 3),
        "rotation": 130 + np.arange(18.0).reshape(2, 9),
        "com_velocity": 150 + np.arange(6.0).reshape(2, 3),
        "contact": wrenches,
    }
    shown = {
        **values,
        "qpos[1:]": values["qpos"][:, 1:],
        "qpos[2:]": values["qpos"][:, 2:],
        "contact": np.tile([0.25, -1, 1, 1, 1, 1], (2, 14)),
    }
    state = MjState(values["qpos"], values["qvel"], variant.dt, **{k: values[k] for k in variant.body.readouts})
    expected = np.concatenate([shown[part] for part in PARTS[name].split()], 1)
    np.testing.assert_array_equal(variant.observe(state), expected)


# --- episodes ---------------------------------------------------------------------------------------------
# Goals that tiny actions do not reach, where reaching the goal ends the episode.
OUT_OF_REACH = {
    "PointGoal-maml": {"goal": (0.5, 0.5)},
    "PointGoal-maml-2goal": {"goal": (0.5, 0)},
    "PointGoal-promp": {"goal": (2, 2)},
    "PointGoal-esmaml": {"goal": (1, 1)},
    "PointRotated-norml-sparse": {"angle": 0.5, "mirrored": 0},
}


@pytest.mark.parametrize("name", TABLE)
def test_an_episode_ends_at_the_horizon_and_pays_the_sum_of_its_terms(name):
    row = TABLE[name]
    pinned = {"task": OUT_OF_REACH[name]} if name in OUT_OF_REACH else {}
    envs = gym.make_vec(f"kshot/{name}-v0", num_envs=2, autoreset_mode="DISABLED", **pinned)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    if isinstance(row.action, int):
        actions = rng.integers(row.action, size=(row.horizon, 2))
    else:
        actions = rng.uniform(-0.001, 0.001, (row.horizon, 2, row.action[1])).astype(np.float32)
    for step, action in enumerate(actions, 1):
        _, reward, terminated, truncated, infos = envs.step(action)
        terms = [infos[key] for key in infos if key.startswith("reward_")]
        assert terms
        np.testing.assert_allclose(reward, np.sum(terms, 0), rtol=0, atol=1e-12)
        last = step == row.horizon
        assert terminated.tolist() == [last and row.terminates] * 2, step
        assert truncated.tolist() == [last and not row.terminates] * 2, step
    envs.close()


# How far an action of 5 in both axes, clipped to the bound, moves the point along each axis.
STRIDES = {
    **dict.fromkeys((name for name in TABLE if name.startswith(("PointGoal", "PointSparse"))), 0.1),
    "PointRotated": 0.2,
    "PointRotated-norml": 1.0,
    "PointRotated-norml-sparse": 1.0,
}


@pytest.mark.parametrize("name", STRIDES)
def test_huge_actions_move_a_point_as_far_as_the_bound(name):
    task = {"angle": 0, "mirrored": 0} if "Rotated" in name else {"goal": (0.9, 0.1)}
    envs = gym.make_vec(f"kshot/{name}-v0", num_envs=2, autoreset_mode="DISABLED", task=task)
    before, _ = envs.reset(seed=0)
    after, *_ = envs.step(np.array([[5, -5], [-5, 5]], np.float32))
    stride = STRIDES[name]
    moved = [[stride, -stride], [-stride, stride]]
    np.testing.assert_allclose((after - before)[:, :2], moved, rtol=0, atol=1e-7)  # 0.1 as a float32
    envs.close()


@pytest.mark.parametrize("name", [name for name, row in ROBOTS.items() if row.robot.noise is RLLAB_NOISE])
def test_rllab_bodies_read_the_centre_of_mass_of_the_new_state(name):
    envs = gym.make_vec(f"kshot/{name}-v0", num_envs=2, autoreset_mode="DISABLED")
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(10):
        envs.step(rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32))
    state, model = envs.unwrapped.engine.state, get(name).body.compile()
    data = mujoco.MjData(model)

    def centre(qpos: np.ndarray) -> np.ndarray:
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        return model.body_mass @ data.xipos / model.body_mass.sum()

    def shifted(qpos: np.ndarray, qvel: np.ndarray, seconds: float) -> np.ndarray:
        moved = qpos.copy()
        mujoco.mj_integratePos(model, moved, qvel, seconds)
        return moved

    for qpos, qvel, com, velocity in zip(state.qpos, state.qvel, state.com, state.com_velocity, strict=True):
        np.testing.assert_allclose(com, centre(qpos), rtol=0, atol=1e-9)
        step = 1e-5
        difference = centre(shifted(qpos, qvel, step)) - centre(shifted(qpos, qvel, -step))
        np.testing.assert_allclose(velocity, difference / (2 * step), rtol=0, atol=1e-6)
    envs.close()


@pytest.mark.parametrize("name", [name for name in ROBOTS if "contact" in get(name).body.readouts])
def test_contact_costs_are_felt_by_an_ant_that_stands(name):
    envs = gym.make_vec(f"kshot/{name}-v0", num_envs=2, autoreset_mode="DISABLED")
    envs.reset(seed=0)
    felt = [envs.step(np.zeros((2, 8), np.float32))[4]["reward_contact"] for _ in range(30)]
    assert (np.min(felt, 0) < -0.0005).all()  # at least one clipped number
    assert np.max(felt) <= 0
    assert np.min(felt) >= -0.0005 * 78  # 13 bodies of 6 numbers
    envs.close()


# --- Gymnasium's own bodies as the reference --------------------------------------------------------------
STEPS = 25


def both(name: str, reference: str, tmp_path: Any, monkeypatch: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Return a kshot env and Gymnasium's own env in the same state."""
    monkeypatch.chdir(tmp_path)  # MuJoCo logs a deprecated attribute of Gymnasium's file into the working folder
    ours = gym.make_vec(f"kshot/{name}-v0", num_envs=2, autoreset_mode="DISABLED")
    ours.reset(seed=5)
    theirs = gym.make(reference, **kwargs)
    theirs.reset(seed=0)
    state = ours.unwrapped.engine.state
    theirs.unwrapped.set_state(state.qpos[1].copy(), state.qvel[1].copy())
    return ours, theirs


@pytest.mark.parametrize("name", [name for name, row in ROBOTS.items() if "Cheetah" in name and row.robot is CHEETAH])
def test_half_cheetahs_move_and_measure_as_gymnasiums(name, tmp_path, monkeypatch):
    ours, theirs = both(name, "HalfCheetah-v5", tmp_path, monkeypatch)
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, 6).astype(np.float32)
        _, _, _, _, infos = ours.step(np.stack([0 * action, action]))
        _, _, _, _, info = theirs.step(action)
        state, data = ours.unwrapped.engine.state, theirs.unwrapped.data
        assert infos["x_velocity"][1] == pytest.approx(info["x_velocity"], abs=1e-7)
        np.testing.assert_allclose(state.qpos[1], data.qpos, rtol=0, atol=1e-8)
        np.testing.assert_allclose(state.qvel[1], data.qvel, rtol=0, atol=1e-6)
        if state.torso is not None:
            np.testing.assert_allclose(state.torso[1], data.body("torso").xpos, rtol=0, atol=1e-8)
    assert abs(data.qpos[0]) > 0.01
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "name", [name for name, row in ROBOTS.items() if "Ant" in name and row.robot in (ANT, STILL_ANT)]
)
def test_ants_move_and_measure_as_gymnasiums(name, tmp_path, monkeypatch):
    ours, theirs = both(name, "Ant-v5", tmp_path, monkeypatch, terminate_when_unhealthy=False)
    rng = np.random.default_rng(1)
    before = theirs.unwrapped.data.body("torso").xpos.copy()
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        _, _, _, _, infos = ours.step(np.stack([0 * action, action]))
        _, _, _, _, info = theirs.step(action)
        state, data = ours.unwrapped.engine.state, theirs.unwrapped.data
        np.testing.assert_allclose(state.qpos[1], data.qpos, rtol=0, atol=1e-7)
        # Gymnasium's x_position is qpos; its velocity is that of the torso frame.
        np.testing.assert_allclose(state.torso[1], data.body("torso").xpos, rtol=0, atol=1e-7)
        assert state.qpos[1, 0] == pytest.approx(info["x_position"], abs=1e-7)
        assert state.qpos[1, 1] == pytest.approx(info["y_position"], abs=1e-7)
        if "AntDir" in name:
            assert infos["x_velocity"][1] == pytest.approx(info["x_velocity"], abs=1e-5)
            assert infos["y_velocity"][1] == pytest.approx(info["y_velocity"], abs=1e-5)
        else:
            goal = ours.unwrapped.engine.task.goal[1]
            distance = np.hypot(*(data.body("torso").xpos[:2] - goal))
            assert infos["distance"][1] == pytest.approx(distance, abs=1e-7)
    assert np.abs(data.body("torso").xpos - before).max() > 0.01
    ours.close()
    theirs.close()
