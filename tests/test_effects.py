"""Effects against least squares, draws against every possible draw, intervals against repeated experiments."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from hf_prism.effects import effects, effects_with_intervals, ratio


def columns(n, k, seed=0):
    """k related columns of n runs."""
    random = np.random.default_rng(seed)
    return random.standard_normal((k, n)) + random.standard_normal(n)


def least_squares(outcome, factors):
    """Standardised coefficients, from the textbook."""
    z = [(each - np.mean(each)) / np.std(each) for each in (outcome, *factors)]
    return np.linalg.lstsq(np.column_stack([*z[1:], np.ones(len(outcome))]), z[0], rcond=None)[0][:-1]


def test_effects_are_those_of_least_squares_on_standardised_values():
    outcome, one, other, third = columns(50, 4, 7)
    found = effects(outcome * 100 + 3, {"one": one, "other": other / 7, "third": third - 5})
    assert list(found) == ["one", "other", "third"]
    np.testing.assert_allclose(list(found.values()), least_squares(outcome, (one, other, third)), atol=1e-10)
    alone = effects(outcome, {"one": one})["one"]
    assert alone == pytest.approx(stats.pearsonr(outcome, one)[0])
    pairs = effects_with_intervals(outcome, {"one": one, "other": other}).items()
    assert {name: effect.value for name, effect in pairs} == effects(outcome, {"one": one, "other": other})


def test_of_three_groups_every_draw_is_regressed_anew():
    # With 3 units, t is so far out that an interval is the least and the largest of all draws.
    labels = np.array([0, 1, 2, 0, 1, 2, 2, 2, 0, 1, 1, 0, 2, 0])
    values = np.random.default_rng(2).integers(0, 6, size=(3, 14)).astype(float)
    outcome, one, other = values
    draws = [
        np.concatenate([np.flatnonzero(labels == group) for group in drawn])
        for drawn in itertools.combinations_with_replacement(range(3), 3)
    ]
    found = np.array([least_squares(values[0, runs], values[1:, runs]) for runs in draws])

    intervals = effects_with_intervals(outcome, {"one": one, "other": other}, groups=labels)
    for place, name in enumerate(("one", "other")):
        assert intervals[name].interval == pytest.approx((found[:, place].min(), found[:, place].max()), abs=1e-9)
    over = ratio(outcome, {"one": one, "other": other}, "one", "other", groups=labels)
    ratios = np.abs(found[:, 0] / found[:, 1])
    assert over.interval == pytest.approx((ratios.min(), ratios.max()), abs=1e-9)
    assert over.value == pytest.approx(abs(np.divide(*least_squares(outcome, (one, other)))))


def test_draws_in_which_a_factor_is_constant_are_left_out_and_counted():
    rare = [0] * 19 + [1]
    found = effects_with_intervals(range(20), {"rare": rare, "half": [0, 1] * 10}, draws=9000)
    assert found["rare"].left_out == found["half"].left_out
    assert found["rare"].left_out / 9000 == pytest.approx(0.95**20, abs=0.015)


def test_intervals_of_effects_and_ratios_cover():
    random, trials, n = np.random.default_rng(10), 100, 60
    size = math.sqrt(0.8**2 + 0.3**2 + 0.5**2)
    truths = [0.8 / size, 0.3 / size, 0.8 / 0.3]
    covered = np.zeros(3)
    for seed in range(trials):
        a, b, e = random.standard_normal((3, n))
        y = 0.8 * a + 0.3 * b + 0.5 * e
        found = [*effects_with_intervals(y, {"a": a, "b": b}, draws=300, seed=seed).values()]
        found.append(ratio(y, {"a": a, "b": b}, "a", "b", draws=300, seed=seed))
        covered += [each.interval[0] <= truth <= each.interval[1] for each, truth in zip(found, truths, strict=True)]
    assert np.all(covered / trials >= 0.885)  # 3 standard errors of so few trials


def test_what_is_found_is_plain_json():
    outcome, one, other = columns(20, 3)
    found = ratio(outcome, {"one": one, "other": other}, "one", "other")
    assert tuple(json.loads(json.dumps(found.as_dict()))["interval"]) == found.interval


GOOD = [1.0, 2.0, 4.0, 3.0, 5.0, 7.0]
FLAT = [2.0] * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effects(GOOD, {}), "a factor"),
        (lambda: effects(GOOD, {"flat": FLAT}), r"factors\['flat'\] is 2.0"),
        (
            lambda: effects(GOOD, {"a": GOOD, "b": [-2 * x for x in GOOD], "c": [1, 0, 0, 1, 1, 0]}),
            r"\['b'\] determine",
        ),
        (lambda: effects([1, 2, 4], {"a": [1, 2, 1], "b": [1, 0, 0]}), "need 4 at least"),
        (lambda: ratio(GOOD, {"a": [1, 0, 0, 1, 1, 0]}, "a", "b"), "'b' is not among the factors 'a'"),
        (lambda: ratio([1, 2, 1, 2], {"a": [1, 2, 1, 2], "b": [1, 1, 2, 2]}, "a", "b"), "does not follow 'b'"),
    ],
)
def test_what_cannot_be_regressed_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
