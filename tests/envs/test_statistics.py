"""Summaries and intervals: values by hand, against SciPy, invariances, and coverage by simulation.

`python tests/envs/test_statistics.py` prints the coverage table of `kshot.statistics`'s docstring (minutes).
"""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kshot import statistics as ks

SAMPLE = {"tasks_are_a_sample": True}
FINITE = {"tasks_are_a_sample": False}


def rng(seed=0):
    return np.random.default_rng(seed)


def scores(seeds=5, tasks=40, seed=0):
    return rng(seed).normal(size=(seeds, tasks)) + rng(seed + 1).normal(size=(1, tasks))


def plain_interval(*args, **kwargs):
    """Return the percentile interval before it is stretched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ks, "_stretch", lambda *_: 1.0)
        return ks.interval(*args, **kwargs)


# Values by hand.


def test_iqm_by_hand():
    # 8 cells sorted: 0 1 2 3 4 5 6 100; a quarter is 2 at each end; (2 + 3 + 4 + 5) / 4
    assert ks.iqm([[100, 0, 2, 3], [5, 4, 1, 6]]) == 3.5
    # 6 cells: a quarter is 1.5, rounded down to 1; (1 + 2 + 3 + 4) / 4
    assert ks.iqm([[0, 1, 2], [3, 4, 50]]) == 2.5


def test_mean_and_optimality_gap_by_hand():
    assert ks.mean([[1, 2], [3, 6]]) == 3.0
    # misses 1 by 1, 0.5, 0 (2 counts as 1) and 0
    assert ks.optimality_gap([[0.0, 0.5], [2.0, 1.0]]) == 0.375


def test_probability_of_improvement_by_hand():
    # task 0: x {1, 3} against y {1, 2}: = < then > >: (½ + 0 + 1 + 1) / 4 = 0.625
    # task 1: x {0, 0} against y {1, 0}: < = < =: (0 + ½ + 0 + ½) / 4 = 0.25; mean 0.4375
    x, y = [[1, 0], [3, 0]], [[1, 1], [2, 0]]
    assert ks.probability_of_improvement(x, y) == 0.4375
    assert ks.probability_of_improvement(y, x) == 1 - 0.4375
    # one task, x {2}, y {1, 2, 3}: (1 + ½ + 0) / 3
    assert ks.probability_of_improvement([[2]], [[1], [2], [3]]) == 0.5


def test_task_differences_by_hand():
    # means over seeds: x (2, 5), y (3, 4)
    np.testing.assert_array_equal(ks.task_differences([[1, 5], [3, 5]], [[3, 4]]), [-1, 1])


def test_normalised_uses_the_splits_means():
    # random mean (−3 − 1) / 2 = −2, oracle mean (5 + 11) / 2 = 8: (3 + 2) / 10
    assert ks.normalised(3.0, [-3, -1], [[5], [11]]) == 0.5
    np.testing.assert_allclose(ks.normalised([[-2.0, 8.0]], -2.0, 8.0), [[0, 1]])


def test_gains_and_gaps_are_differences_of_means():
    before, after = [[0.0, 1.0], [2.0, 3.0]], [[4.0, 1.0], [6.0, 3.0]]
    assert ks.adaptation_gain(before, after, rng(), **SAMPLE).value == 2.0  # (4 + 0 + 4 + 0) / 4
    # 1.5 less the mean of 1, 1, 1, 2, 2, 2
    assert ks.generalisation_gap(before, [[1, 1, 1], [2, 2, 2]], rng(), **SAMPLE).value == 0.0
    found = ks.compare(after, before, rng(), **SAMPLE)
    assert found.difference.value == 2.0
    # task 0: {4, 6} > {0, 2} always; task 1: {1, 3} against itself, ½: 0.75
    assert found.probability.value == 0.75


def test_variance_of_the_crossed_bootstrap_by_hand():
    # seeds ±3, tasks ±2, interaction ±1 about 0: [[3+2+1, 3−2−1], [−3+2−1, −3−2+1]]
    cells = np.array([[6.0, 0.0], [-2.0, -4.0]])
    seeds, tasks = ks._multiplicities(rng(), 400_000, 2), ks._multiplicities(rng(1), 400_000, 2)
    stat, ones = ks._weighted_mean(cells), np.ones((1, 2))
    # a mean of 2 drawn from ±3 has variance 9/2, of ±2 4/2; Σε²/(S²T²) = 4/16 for the interaction
    assert stat(seeds, ones).var() == pytest.approx(4.5, rel=0.01)
    assert stat(ones, tasks).var() == pytest.approx(2.0, rel=0.01)
    assert stat(seeds, tasks).var() == pytest.approx(6.75, rel=0.01)


def test_the_stretch_by_hand():
    # one factor of 5, all variance its own: √(5/4) · t₄ / z = 1.118 · 2.7764 / 1.9600
    assert ks._stretch(3.0, np.array([3.0]), np.array([5])) == pytest.approx(1.118034 * 2.776445 / 1.959964, rel=1e-4)
    # two factors of 5: unbiased 5/4 each, ν = 1 / (2 · ¼ / 4) = 8, t₈ = 2.3060, √(2.5 / 2)
    found = ks._stretch(2.0, np.array([1.0, 1.0]), np.array([5, 5]))
    assert found == pytest.approx(1.118034 * 2.306004 / 1.959964, rel=1e-4)
    # factors that cancel by chance never make it narrower than plain but for t
    assert ks._stretch(9.0, np.array([1.0, 1.0]), np.array([5, 5])) == pytest.approx(2.306004 / 1.959964, rel=1e-4)


# Against SciPy.


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3), (3, 7), (5, 40)])
def test_iqm_is_scipys_trimmed_mean(shape):
    cells = rng().normal(size=shape)
    assert ks.iqm(cells) == pytest.approx(stats.trim_mean(cells, 0.25, axis=None))


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4, 7.3, 39, 999, 9_999])
def testt_quantile_is_scipys(freedom):
    assert ks.t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_weighted_iqm_is_the_iqm_of_the_repeated_rows_and_columns():
    cells = scores(4, 9).round(1)  # with ties
    seeds, tasks = ks._multiplicities(rng(), 50, 4), ks._multiplicities(rng(1), 50, 9)
    found = ks._weighted_iqm(cells)(seeds, tasks)
    for value, row, column in zip(found, seeds.astype(int), tasks.astype(int), strict=True):
        drawn = np.repeat(np.repeat(cells, row, axis=0), column, axis=1)
        assert drawn.shape == cells.shape
        assert value == pytest.approx(stats.trim_mean(drawn, 0.25, axis=None))


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_plain_interval_of_one_seed_is_scipys_percentile_bootstrap(statistic):
    cells = rng(3).gamma(1.0, size=(1, 40))
    own = {"mean": np.mean, "iqm": lambda x, axis: stats.trim_mean(x, 0.25, axis=axis)}[statistic]
    theirs = stats.bootstrap((cells[0],), own, n_resamples=20_000, method="percentile", rng=rng(), batch=2_000)
    ours = plain_interval(cells, rng(), statistic=statistic, resamples=20_000, **SAMPLE)
    assert ours[1:] == pytest.approx(theirs.confidence_interval, abs=0.02 * (ours.high - ours.low))


@pytest.mark.parametrize("how", [SAMPLE, FINITE])
def test_interval_of_one_factor_is_students(how):
    # 30 of one factor: its bootstrap is close to normal, so that the stretched interval of a mean is Student's
    line = rng(4).normal(size=30)
    cells = line[None] if how is SAMPLE else line[:, None]
    found = ks.interval(cells, rng(), statistic="mean", resamples=20_000, **how)
    low, high = stats.t.interval(0.95, 29, loc=line.mean(), scale=stats.sem(line))
    assert found.value == pytest.approx(line.mean())
    assert found[1:] == pytest.approx((low, high), abs=0.03 * (high - low))


def test_probability_of_improvement_is_mann_whitneys_u_of_each_task():
    x, y = scores(5, 6).round(), scores(4, 6, seed=7).round()
    u = [stats.mannwhitneyu(x[:, j], y[:, j]).statistic / 20 for j in range(6)]
    assert ks.probability_of_improvement(x, y) == pytest.approx(np.mean(u))


# What is resampled.


def test_a_finite_task_set_is_not_resampled():
    # tasks differ by 100, seeds not at all: what is known of all tasks is certain
    cells = np.array([[0.0, 100.0, 50.0]] * 3)
    assert ks.interval(cells, rng(), statistic="mean", **FINITE) == (50, 50, 50)
    assert ks.interval(cells, rng(), statistic="mean", **SAMPLE).low < 20


def test_one_seed_or_one_task_leaves_the_other_factor():
    cells = scores(5, 40)
    assert ks.interval(cells[:1], rng(), **SAMPLE).low < ks.iqm(cells[:1])
    assert ks.interval(cells[:, :1], rng(), **SAMPLE).low < ks.iqm(cells[:, :1])


def test_pairing_by_task_cancels_how_hard_tasks_are():
    hard = 100 * rng().normal(size=(1, 40))
    x, y = rng(1).normal(size=(5, 40)) + 1 + hard, rng(2).normal(size=(5, 40)) + hard
    found = ks.compare(x, y, rng(), **SAMPLE)
    assert 0 < found.difference.low < found.difference.high < 2
    assert 0.5 < found.probability.low < found.probability.high < 1


def test_an_adaptation_gain_is_paired_by_cell():
    before = 100 * scores()
    assert ks.adaptation_gain(before, before + 1, rng(), **SAMPLE) == pytest.approx((1, 1, 1), abs=1e-9)


def test_a_generalisation_gap_resamples_seeds_together():
    # a seed that is 100 better is so on both splits: nothing is left but the tasks, which are all alike
    seeds = 100 * rng().normal(size=(5, 1))
    gap = ks.generalisation_gap(seeds + np.ones((1, 7)), seeds + np.zeros((1, 9)), rng(), **SAMPLE)
    assert gap == pytest.approx((1, 1, 1), abs=1e-9)
    # and task sets apart: the same column of both is not the same task
    tasks = rng().normal(size=(1, 30))
    apart = ks.generalisation_gap(seeds + tasks, seeds + tasks, rng(), **SAMPLE)
    assert apart.high - apart.low > 2 * 1.96 * tasks.std() * math.sqrt(2 / 30) * 0.9


def test_bounded_statistics_have_bounded_intervals():
    # two seeds that miss 1 by 0.1 and 0.7: plain (0.1, 0.7), stretched nine times about 0.4
    gap = ks.interval([[0.9, 0.9], [0.1, 0.5]], rng(), statistic="optimality_gap", **FINITE)
    assert gap.value == pytest.approx(0.4)
    assert gap.low == 0
    assert gap.high > 1
    # a seed that always wins and one that never does: plain (0, 1)
    found = ks.compare([[1.0, 3.0], [0.0, 0.0]], [[0.5, 0.5], [0.6, 0.6]], rng(), **FINITE)
    assert found.probability == (0.5, 0, 1)


def test_a_biased_bootstrap_still_holds_the_value():
    # the share of 50 that came at least once is 1 as observed, and about 63 % in a resample
    found = ks._bootstrap(lambda count: (count > 0).mean(1), [(50, True)], rng(), 200)
    assert found.low < 0.7 < found.value == found.high == 1.0


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_chunks_do_not_change_an_interval_but_for_the_draws(monkeypatch, statistic):
    cells = scores()
    whole = ks.interval(cells, rng(), statistic=statistic, resamples=10_000, **SAMPLE)
    monkeypatch.setattr(ks, "MAX_CELLS", 999 * cells.size)  # 10 chunks of 999 and one of 10
    parts = ks.interval(cells, rng(), statistic=statistic, resamples=10_000, **SAMPLE)
    assert parts == pytest.approx(whole, abs=0.05 * (whole.high - whole.low))


# Invariances.

arrays = st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(0, 2**32 - 1)).map(
    lambda s: np.random.default_rng(s[2]).standard_cauchy(size=s[:2]).clip(-1e3, 1e3).round(2)
)
statistics = st.sampled_from(["mean", "iqm"])


def close(found, expected, scale):
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * scale)


@settings(max_examples=40, deadline=None)
@given(arrays, statistics, st.floats(-100, 100), st.floats(0.01, 100))
def test_intervals_shift_and_scale_with_the_scores(cells, statistic, shift, scale):
    one = ks.interval(cells, rng(), statistic=statistic, resamples=100, **SAMPLE)
    two = ks.interval(shift + scale * cells, rng(), statistic=statistic, resamples=100, **SAMPLE)
    close(two, shift + scale * np.array(one), 1e3 * scale + abs(shift))


@settings(max_examples=40, deadline=None)
@given(arrays, st.sampled_from(["mean", "iqm", "optimality_gap"]), st.integers(0, 2**32 - 1))
def test_an_interval_contains_its_value_and_repeats_with_the_generator(cells, statistic, seed):
    how = {"statistic": statistic, "resamples": 50, **SAMPLE}
    found = ks.interval(cells, rng(seed), **how)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(getattr(ks, statistic)(cells), rel=1e-9, abs=1e-9)
    assert found == ks.interval(cells, rng(seed), **how)


@settings(max_examples=40, deadline=None)
@given(arrays, st.integers(0, 2**32 - 1))
def test_values_do_not_depend_on_the_order_of_seeds_and_tasks(cells, seed):
    mixed = rng(seed).permutation(rng(seed).permutation(cells, axis=0), axis=1)
    other = np.cos(np.arange(3 * cells.shape[1])).reshape(3, -1)
    columns = rng(seed).permutation(cells.shape[1])
    for f in (ks.mean, ks.iqm, ks.optimality_gap):
        assert f(mixed) == pytest.approx(f(cells), abs=1e-9)
    found = ks.probability_of_improvement(cells[::-1][:, columns], other[:, columns])
    assert found == pytest.approx(ks.probability_of_improvement(cells, other))


def test_intervals_do_not_depend_on_the_order_of_seeds_and_tasks_but_for_the_draws():
    cells = scores()
    one = ks.interval(cells, rng(), resamples=10_000, **SAMPLE)
    two = ks.interval(cells[::-1, ::-1], rng(), resamples=10_000, **SAMPLE)
    assert two == pytest.approx(one, abs=0.05 * (one.high - one.low))


def test_swapping_the_methods_mirrors_the_comparison():
    x, y = scores(), scores(seed=5)
    one, two = ks.compare(x, y, rng(), **SAMPLE), ks.compare(y, x, rng(1), **SAMPLE)
    assert two.difference.value == pytest.approx(-one.difference.value)
    assert two.probability.value == pytest.approx(1 - one.probability.value)
    assert two.difference.low == pytest.approx(-one.difference.high, abs=0.1)
    assert two.probability.low == pytest.approx(1 - one.probability.high, abs=0.02)


# Errors.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ks.mean([1.0, 2.0]), r"scores has shape \(2,\); expected \(seeds, tasks\)"),
        (lambda: ks.iqm(np.zeros((0, 3))), "0 values"),
        (lambda: ks.interval([[1.0, math.nan]], rng(), **SAMPLE), "scores has 2 values, 1 not finite"),
        (lambda: ks.normalised(1.0, 0.0, [math.inf]), "oracle has 1 values, 1 not finite"),
        (lambda: ks.normalised(1.0, 2.0, 2.0), "oracle has mean 2; expected more than random's 2"),
        (lambda: ks.interval([[1.0, 2.0]], rng(), **FINITE), "nothing to resample; expected 2 or more seeds"),
        (lambda: ks.interval([[1.0, 2.0]], rng(), resamples=1, **SAMPLE), "resamples is 1; expected at least 2"),
        (lambda: ks.interval([[1.0, 2.0]], rng(), statistic="median", **SAMPLE), "'median'; expected one of iqm"),
        (lambda: ks.task_differences([[1, 2]], [[1, 2, 3]]), "y has 3 tasks; expected x's 2"),
        (lambda: ks.probability_of_improvement([[1]], [[1, 2]]), "y has 2 tasks; expected x's 1"),
        (lambda: ks.compare([[1, 2]], [[1]], rng(), **SAMPLE), "y has 1 tasks; expected x's 2"),
        (lambda: ks.adaptation_gain([[1, 2]], [[1]], rng(), **SAMPLE), r"after has shape \(1, 1\); expected before's"),
        (lambda: ks.generalisation_gap([[1]], [[1], [2]], rng(), **SAMPLE), "far has 2 seeds; expected near's 1"),
    ],
)
def test_errors_name_the_value_and_what_is_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Coverage, under score = seed + task + noise with these standard deviations.


def draw(law, generator, size):
    return generator.normal(size=size) if law == "normal" else generator.exponential(size=size) - 1


def crossed(sd, law, seeds, tasks, generator):
    """Return seeds × tasks scores without the tasks' part, and that part (1, tasks)."""
    parts = [s * draw(law, generator, n) for s, n in zip(sd, [(seeds, 1), (1, tasks), (seeds, tasks)], strict=True)]
    return parts[0] + parts[2], parts[1]


