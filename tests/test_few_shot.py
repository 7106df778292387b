"""The examples of a request: drawn by the stated law, from the rows whatever their order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from hf_prism.few_shot import FewShot


IDS = [f"row-{i}" for i in range(20)]
DRAWS = 4000


def first_rows(few_shot: FewShot, draws: int = DRAWS) -> Counter[int]:
    return Counter(int(few_shot.draw(number)[0]) for number in range(draws))


def test_uniform_draws_take_every_row_alike():
    counts = first_rows(FewShot("uniform", 3, IDS, seed=1))
    assert stats.chisquare([counts[i] for i in range(20)]).pvalue > 1e-3


def test_levels_are_the_probabilities_of_the_first_example():
    levels = np.arange(20, dtype=float)
    counts = first_rows(FewShot("level", 3, IDS, levels=levels, seed=2))
    assert counts[0] == 0
    expected = levels[1:] / levels.sum() * DRAWS
    assert stats.chisquare([counts[i] for i in range(1, 20)], expected).pvalue > 1e-3


def test_the_second_example_is_drawn_from_the_others_in_proportion():
    levels = [1.0, 2.0, 3.0]
    few_shot = FewShot("level", 2, IDS[:3], levels=levels, seed=3)
    pairs = Counter(tuple(few_shot.draw(number).tolist()) for number in range(DRAWS))
    for (a, b), count in pairs.items():
        chance = levels[a] / 6 * levels[b] / (6 - levels[a])
        assert abs(count / DRAWS - chance) < 4 * np.sqrt(chance * (1 - chance) / DRAWS)
    assert len(pairs) == 6


@pytest.mark.parametrize("choice", ["uniform", "level", "sparse_clusters"])
def test_no_row_is_shown_twice_in_one_request(choice):
    options = pool(np.random.default_rng(0), 30, 6)
    few_shot = FewShot(choice, 5, options.pop("ids"), seed=4, **options)
    for number in range(200):
        assert len(set(few_shot.draw(number).tolist())) == 5


def pool(draw: np.random.Generator, n: int, k: int) -> dict:
    centers = draw.normal(size=(k, 8))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return {
        "ids": [f"row-{i}" for i in range(n)],
        "levels": draw.integers(1, 5, n).astype(float),
        "labels": np.sort(draw.integers(0, k, n)),
        "centers": centers,
    }


@pytest.mark.parametrize("choice", ["uniform", "level", "sparse_clusters"])
def test_the_order_of_the_rows_does_not_change_what_is_shown(choice):
    draw = np.random.default_rng(5)
    options = pool(draw, 40, 8)
    order = draw.permutation(40)
    ids = options.pop("ids")
    moved = {**options, "levels": options["levels"][order], "labels": options["labels"][order]}
    one = FewShot(choice, 4, ids, seed=6, **options)
    other = FewShot(choice, 4, [ids[i] for i in order], seed=6, **moved)
    for number in range(50):
        assert [ids[i] for i in one.draw(number)] == [ids[order[i]] for i in other.draw(number)]


def test_sparse_examples_come_from_the_smallest_tenth_of_the_clusters_then_from_their_neighbours():
    # Twenty clusters in a plane; 4 and 11 are the smallest, with two rows each.
    sizes = [6] * 20
    sizes[4] = sizes[11] = 2
    labels = np.repeat(np.arange(20), sizes)
    angles = np.linspace(0, np.pi / 2, 20)
    centers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    few_shot = FewShot("sparse_clusters", 5, [f"r{i}" for i in range(len(labels))], labels=labels, centers=centers, seed=7)  # fmt: skip
    begun = Counter()
    for number in range(300):
        shown = labels[few_shot.draw(number)].tolist()
        first = shown[0]
        begun[first] += 1
        assert shown[:2] == [first, first] and first in (4, 11)
        assert all(abs(label - first) == 1 for label in shown[2:])
    assert min(begun.values()) > 100


BAD = {
    "another choice": ({"choice": "leveled"}, "did you mean 'level'"),
    "too few rows": ({"shots": 21}, "shows 21 examples, but the pool has 20"),
    "no levels": ({"choice": "level"}, "needs a column `level`"),
    "levels of zero": ({"choice": "level", "levels": [0.0] * 17 + [1.0] * 3, "shots": 4}, "at least 4"),
    "a negative level": ({"choice": "level", "levels": [-1.0] + [1.0] * 19}, "from -1.0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(options, message):
    options = {"choice": "uniform", "shots": 3, "ids": IDS, **options}
    with pytest.raises(ValueError, match=message):
        FewShot(**options)
