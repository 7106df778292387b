"""Exactly k rows, the same ones for any order of the pool, by methods that do what their names say."""

import json

import numpy as np
import pytest
from datasets import Dataset

from hf_prism import greedy, nearest
from hf_prism.selection import METHODS, select
from hf_prism.vendi import g_vendi


def mixture(sizes=(60, 30, 20, 10, 5, 3, 1, 1), dim=24, noise=0.15, seed=0):
    """Rows of kinds of very different size, and the kind of each."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    centers = np.linalg.qr(rng.standard_normal((dim, len(sizes))))[0].T
    rows = centers[kinds] + noise * rng.standard_normal((len(kinds), dim)) / np.sqrt(dim)
    order = rng.permutation(len(kinds))
    return rows[order].astype(np.float32), kinds[order]


ROWS, KINDS = mixture()
IDS = [f"row-{i}" for i in range(len(ROWS))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 7, 64, len(ROWS)])
def test_exactly_k_different_rows(method, k):
    chosen = select(ROWS, k, method=method)
    assert len(set(chosen.indices.tolist())) == k == len(chosen.clusters) == sum(chosen.metadata["cluster_chosen"])
    assert chosen.indices.min() >= 0 and chosen.indices.max() < len(ROWS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("with_ids", [True, False])
def test_the_order_of_the_pool_does_not_matter(method, with_ids):
    shuffle = np.random.default_rng(3).permutation(len(ROWS))
    ids = {"ids": IDS} if with_ids else {}
    shuffled = {"ids": [IDS[i] for i in shuffle]} if with_ids else {}
    quality, groups = (KINDS + 1.0), [f"g{kind % 2}" for kind in KINDS]
    one = select(ROWS, 30, method=method, quality=quality, groups=groups, **ids)
    other = select(
        ROWS[shuffle], 30, method=method, quality=quality[shuffle], groups=[groups[i] for i in shuffle], **shuffled
    )
    assert shuffle[other.indices].tolist() == one.indices.tolist()  # the order of choice too
    assert other.metadata == one.metadata


@pytest.mark.parametrize("method", METHODS)
def test_the_sizes_of_blocks_do_not_matter(method, monkeypatch):
    before = select(ROWS, 40, method=method)
    monkeypatch.setattr(greedy, "BLOCK_ROWS", 16)
    monkeypatch.setitem(nearest.ROWS_AT_A_TIME, "cpu", 13)
    monkeypatch.setattr("hf_prism.vectors.BLOCK_ROWS", 11)
    after = select(ROWS, 40, method=method)
    assert after.indices.tolist() == before.indices.tolist() and after.metadata == before.metadata


@pytest.mark.parametrize("method", METHODS)
def test_a_dataset_with_an_id_column_is_the_same_pool(method):
    dataset = Dataset.from_dict({"id": IDS, "gradient": ROWS.tolist(), "score": (KINDS + 1.0).tolist()})
    by_name = select(dataset, 20, method=method, quality="score", groups="score")
    by_value = select(ROWS, 20, method=method, quality=KINDS + 1.0, groups=KINDS + 1.0, ids=IDS)
    assert by_name.indices.tolist() == by_value.indices.tolist()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "greedy"])
def test_another_seed_draws_other_rows(method):
    assert select(ROWS, 40, method=method).indices.tolist() != select(ROWS, 40, method=method, seed=1).indices.tolist()


def test_greedy_reaches_more_directions_than_random_rows():
    chosen = select(ROWS, 8, n_clusters=8)
    assert sorted(KINDS[chosen.indices]) == list(range(8))  # one of each kind, the rarest too
    assert chosen.metadata["g_vendi"] == pytest.approx(g_vendi(ROWS[chosen.indices]).g_vendi)
    assert chosen.metadata["g_vendi"] > 7.5 > 5 > chosen.metadata["g_vendi_random"]


def test_round_robin_takes_one_row_of_each_cluster_in_turn_best_quality_first():
    rng = np.random.default_rng(0)
    quality = rng.random(len(ROWS))
    chosen = select(ROWS, 20, method="round_robin", quality=quality, n_clusters=8)
    assert sorted(KINDS[chosen.indices[:8]]) == list(range(8))  # the first turn
    assert sorted(KINDS[chosen.indices[8:14]]) == list(range(6))  # then those that have a second row
    for kind in range(8):
        taken = [i for i in chosen.indices if KINDS[i] == kind]
        assert taken == sorted(np.flatnonzero(KINDS == kind), key=lambda i: -quality[i])[: len(taken)]


def test_inverse_cluster_size_gives_every_cluster_the_same_chance():
    """The first of the drawn rows is of each kind equally often, however many rows the kind has."""
    rows, kinds = mixture((60, 30, 10), seed=2)
    draws = 600
    first = [select_first(rows, "inverse_cluster_size", seed) for seed in range(draws)]
    counts = np.bincount(kinds[first], minlength=3)
    assert np.abs(counts - draws / 3).max() < 4 * np.sqrt(draws * (1 / 3) * (2 / 3))


def test_random_draws_in_proportion_to_quality():
    rows, kinds = mixture((40, 40), seed=3)
    quality, draws = np.where(kinds == 0, 3.0, 1.0), 600
    first = [select_first(rows, "random", seed, quality=quality) for seed in range(draws)]
    share = np.mean(kinds[first] == 0)
    assert abs(share - 0.75) < 4 * np.sqrt(0.75 * 0.25 / draws)


def select_first(rows, method, seed, **options):
    """The row that a method chooses first; its other work is left out, to draw many times."""
    from hf_prism.selection import Demand, _Choice, _Pool

    pool = _Pool(rows, None, Demand(len(rows), 1, quality=options.get("quality")))
    choice = _Choice(pool, np.array([1]), 1, 3 if method == "inverse_cluster_size" else 1)
    return int(pool.positions[choice.by(method, seed)[0]])


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_quality_zero_is_never_chosen(method):
    quality = (KINDS != 0).astype(float)
    chosen = select(ROWS, int(quality.sum()), method=method, quality=quality)
    assert sorted(chosen.indices) == np.flatnonzero(quality).tolist()


def test_only_the_ratios_of_quality_count():
    quality = np.random.default_rng(0).random(len(ROWS))
    for method in METHODS:
        one, other = (select(ROWS, 30, method=method, quality=scale * quality) for scale in (1, 1024))
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_quotas_are_met_exactly_and_the_rest_comes_from_the_others(method):
    groups = [f"g{kind % 3}" for kind in KINDS]
    chosen = select(ROWS, 25, method=method, groups=groups, quotas={"g0": 4, "g1": 15})
    counts = {name: sum(groups[i] == name for i in chosen.indices) for name in ("g0", "g1", "g2")}
    assert counts == {"g0": 4, "g1": 15, "g2": 6} == chosen.metadata["quotas"]


@pytest.mark.parametrize("method", METHODS)
def test_without_quotas_groups_give_in_proportion(method):
    groups = np.array(["a"] * 100 + ["b"] * 20 + ["c"] * 10)
    chosen = select(ROWS, 26, method=method, groups=groups.tolist())
    assert chosen.metadata["quotas"] == {"a": 20, "b": 4, "c": 2}
    assert np.unique(groups[chosen.indices], return_counts=True)[1].tolist() == [20, 4, 2]


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_a_gradient_are_never_chosen(method):
    rows = [None if i % 3 == 0 else row for i, row in enumerate(ROWS.tolist())]
    there = [i for i in range(len(rows)) if i % 3]
    assert sorted(select(rows, len(there), method=method).indices) == there
    with pytest.raises(ValueError, match="more than the 86 rows"):
        select(rows, len(there) + 1, method=method)


def test_counts_by_cluster_and_stability_are_those_of_the_choice():
    chosen = select(ROWS, 30, method="round_robin", n_clusters=8)
    sizes, taken = chosen.metadata["cluster_sizes"], chosen.metadata["cluster_chosen"]
    assert sorted(sizes) == sorted(np.bincount(KINDS).tolist())  # the kinds are plain to see
    assert taken == np.bincount(chosen.clusters, minlength=8).tolist()
    again = select(ROWS, 30, method="round_robin", n_clusters=8, seed=1)
    stability = chosen.metadata["stability"]
    assert stability["agreement"] == np.isin(chosen.indices, again.indices).mean() and stability["seeds"] == [1]
    assert stability["by_chance"] == pytest.approx(30 / 130)
    assert json.loads(json.dumps(chosen.metadata)) == chosen.metadata


def test_fewer_directions_than_a_tenth_of_the_rows_make_fewer_clusters():
    rows = np.repeat(np.eye(3), 40, axis=0)
    for method in METHODS:
        chosen = select(rows, 6, method=method)
        assert chosen.metadata["cluster_sizes"] == [40, 40, 40]
    assert select(rows, 6).metadata["cluster_chosen"] == [2, 2, 2]


BAD = {
    "k of zero": ({"k": 0}, "k must be a whole number of at least 1, got 0"),
    "k below zero": ({"k": -3}, "got -3"),
    "k that is no whole number": ({"k": 2.5}, "got 2.5"),
    "k above the rows": ({"k": 131}, "k = 131 is more than the 130 rows"),
    "unknown method": ({"method": "roundrobin"}, "did you mean 'round_robin'"),
    "negative seed": ({"seed": -1}, "seed must be"),
    "negative quality": ({"quality": [1.0] * 129 + [-2.0]}, r"row 129 \(id 'row-129'\) has quality -2.0"),
    "quality that is not a number": ({"quality": [float("nan")] + [1.0] * 129}, "row 0 .*quality nan"),
    "infinite quality": ({"quality": [float("inf")] + [1.0] * 129}, "row 0 .*quality inf"),
    "missing quality": ({"quality": [None] + [1.0] * 129}, "row 0 .*quality None"),
    "quality as text": ({"quality": ["high"] * 130}, "row 0 .*quality 'high'"),
    "quality of other rows": ({"quality": [1.0] * 5}, "5 quality values for 130 rows"),
    "too few rows of any quality": ({"quality": [1.0] * 4 + [0.0] * 126}, "than the 4 rows .*126 rows have quality 0"),
    "column of quality without a dataset": ({"quality": "score"}, "names a column 'score' that is not there"),
    "missing group": ({"groups": ["a"] * 129 + [None]}, r"row 129 \(id 'row-129'\) has no group"),
    "groups of other rows": ({"groups": ["a"]}, "1 groups for 130 rows"),
    "quota of no group": ({"groups": ["apple"] * 130, "quotas": {"aple": 5}}, "did you mean 'apple'"),
    "quotas above k": ({"groups": ["a"] * 130, "quotas": {"a": 11}}, "add up to 11, more than k = 10"),
    "quotas below k": ({"groups": ["a"] * 130, "quotas": {"a": 4}}, "add up to 4 of k = 10"),
    "quota above its group": ({"groups": ["a"] * 2 + ["b"] * 128, "quotas": {"a": 3}}, "only 2 rows can be chosen"),
    "quotas of one group": ({"groups": [1] * 130, "quotas": {1: 1, "1": 3}}, "two quotas are of groups with one name"),
    "labels of two types": ({"groups": [1] * 60 + ["1"] * 70}, "row 60 .*'1'.* 1: make them of one type"),
    "quality over too wide a range": ({"quality": [1e300] + [1e-300] * 129}, "from 1e-300 to 1e\\+300"),
    "several splits": ({"vectors": {"train": ROWS, "test": ROWS}, "ids": None}, "several sets of rows"),
    "a stream": ({"vectors": iter(ROWS), "ids": None}, "has no length"),
    "k that is none": ({"k": None}, "k must be a whole number"),
    "quota that is no number": ({"groups": ["a"] * 130, "quotas": {"a": -1}}, "at least 0, got -1"),
    "quotas without groups": ({"quotas": {"a": 1}}, "quotas .* groups"),
    "repeated ids": ({"ids": ["x"] * 130}, "'x' is repeated"),
    "no clusters": ({"n_clusters": 0}, "n_clusters must be a whole number from 1 to the 130 rows, got 0"),
    "more clusters than rows": (
        {"n_clusters": 131},
        "n_clusters must be a whole number from 1 to the 130 rows, got 131",
    ),
    "identical rows": ({"vectors": np.ones((130, 4))}, "all 130 rows point in the same direction"),
    "no rows": ({"vectors": np.ones((0, 4)), "ids": []}, "more than the 0 rows"),
    "zero row": ({"vectors": np.zeros((130, 4))}, "is all zeros"),
    "rows that are no numbers": ({"vectors": [["x"]] * 130}, "real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_clear_error(case):
    changes, message = BAD[case]
    arguments = {"vectors": ROWS, "k": 10, "ids": IDS, **changes}
    with pytest.raises(ValueError, match=message):
        select(arguments.pop("vectors"), arguments.pop("k"), **arguments)


def test_where_there_is_no_choice_identical_rows_are_no_error():
    assert sorted(select(np.ones((3, 4)), 3).indices) == [0, 1, 2] and select([[1.0, 0.0]], 1).indices.tolist() == [0]


def test_identical_rows_can_still_be_drawn():
    chosen = select(np.ones((30, 4)), 10, method="random")
    assert len(set(chosen.indices)) == 10 and chosen.metadata["g_vendi"] == pytest.approx(1)