def truth(statistic, sd, law):
    """Return the mean or IQM of the law itself: the mean is 0, and so is the IQM of a symmetric law."""
    if statistic == "mean" or law == "normal":
        return 0.0
    many = sum(s * draw(law, np.random.default_rng(99 + i), 1_000_000) for i, s in enumerate(sd))
    return stats.trim_mean(many, 0.25)


def coverage(statistic, sd, *, law="normal", seeds=5, tasks=40, finite=False, plain=False, n=500, resamples=250):
    """Return which share of n intervals holds the truth."""
    generator, hits = np.random.default_rng(2024), 0
    known = truth(statistic, sd, law)
    for _ in range(n):
        rest, part = crossed(sd, law, seeds, tasks, generator)
        target = known + (part.mean() if finite else 0.0)
        how = {"statistic": statistic, "resamples": resamples, "tasks_are_a_sample": not finite}
        _, low, high = (plain_interval if plain else ks.interval)(rest + part, generator, **how)
        hits += low <= target <= high
    return hits / n


def comparison_coverage(sd, *, n=500, resamples=250, by=0.5):
    """Return coverage of the difference and probability of improvement of x over y, and of x's gap to other tasks."""
    generator, hits = np.random.default_rng(2024), np.zeros(3)
    # on one task, X − Y ~ N(by, 2 (seed² + noise²))
    truths = [by, stats.norm.cdf(by / math.sqrt(2 * (sd[0] ** 2 + sd[2] ** 2))), by]
    for _ in range(n):
        seed = sd[0] * generator.normal(size=(5, 1))  # on far tasks, half as much
        (noise, part), (far, other) = (crossed((0, *sd[1:]), "normal", 5, 40, generator) for _ in range(2))
        y, _ = crossed(sd, "normal", 5, 40, generator)
        x = seed + noise + by + part
        found = ks.compare(x, y + part, generator, resamples=resamples, **SAMPLE)
        gap = ks.generalisation_gap(x, seed / 2 + far + other, generator, resamples=resamples, **SAMPLE)
        hits += [one.low <= known <= one.high for one, known in zip([*found, gap], truths, strict=True)]
    return hits / n


