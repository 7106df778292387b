"""Compositions: the subset is exactly what was asked for, whoever draws it, and what cannot be drawn is an error."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from hf_prism.composition import Composition, Pool, apportion


SKELETONS, STYLES, EACH = [f"kind {i}" for i in range(6)], list(range(4)), 40
ROWS = [(kind, style, f"{kind}/{style}/{i}") for kind in SKELETONS for style in STYLES for i in range(EACH)]


def pool(rows=ROWS):
    kinds, styles, ids = zip(*rows, strict=True)
    return Pool({"skeleton": kinds, "style": styles}, ids)


def drawn(composition, rows=ROWS):
    return [rows[place] for place in pool(rows).compose(composition)]


def asked(size=90, skeleton=3, style=2, skew=0.0, seed=0):
    return Composition(size, {"skeleton": skeleton, "style": style}, skew, seed)


CASES = [asked(), asked(100, 6, 4, 1.0), asked(97, 5, 3, 1.0, 7), asked(61, 1, 4, 2.0), asked(40, 4, 1, 0.5, 3)]


@pytest.mark.parametrize("composition", CASES, ids=str)
def test_a_subset_has_its_size_in_different_rows_and_as_many_values_as_asked(composition):
    rows = drawn(composition)
    assert len(rows) == len({id for *_, id in rows}) == composition.size
    for place, count in enumerate(composition.values.values()):
        assert len({row[place] for row in rows}) == count


@pytest.mark.parametrize("composition", CASES, ids=str)
def test_shares_of_the_first_column_follow_zipfs_law_by_the_largest_remainders(composition):
    n = composition.values["skeleton"]
    counts = sorted(Counter(kind for kind, *_ in drawn(composition)).values(), reverse=True)
    weights = [Fraction(1 / rank**composition.skew) for rank in range(1, n + 1)]
    exact = [composition.size * weight / sum(weights) for weight in weights]
    up = [share % 1 for share, count in zip(exact, counts, strict=True) if count > share]
    down = [share % 1 for share, count in zip(exact, counts, strict=True) if count <= share]
    assert all(abs(share - count) < 1 for share, count in zip(exact, counts, strict=True))
    assert min(up, default=1) >= max(down)


@pytest.mark.parametrize("composition", CASES, ids=str)
def test_rows_of_a_value_are_spread_evenly_over_the_other_columns(composition):
    cells = Counter(row[:2] for row in drawn(composition))
    styles = {style for _, style in cells}
    for kind in {kind for kind, _ in cells}:
        counts = [cells[kind, style] for style in styles]
        assert max(counts) - min(counts) <= 1


def test_zipfs_law_by_hand():
    assert apportion(11, [1, 1 / 2, 1 / 3]) == [6, 3, 2]  # 6, 3, 2
    assert apportion(10, [1, 1 / 2, 1 / 3]) == [5, 3, 2]  # 5.45, 2.73, 1.82
    assert apportion(0, [1.0, 1.0]) == [0, 0] and apportion(7, [1.0]) == [7]


@pytest.mark.parametrize("seed", range(50))
def test_whole_numbers_add_up_and_stay_within_one_of_their_share(seed):
    random = np.random.default_rng(seed)
    weights, total = random.random(random.integers(1, 20)).tolist(), int(random.integers(0, 500))
    found = apportion(total, weights)
    assert sum(found) == total
    assert all(abs(count - total * weight / sum(weights)) < 1 for count, weight in zip(found, weights, strict=True))


def test_the_order_of_the_pool_does_not_matter():
    shuffled = [ROWS[place] for place in np.random.default_rng(0).permutation(len(ROWS))]
    for composition in CASES:
        assert set(drawn(composition)) == set(drawn(composition, shuffled))


def test_seeds_draw_other_values_and_other_rows():
    subsets = [drawn(asked(seed=seed)) for seed in range(12)]
    assert len({frozenset(rows) for rows in subsets}) == 12
    assert len({frozenset(kind for kind, *_ in rows) for rows in subsets}) > 5
    everything = [drawn(asked(240, 6, 4, seed=seed)) for seed in range(2)]
    assert set(everything[0]) != set(everything[1])  # the same values, and so the same cells


def test_the_same_seed_draws_the_same_values_whatever_their_number():
    few, more = (set(pool().chosen(asked(skeleton=count))["skeleton"]) for count in (2, 5))
    assert few < more


def test_every_row_is_as_likely_as_another():
    counts = Counter(id for seed in range(300) for *_, id in drawn(asked(120, 6, 4, seed=seed)))
    expected = 300 * 120 / len(ROWS)
    assert len(counts) == len(ROWS)
    chi_squared = sum((counts[id] - expected) ** 2 / expected for *_, id in ROWS)
    assert chi_squared < len(ROWS) + 5 * math.sqrt(2 * len(ROWS))


def test_values_that_are_no_text_count_by_how_they_are_written():
    numbers = Pool({"style": [1, 1, 10, 10, 2]}, list("abcde"))
    assert numbers.values == {"style": ["1", "10", "2"]}
    assert len(numbers.compose(Composition(3, {"style": 3}))) == 3


BAD = {
    "too few rows of a cell": (asked(90, 1, 2), "the pool has 40 rows with skeleton 'kind "),
    "and what they are for": (asked(90, 1, 2), "'style': 2} of 90 rows needs 45. Take a larger pool"),
    "more values than there are": (asked(90, 7), "skeleton: 7 values were asked for; the pool has 6"),
    "no value": (asked(90, 3, 0), "style: 0 values were asked for"),
    "a value without a row": (asked(5, 6, 1), "5 rows are too few for 6 values of skeleton"),
    "a rare value without a row": (asked(6, 6, 1, 3.0), "with skew 3: 'kind "),
    "another factor": (Composition(9, {"skeleton": 1}), "the composition is of ['skeleton'], the pool of"),
    "another order": (Composition(9, {"style": 1, "skeleton": 1}), "the composition is of ['style', 'skeleton']"),
}


@pytest.mark.parametrize(("composition", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_drawn_is_an_error_that_says_why(composition, message):
    for draw in (pool().compose, pool().check):
        with pytest.raises(ValueError) as error:
            draw(composition)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("columns", "ids", "message"),
    [
        ({}, ["a"], "a factor at least"),
        ({"skill": ["x", "y"]}, ["a"], "{'skill': 2, 'id': 1}"),
        ({"skill": ["x", "y"]}, ["a", "a"], "2 rows have 1 ids"),
    ],
)
def test_a_pool_that_is_none_is_an_error(columns, ids, message):
    with pytest.raises(ValueError) as error:
        Pool(columns, ids)
    assert message in str(error.value)
