"""Summaries of scores (seeds, tasks), and what is known of them: 95 % intervals by the crossed bootstrap.

Seeds and tasks are both samples, crossed, so both are resampled, independently (pigeonhole bootstrap: Owen 2007,
arXiv 0712.1111); a finite, complete task set stays as it is. Summaries: Agarwal et al. 2021, arXiv 2108.13264, §4.

Percentile intervals of few seeds are too narrow: they are stretched about the value, to Student's t with
Satterthwaite's degrees of freedom, and by n/(n − 1) in every factor's variance. Coverage in %, plain → stretched,
2,000 simulations, 40 tasks (`python tests/envs/test_statistics.py` prints it, the tests assert bands):

    sd of seed, task, noise   mean, 5 seeds   IQM, 5 seeds   mean, 3 seeds   mean, 10 seeds   5 exponential seeds
    1,   0, 1                 84.9 → 94.5     86.6 → 94.8    75.8 → 92.5     90.8 → 94.4      82.4 → 89.6
    1,   1, 1                 87.8 → 94.2     88.5 → 94.2    79.0 → 91.5     92.3 → 94.8      86.6 → 90.2
    0.3, 1, 1                 94.6 → 96.1     95.4 → 96.9    93.2 → 95.9     94.7 → 95.3      93.8 → 95.2
    0,   0, 1                 99.6 → 99.8     99.7 → 99.7    99.1 → 99.6     99.9 → 99.9

5 seeds on a finite task set 84 → 94, comparisons and gaps (stretched) 95 to 98. Too wide where all is noise, too
narrow for few seeds of a skewed law, which no interval repairs: run more seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Weighted: TypeAlias = Callable[..., Floats]  # how often each member of each factor was drawn, (B, n) each -> (B,)
Statistic: TypeAlias = Literal["iqm", "mean", "optimality_gap"]

LEVEL = 0.95
RESAMPLES = 2_000
MAX_CELLS = 2**22  # resampled scores held at a time, to bound memory
MANY = 1_000  # members of a single factor from which the bootstrap of a mean is not drawn: it is normal to three digits


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """One method against another on the same tasks."""

    difference: Interval  # of mean scores
    probability: Interval  # of improvement


def mean(scores: ArrayLike) -> float:
    """Return the mean of scores (seeds, tasks)."""
    return float(_scores("scores", scores).mean())


def iqm(scores: ArrayLike) -> float:
    """Return the mean of scores (seeds, tasks) without the lowest and highest quarter of cells (rounded down)."""
    ordered = np.sort(_scores("scores", scores), axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def optimality_gap(scores: ArrayLike) -> float:
    """Return by how much normalised scores (seeds, tasks) miss 1 on average; those above 1 count as 1."""
    return float(np.maximum(1.0 - _scores("scores", scores), 0.0).mean())


def normalised(scores: ArrayLike, random: ArrayLike, oracle: ArrayLike) -> Floats:
    """Return scores, of any shape, on the scale where the random policy has 0 and the oracle 1.

    `random` and `oracle` are returns on this split, of any shape. Their means are used, never a task's own: where
    a task leaves little between the two, its quotient would swamp all others. ValueError without a gap between them.
    """
    bottom, top = (float(_scores(*pair, any_shape=True).mean()) for pair in (("random", random), ("oracle", oracle)))
    if top <= bottom:
        raise ValueError(f"oracle has mean {top:g}; expected more than random's {bottom:g}; refit the oracle")
    return np.asarray((_scores("scores", scores, any_shape=True) - bottom) / (top - bottom))


def task_differences(x: ArrayLike, y: ArrayLike) -> Floats:
    """Return x − y of every task, (tasks,), of means over seeds; x (seeds, tasks), y (its own seeds, tasks)."""
    return np.asarray(_pairs(x, y).mean((0, 1)))


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Return P(X > Y) + P(X = Y) / 2, averaged over tasks and all pairs of seeds; shapes as `task_differences`."""
    return float((1 + np.sign(_pairs(x, y)).mean()) / 2)