RATIOS = [(1, 0, 1), (1, 1, 1), (0.3, 1, 1), (0.1, 1, 1), (0, 0, 1)]  # sd of seeds, tasks, noise


@pytest.mark.parametrize("sd", RATIOS[:-1])
@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_intervals_of_5_seeds_on_40_tasks_cover_95_percent(statistic, sd):
    found = coverage(statistic, sd)
    print(f"{statistic} {sd}: {found:.1%}")
    assert 0.93 <= found <= 0.985


def test_plain_percentile_intervals_of_5_seeds_cover_too_little():
    found = coverage("mean", (1, 0, 1), plain=True)
    print(f"plain: {found:.1%}")
    assert found < 0.88


def test_intervals_are_too_wide_where_all_is_noise():
    assert coverage("mean", (0, 0, 1)) > 0.98


def test_intervals_on_a_finite_task_set_cover_95_percent():
    assert 0.93 <= coverage("mean", (1, 3, 1), finite=True) <= 0.975


def test_intervals_of_few_skewed_seeds_cover_no_less_than_85_percent():
    assert 0.85 <= coverage("mean", (1, 1, 1), law="exponential") <= 0.94


@pytest.mark.parametrize("sd", [(1, 1, 1), (0.3, 1, 1)])
def test_comparisons_and_gaps_cover_95_percent(sd):
    found = comparison_coverage(sd, n=1_000)
    print(sd, found)
    assert (found >= 0.92).all()
    assert (found <= 0.99).all()


