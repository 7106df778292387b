"""Rank correlations against SciPy, draws against every possible draw, intervals against repeated experiments."""

import itertools
import json
import math
import time

import numpy as np
import pytest
from scipy import stats

from hf_prism.correlation import correlate, difference, partial_spearman, ranks, spearman


def spread(n, k, seed=0, levels=None):
    """k related columns of n runs; with ties where levels are given."""
    random = np.random.default_rng(seed)
    found = random.standard_normal((k, n)) + random.standard_normal(n)
    return found if levels is None else np.round(found * levels)


def ranked_scores(values, axis=1):
    return stats.zscore(stats.rankdata(values, axis=axis), axis=axis)


def residuals(column, covariates):
    design = np.column_stack([*map(stats.rankdata, covariates), np.ones(len(column))])
    ranked = stats.rankdata(column)
    return ranked - design @ np.linalg.lstsq(design, ranked, rcond=None)[0]


def partial(measure, outcome, *covariates):
    return stats.pearsonr(residuals(measure, covariates), residuals(outcome, covariates))[0]


@pytest.mark.parametrize("levels", [None, 1.0, 3.0])
def test_ranks_and_correlations_are_those_of_scipy(levels):
    for seed, n in itertools.product(range(5), (4, 20, 171)):
        measure, outcome = spread(n, 2, seed, levels)
        np.testing.assert_array_equal(ranks(measure), stats.rankdata(measure))
        assert spearman(measure, outcome) == pytest.approx(stats.spearmanr(measure, outcome)[0], abs=1e-12)


def test_a_correlation_stays_within_one_and_ignores_units_and_the_order_of_runs():
    measure, outcome = spread(40, 2)
    order = np.random.default_rng(1).permutation(40)
    assert spearman(np.exp(measure), outcome**3) == spearman(measure, outcome)
    assert spearman(measure[order], outcome[order]) == pytest.approx(spearman(measure, outcome), abs=1e-14)
    assert spearman(measure, -outcome) == pytest.approx(-spearman(measure, outcome), abs=1e-14)
    assert spearman(measure, measure) <= 1.0 and spearman(measure, -measure) >= -1.0


@pytest.mark.parametrize("levels", [None, 1.5])
def test_a_partial_correlation_is_that_of_the_residuals_of_ranks(levels):
    measure, outcome, one, other = spread(60, 4, 3, levels)
    found = partial_spearman(measure, outcome, {"one": one, "other": other})
    assert found == pytest.approx(partial(measure, outcome, one, other), abs=1e-10)
    a, b, c = (stats.spearmanr(*pair)[0] for pair in ((measure, outcome), (measure, one), (outcome, one)))
    textbook = (a - b * c) / math.sqrt((1 - b**2) * (1 - c**2))
    assert partial_spearman(measure, outcome, {"one": one}) == pytest.approx(textbook, abs=1e-12)


def test_constant_and_repeated_covariates_change_nothing():
    measure, outcome, one = spread(30, 3)
    plain = partial_spearman(measure, outcome, {"one": one})
    more = {"one": one, "again": 2 * one + 1, "constant": np.full(30, 7.0)}
    assert partial_spearman(measure, outcome, more) == pytest.approx(plain, abs=1e-9)
    assert partial_spearman(measure, outcome, {"constant": np.ones(30)}) == spearman(measure, outcome)
    assert correlate(measure, outcome, given={"constant": np.ones(30)}) == correlate(measure, outcome)


def every_draw(labels, groups=3):
    """The runs of each of the 10 ways to draw 3 groups."""
    for drawn in itertools.combinations_with_replacement(range(groups), groups):
        yield np.concatenate([np.flatnonzero(np.asarray(labels) == group) for group in drawn])


def test_of_three_groups_every_draw_is_ranked_anew():
    # With 3 units, t is so far out that an interval is the least and the largest of all draws.
    labels = [0, 1, 2, 0, 1, 2, 2, 2, 0, 1, 1, 0, 2, 0]
    columns = np.random.default_rng(2).integers(0, 6, size=(4, 14)).astype(float)
    measure, outcome, one, other = columns
    factors = {"one": one, "other": other}

    def ends(statistic):
        values = [statistic(*columns[:, runs]) for runs in every_draw(labels)]
        return pytest.approx((min(values), max(values)), abs=1e-9)

    def rho(x, y):
        return stats.spearmanr(x, y)[0]

    assert correlate(measure, outcome, groups=labels).interval == ends(lambda m, o, a, b: rho(m, o))
    assert correlate(measure, outcome, given=factors, groups=labels).interval == ends(partial)
    gap = difference(measure, one, outcome, groups=labels)
    assert gap.interval == ends(lambda m, o, a, b: rho(m, o) - rho(a, o))
    assert gap.difference == pytest.approx(rho(measure, outcome) - rho(one, outcome))