def interval(
    scores: ArrayLike,
    rng: Generator,
    *,
    tasks_are_a_sample: bool,
    statistic: Statistic = "iqm",
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a summary of scores (seeds, tasks) with its 95 % interval.

    `tasks_are_a_sample`: of a law that the interval should speak for; False: they are all there are. With one seed
    it speaks for that seed alone, likewise with one task. ValueError where that leaves nothing to resample.
    """
    if statistic not in get_args(Statistic):
        raise ValueError(f"statistic is {statistic!r}; expected one of {', '.join(get_args(Statistic))}")
    cells = _scores("scores", scores)
    if statistic == "mean" and len(cells) == 1 and tasks_are_a_sample and cells.size >= MANY:
        value = float(cells.mean())
        half = t_quantile((1 + LEVEL) / 2, cells.size - 1) * float(cells.std(ddof=1)) / math.sqrt(cells.size)
        return Interval(value, value - half, value + half)
    factors = [(cells.shape[0], True), (cells.shape[1], tasks_are_a_sample)]
    if statistic == "optimality_gap":
        gap = _bootstrap(_weighted_mean(np.maximum(1.0 - cells, 0.0)), factors, rng, resamples)
        return gap._replace(low=max(gap.low, 0.0))
    return _bootstrap(_weighted_iqm(cells) if statistic == "iqm" else _weighted_mean(cells), factors, rng, resamples)


def adaptation_gain(
    before: ArrayLike, after: ArrayLike, rng: Generator, *, tasks_are_a_sample: bool, resamples: int = RESAMPLES
) -> Interval:
    """Return mean score at a budget less that at budget 0; both (seeds, tasks), of the same seeds and tasks."""
    a, b = _scores("before", before), _scores("after", after)
    if a.shape != b.shape:
        raise ValueError(f"after has shape {b.shape}; expected before's {a.shape}; score the same seeds and tasks")
    return _bootstrap(_weighted_mean(b - a), [(len(a), True), (a.shape[1], tasks_are_a_sample)], rng, resamples)


def generalisation_gap(
    near: ArrayLike, far: ArrayLike, rng: Generator, *, tasks_are_a_sample: bool, resamples: int = RESAMPLES
) -> Interval:
    """Return mean score on a near split less that on a far one (train − test, test − ood).

    `near` (seeds, tasks) and `far` (the same seeds, other tasks): seeds are resampled together, the two task sets
    independently, where tasks are a sample.
    """
    a, b = _scores("near", near), _scores("far", far)
    if len(a) != len(b):
        raise ValueError(f"far has {len(b)} seeds; expected near's {len(a)}; score the same seeds on both splits")
    first, second = _weighted_mean(a), _weighted_mean(b)
    factors = [(len(a), True), (a.shape[1], tasks_are_a_sample), (b.shape[1], tasks_are_a_sample)]
    return _bootstrap(lambda s, t, u: first(s, t) - second(s, u), factors, rng, resamples)


def compare(
    x: ArrayLike, y: ArrayLike, rng: Generator, *, tasks_are_a_sample: bool, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two methods on the same tasks: x (seeds, tasks) and y (its own seeds, tasks), column by column.

    Tasks are resampled together, which cancels how hard they are; seeds independently, as training runs of two
    methods share nothing. Where x beats y in every pair (or in none), the probability's interval is that one point.
    """
    pairs = _pairs(x, y)
    factors = [(pairs.shape[0], True), (pairs.shape[1], True), (pairs.shape[2], tasks_are_a_sample)]
    difference = _bootstrap(_weighted_mean(pairs), factors, rng, resamples)
    found = _bootstrap(_weighted_mean((1 + np.sign(pairs)) / 2), factors, rng, resamples)
    return Comparison(difference, Interval(found.value, max(found.low, 0.0), min(found.high, 1.0)))


def _bootstrap(statistic: Weighted, factors: Sequence[tuple[int, bool]], rng: Generator, resamples: int) -> Interval:
    """Return a statistic of factors (members, whether they are a sample) with its interval."""
    free = [i for i, (n, sampled) in enumerate(factors) if sampled and n > 1]
    if not free:
        raise ValueError("one seed on a complete task set: nothing to resample; expected 2 or more seeds; run more")
    if resamples < 2:
        raise ValueError(f"resamples is {resamples}; expected at least 2; use {RESAMPLES}")
    whole = [np.ones((1, n)) for n, _ in factors]
    value = float(statistic(*whole)[0])
    chunk = max(1, MAX_CELLS // math.prod(n for n, _ in factors))
    joint, alone = [], []  # replicates with all factors resampled, (B,), and with each one only, (factors, B)
    for start in range(0, resamples, chunk):
        drawn = list(whole)
        for i in free:
            drawn[i] = _multiplicities(rng, min(chunk, resamples - start), factors[i][0])
        joint.append(statistic(*drawn))
        alone.append([statistic(*whole[:i], drawn[i], *whole[i + 1 :]) for i in free])
    replicates = np.concatenate(joint)
    ends = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    members = np.array([factors[i][0] for i in free])
    ends = value + _stretch(float(replicates.var()), np.concatenate(alone, 1).var(1), members) * (ends - value)
    return Interval(value, min(float(ends[0]), value), max(float(ends[1]), value))


def _stretch(joint: float, alone: Floats, members: NDArray[np.int64]) -> float:
    """Return how much wider to make an interval, from the variance of all replicates and of each factor's alone."""
    unbiased = alone * members / (members - 1)
    total = float(unbiased.sum())
    if joint == 0 or total == 0:
        return 1.0
    # Satterthwaite: the sum is known as well as one variance with so many degrees of freedom.
    freedom = float(1 / ((unbiased / total) ** 2 / (members - 1)).sum())
    # The sum has the noise once a factor, so it errs to wide; where the factors cancel by chance, not below plain.
    variance = max(1.0, total / joint)
    return math.sqrt(variance) * t_quantile((1 + LEVEL) / 2, freedom) / NormalDist().inv_cdf((1 + LEVEL) / 2)


def t_quantile(p: float, freedom: float) -> float:
    """Return Student's t quantile for p > 1/2: t = √ν tan θ, where θ has density ∝ cos^(ν − 1)."""
    edges = np.linspace(0, np.pi / 2, 4097)
    below = np.concatenate([[0.0], np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1))])
    return math.sqrt(freedom) * math.tan(float(np.interp((2 * p - 1) * below[-1], below, edges)))