def main(n=2_000, resamples=500):
    """Print the coverage table."""
    table = [{"seeds": 5}, {"seeds": 3}, {"seeds": 10}, {"seeds": 5, "law": "exponential"}, {"finite": True}]
    for how in table:
        # The IQM of a finite task set has another truth for every set: left out.
        for statistic in ("mean",) if "finite" in how else ("mean", "iqm"):
            for sd in RATIOS:
                found = [coverage(statistic, sd, plain=p, n=n, resamples=resamples, **how) for p in (True, False)]
                print(how, statistic, sd, "{:.1%} → {:.1%}".format(*found), flush=True)
    for sd in RATIOS:
        print("difference, probability, gap", sd, comparison_coverage(sd, n=n, resamples=resamples), flush=True)


def test_one_large_factor_is_not_drawn_but_alike(monkeypatch):
    cells = np.random.default_rng(0).exponential(size=(1, 1_500))
    closed = ks.interval(cells, np.random.default_rng(1), tasks_are_a_sample=True, statistic="mean")
    monkeypatch.setattr(ks, "MANY", 10_000)
    drawn = ks.interval(cells, np.random.default_rng(1), tasks_are_a_sample=True, statistic="mean", resamples=20_000)
    assert closed.value == drawn.value
    np.testing.assert_allclose(closed[1:], drawn[1:], atol=0.06 * (closed.high - closed.low))
    assert closed.high - closed.low == pytest.approx(drawn.high - drawn.low, rel=0.03)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