def test_an_interval_over_runs_is_that_of_scipys_bootstrap():
    measure, outcome = spread(60, 2, 5, 2.0)
    t = math.sqrt(60 / 59) * stats.t.ppf(0.975, 59)
    reference = stats.bootstrap(
        (measure, outcome),
        lambda x, y, axis: np.mean(ranked_scores(x, axis) * ranked_scores(y, axis), axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        confidence_level=1 - 2 * stats.norm.cdf(-t),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = correlate(measure, outcome, draws=20_000)
    assert found.interval == pytest.approx((reference.low, reference.high), abs=0.015)
    assert (found.n, found.units, found.left_out) == (60, 60, 0)


def test_draws_in_which_an_input_is_constant_are_left_out_and_counted():
    measure, outcome = [1, 1, 2, 2, 3, 3], [1, 2, 2, 4, 5, 6]
    found = correlate(measure, outcome, groups=list("aabbcc"), draws=9000)
    assert found.left_out / 9000 == pytest.approx(3 / 27, abs=0.01)  # three times the same group
    assert (found.n, found.units) == (6, 3)
    rare = [0] * 19 + [1]
    assert correlate(rare, range(20), draws=9000).left_out / 9000 == pytest.approx(0.95**20, abs=0.015)
    gap = difference(rare, range(20), [*range(10), *range(10)], draws=9000)
    assert gap.left_out == correlate(rare, range(20), draws=9000).left_out


def true_spearman(r):
    return 6 / math.pi * math.asin(r / 2)


def ordered(x, y):
    return stats.spearmanr(x, y)[0]


@pytest.mark.parametrize(("r", "coarse"), [(0.96, False), (0.6, True)])
def test_intervals_over_runs_cover_the_true_correlation(r, coarse):
    random = np.random.default_rng(8)

    def draw(n):
        x, e = random.standard_normal((2, n))
        y = r * x + math.sqrt(1 - r * r) * e
        return (np.round(1.5 * x), np.round(1.5 * y)) if coarse else (x, y)

    truth = ordered(*draw(100_000)) if coarse else true_spearman(r)
    found = [correlate(*draw(60), draws=400, seed=seed).interval for seed in range(200)]
    assert 0.90 <= np.mean([low <= truth <= high for low, high in found]) <= 0.98


def test_over_few_groups_intervals_cover_where_plain_percentiles_and_single_runs_do_not():
    random, r, trials = np.random.default_rng(9), 0.5, 150
    groups = np.repeat(np.arange(10), 8)
    covered = np.zeros(3)
    for seed in range(trials):
        between, within = random.standard_normal((2, 10)), random.standard_normal((2, 80))
        x, e = math.sqrt(0.6) * between[:, groups] + math.sqrt(0.4) * within
        y = r * x + math.sqrt(1 - r * r) * e
        runs = (random.integers(0, 10, (200, 10))[:, :, None] * 8 + np.arange(8)).reshape(200, 80)
        a, b = (ranked_scores(each[runs]) for each in (x, y))
        intervals = [
            correlate(x, y, groups=groups, draws=200, seed=seed).interval,
            np.quantile((a * b).mean(axis=1), [0.025, 0.975]),
            correlate(x, y, draws=200, seed=seed).interval,
        ]
        covered += [low <= true_spearman(r) <= high for low, high in intervals]
    grouped, plain, single = covered / trials
    assert 0.92 <= grouped <= 1
    assert plain < grouped and single < 0.83


def test_intervals_of_differences_and_partial_correlations_cover():
    random, trials, n = np.random.default_rng(10), 100, 60
    size = math.sqrt(0.8**2 + 0.3**2 + 0.5**2)
    strong, weak = true_spearman(0.8 / size), true_spearman(0.3 / size)
    truths = [strong - weak, strong / math.sqrt(1 - weak**2)]
    covered = np.zeros(2)
    for seed in range(trials):
        a, b, e = random.standard_normal((3, n))
        y = 0.8 * a + 0.3 * b + 0.5 * e
        found = [difference(a, b, y, draws=300, seed=seed), correlate(a, y, given={"b": b}, draws=300, seed=seed)]
        covered += [each.interval[0] <= truth <= each.interval[1] for each, truth in zip(found, truths, strict=True)]
    assert np.all(covered / trials >= 0.885)  # 3 standard errors of so few trials


def test_the_share_below_zero_is_that_of_a_bootstrap_and_half_for_the_same_measure():
    first, second, outcome = spread(30, 3, 6)
    runs = np.random.default_rng(0).integers(0, 30, (4000, 30))
    x, y, z = (ranked_scores(each[runs]) for each in (first, second, outcome))
    found = difference(first, second, outcome, draws=4000)
    assert found.below_zero == pytest.approx(np.mean((x * z).mean(axis=1) < (y * z).mean(axis=1)), abs=0.03)
    assert difference(second, first, outcome, draws=4000).below_zero == pytest.approx(1 - found.below_zero, abs=1e-12)
    same = difference(first, np.exp(first), outcome)
    assert (same.difference, same.interval, same.below_zero) == (0.0, (0.0, 0.0), 0.5)


def test_a_seed_makes_the_same_draws_and_another_seed_others():
    measure, outcome = spread(30, 2)
    assert correlate(measure, outcome, seed=1) == correlate(measure, outcome, seed=1)
    assert correlate(measure, outcome, seed=1).interval != correlate(measure, outcome, seed=2).interval
    assert correlate(measure, outcome, groups=np.arange(30)) == correlate(measure, outcome)


def test_two_thousand_draws_of_170_runs_take_well_under_a_second():
    measure, outcome, one = spread(170, 3)
    begin = time.process_time()
    correlate(measure, outcome, given={"one": one})
    assert time.process_time() - begin < 0.7


def test_what_is_found_is_plain_json():
    measure, outcome, one = spread(20, 3)
    for found in (correlate(measure, outcome), difference(measure, one, outcome)):
        assert tuple(json.loads(json.dumps(found.as_dict()))["interval"]) == found.interval


GOOD = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]
FLAT = [2.0] * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spearman([1, 2], [1, 2]), "2 runs are too few"),
        (lambda: spearman([], []), "0 runs are too few"),
        (lambda: spearman(GOOD, GOOD[:5]), "measure 6, outcome 5"),
        (lambda: spearman([1, 2, math.nan, 4], [1, 2, 3, 4]), "measure of run 2 .* is nan"),
        (lambda: spearman([1, 2, 3, 4], [math.inf, 2, 3, 4]), "outcome of run 0 .* is inf"),
        (lambda: spearman(FLAT, GOOD), "measure is 2.0 in all 6 runs"),
        (lambda: spearman(GOOD, FLAT), "outcome is 2.0 in all 6 runs"),
        (lambda: spearman(["low", "high", "low"], [1, 2, 3]), "measure must be a list of numbers"),
        (lambda: spearman([[1, 2, 3]], [1, 2, 3]), r"shape \(1, 3\)"),
        (lambda: ranks([1, math.nan]), "values of run 1"),
        (lambda: partial_spearman(GOOD, FLAT, {}), "outcome is"),
        (lambda: partial_spearman(GOOD, GOOD[::-1], {"rows": GOOD[:5]}), r"given\['rows'\] 5"),
        (
            lambda: partial_spearman(GOOD, [1, 3, 2, 5, 4, 6], {"rows": GOOD}),
            r"given\['rows'\] determine those of mea",
        ),
        (lambda: partial_spearman([1, 3, 2, 5, 4, 6], GOOD, {"rows": GOOD}), "determine those of outcome"),
        (lambda: partial_spearman([1, 2, 3], [1, 3, 2], {"rows": [2, 1, 3]}), "need 4 at least"),
        (lambda: correlate(GOOD, GOOD, groups=list("aabbb")), "5 labels for 6 runs"),
        (lambda: correlate(GOOD, GOOD, groups=list("aaabbb")), "2 groups are too few .*'a', 'b'"),
        (lambda: correlate(GOOD, GOOD, draws=10), "draws must be 100"),
        (lambda: correlate([0, 0, 0, 1, 1, 1], GOOD, groups=list("aaabcc"), given={"x": FLAT[:5]}), "got different"),
        (lambda: difference(GOOD, FLAT, GOOD), "second is 2.0"),
    ],
)
def test_what_cannot_be_correlated_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_interval_is_made_where_most_draws_have_no_correlation():
    with pytest.raises(ValueError, match="leave an input constant"):
        correlate([0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6], given={"x": [3, 1, 2, 2, 1, 1], "y": [1, 1, 2, 3, 1, 2]})