def _multiplicities(rng: Generator, resamples: int, n: int) -> Floats:
    """Draw n of n with replacement, many times; return how often each came, (resamples, n)."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _weighted_mean(cells: Floats) -> Weighted:
    """Return the mean of cells (…, tasks) as a function of the multiplicities of every axis."""

    def statistic(*counts: Floats) -> Floats:
        found = np.tensordot(counts[-1], cells, axes=(1, -1))
        for count in counts[-2::-1]:
            found = np.einsum("b...n,bn->b...", found, count)
        return np.asarray(found / cells.size)

    return statistic


def _weighted_iqm(cells: Floats) -> Weighted:
    """Return the IQM of cells (seeds, tasks) as a function of multiplicities; sorts once, not every resample."""
    order = np.argsort(cells, axis=None, kind="stable")
    row, column = np.divmod(order, cells.shape[1])
    ordered, cut = cells.ravel()[order], cells.size // 4

    def statistic(seeds: Floats, tasks: Floats) -> Floats:
        # How many of the middle ranks are taken up to each cell; the increments are the cells' shares.
        taken = np.clip(np.cumsum(seeds[:, row] * tasks[:, column], axis=1), cut, cells.size - cut)
        return np.asarray(np.diff(taken, axis=1, prepend=cut) @ ordered / (cells.size - 2 * cut))

    return statistic


def _pairs(x: ArrayLike, y: ArrayLike) -> Floats:
    """Return x − y for every pair of seeds and task, (x seeds, y seeds, tasks)."""
    a, b = _scores("x", x), _scores("y", y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"y has {b.shape[1]} tasks; expected x's {a.shape[1]}; keep the tasks that both have")
    return np.asarray(a[:, None] - b)


def _scores(name: str, values: ArrayLike, *, any_shape: bool = False) -> Floats:
    """Check scores (seeds, tasks)."""
    array = np.asarray(values, np.float64)
    if array.ndim != 2 and not any_shape:
        raise ValueError(f"{name} has shape {array.shape}; expected (seeds, tasks); one seed alone is values[None]")
    bad = array.size - int(np.isfinite(array).sum())
    if array.size == 0 or bad:
        raise ValueError(f"{name} has {array.size} values, {bad} not finite; expected 1 or more, all finite; rerun")
    return array
