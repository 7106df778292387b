"""What `compare` says, against NumPy and by hand: matched rows, paired intervals, mixtures, and words that claim no more."""

from __future__ import annotations

import json
import math

import datasets
import numpy as np
import pytest

from hf_prism.comparison import compare
from hf_prism.origin import Origin
from hf_prism.paired import PairedScores, Ratio
from hf_prism.vendi import g_vendi


def random_rows(n: int, dim: int = 16, power: float = 0.5, seed: int = 0) -> np.ndarray:
    """Unit rows whose spectrum falls as rank^-power."""
    rows = np.random.default_rng(seed).standard_normal((n, dim)) / np.arange(1, dim + 1) ** power
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def textbook_entropy(rows: np.ndarray) -> float:
    """Log Vendi score by singular values, with none of the library's code."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.sqrt((rows * rows).sum(1))[:, None]
    shares = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    return sum(-p * math.log(p) for p in shares if p > 1e-15)


def features(rows: np.ndarray, ids: list, origin: Origin | None = None) -> datasets.Dataset:
    made = datasets.Dataset.from_dict({"id": ids, "gradient": rows.tolist()})
    return origin.stamp(made) if origin else made


def bounds(ratio: Ratio) -> tuple[float, float]:
    assert ratio.interval is not None
    return ratio.interval


# ---- matched rows and shared rows -----------------------------------------------------------------------------------


def test_every_score_is_of_n_rows_of_its_dataset():
    sets = {"small": random_rows(40), "large": random_rows(150, seed=1), "middle": random_rows(90, seed=2)}
    result = compare(sets)
    assert result.n == 40 and {score.n for score in result.scores.values()} == {40}
    assert result.sizes == {"small": 40, "large": 150, "middle": 90}
    assert result.scores["small"].g_vendi == pytest.approx(math.exp(textbook_entropy(sets["small"])))
    assert [(pair.a, pair.b) for pair in result.pairs] == [
        ("small", "large"),
        ("small", "middle"),
        ("large", "middle"),
    ]


def test_matched_rows_are_those_of_the_dataset_and_depend_on_the_seed():
    one_hot = np.eye(100)  # the score of k of these rows is k; of repeats it is less
    result = compare({"few": np.eye(100)[:30], "many": np.repeat(one_hot, 2, axis=0)})
    assert result.scores["few"].g_vendi == pytest.approx(30)
    assert result.scores["many"].g_vendi < 30  # 30 of 200 rows, some of them twice
    many = random_rows(200)
    scores = {compare({"a": many[:20], "b": many}, seed=seed).scores["b"].g_vendi for seed in range(4)}
    assert len(scores) == 4


def test_rows_in_both_are_kept_or_left_out_alike():
    rows, ids = random_rows(120), [f"row {i}" for i in range(120)]
    result = compare({"a": rows, "b": rows[::-1], "c": rows[:50]}, ids={"a": ids, "b": ids[::-1], "c": ids[:50]})
    assert result.pairs[0].shared == result.n == 50
    assert result.scores["a"].g_vendi == pytest.approx(result.scores["b"].g_vendi, rel=1e-12)
    assert 5 < result.pairs[1].shared < 50  # 50 of the 120 rows of a, among them some 21 of c


def test_order_of_rows_and_ids_and_the_container_change_nothing():
    a, b = random_rows(60), random_rows(90, seed=1)
    ids_a, ids_b = [f"{i}" for i in range(60)], [f"{i}" for i in range(30, 120)]
    b[:30] = a[30:]
    one = compare({"a": a, "b": b}, ids={"a": ids_a, "b": ids_b})
    order = np.random.default_rng(0).permutation(90)
    other = compare(
        {"a": features(a, ids_a), "b": list(b[order])}, ids={"b": [ids_b[i] for i in order]}
    )  # a's ids are its column
    assert other.pairs[0].shared > 0
    assert json.dumps(one.as_dict()) == json.dumps(other.as_dict())
    unnamed = [compare({"a": a[::step], "b": b[::step]}).as_dict() for step in (1, -1)]
    assert json.dumps(unnamed[0]) == json.dumps(unnamed[1])


def test_equal_ids_of_unlike_vectors_are_not_the_same_row():
    a, b = random_rows(60), random_rows(60, seed=1)
    b[:20] = a[:20] + 1e-3  # the same row, computed once more
    numbers = list(range(60))
    pair = compare({"a": a, "b": b}, ids={"a": numbers, "b": numbers}).pairs[0]
    assert pair.shared == 20 and pair.union_n == 100
    assert any("40 ids of a and b are equal where the vectors are not" in note for note in pair.notes)


def test_without_ids_equal_rows_are_shared_as_often_as_both_have_them():
    rows = random_rows(30)
    a, b = (
        np.concatenate([rows, rows[:10], rows[:10]]),
        np.concatenate([rows[:20], rows[:10], random_rows(20, seed=1)]),
    )
    pair = compare({"a": a, "b": 4 * b}).pairs[0]  # length does not count
    assert pair.shared == 30 and pair.union_n == 70
    assert pair.union_g_vendi == pytest.approx(math.exp(textbook_entropy(np.concatenate([a, b[30:]]))))


def test_rows_without_a_gradient_are_left_out_with_their_ids():
    rows = random_rows(50)
    holes = [None if i % 5 == 0 else row for i, row in enumerate(rows)]
    kept = [i for i in range(50) if i % 5]
    result = compare({"a": holes, "b": rows[kept]}, ids={"a": range(50), "b": kept})
    assert result.n == result.pairs[0].shared == 40
    assert any("a: 10 rows without a gradient" in note for note in result.notes)


# ---- the ratio and its interval -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_a_dataset_against_itself_is_exactly_one(order):
    rows = random_rows(70)
    pair = compare({"a": rows, "b": rows[::-1].copy()}, order=order).pairs[0]
    for ratio in (pair.ratio, pair.mixture.over_a, pair.mixture.over_b):
        assert (ratio.value, ratio.interval) == (1.0, (1.0, 1.0))
    assert pair.verdict == "a and b are identical: the same 70 rows."
    assert pair.union_n == 70


@pytest.mark.parametrize("n, dim", [(60, 12), (45, 64)], ids=["moments", "Gram"])
def test_swapping_inverts_the_ratio_and_its_interval(n, dim):
    a, b = random_rows(n, dim), random_rows(n, dim, power=1.0, seed=1)
    b[: n // 3] = a[: n // 3]
    one, other = compare({"a": a, "b": b}).pairs[0], compare({"b": b, "a": a}).pairs[0]
    assert other.ratio.value == pytest.approx(1 / one.ratio.value, rel=1e-10)
    low, high = bounds(one.ratio)
    assert bounds(other.ratio) == pytest.approx((1 / high, 1 / low), rel=1e-8)
    assert other.mixture.g_vendi == pytest.approx(one.mixture.g_vendi, rel=1e-10)
    assert bounds(other.mixture.over_b) == pytest.approx(bounds(one.mixture.over_a), rel=1e-8)
    assert other.mixture.overlap_interval == pytest.approx(one.mixture.overlap_interval, rel=1e-6)
    assert other.verdict == one.verdict and "a is more diverse than b" in one.verdict


@pytest.mark.parametrize("n, dim", [(100, 16), (60, 80)], ids=["moments", "Gram"])
def test_the_interval_is_that_of_a_brute_force_paired_jackknife(n, dim):
    a, b = random_rows(n, dim), random_rows(n, dim, power=0.6, seed=1)
    b[::2] = a[::2]
    ratio = PairedScores(np.concatenate([a, b]), np.arange(n), n + np.arange(n)).unchecked_ratio()
    value = textbook_entropy(a) - textbook_entropy(b)
    pseudo = []
    for group in range(20):
        keep = np.arange(n) % 20 != group
        pseudo.append(20 * value - 19 * (textbook_entropy(a[keep]) - textbook_entropy(b[keep])))
    half = 2.093 * np.std(pseudo, ddof=1) / math.sqrt(20)  # the formula of equal groups, t with 19 degrees of freedom
    assert ratio.value == pytest.approx(math.exp(value))
    assert np.log(bounds(ratio)) == pytest.approx([value - half, value + half], rel=1e-8)


def test_pairing_narrows_the_interval_where_rows_are_shared():
    rows, other = random_rows(200, 16), random_rows(200, 16, seed=1)
    a, b = rows[:150], np.concatenate([rows[:135], other[:15]])
    shared = compare({"a": a, "b": b}, ids={"a": range(150), "b": range(150)}).pairs[0]
    strangers = compare({"a": a, "b": b}, ids={"a": range(150), "b": range(1000, 1150)}).pairs[0]
    assert shared.shared == 135 and strangers.shared == 0
    width = [np.diff(np.log(bounds(pair.ratio)))[0] for pair in (shared, strangers)]
    assert width[0] < 0.5 * width[1]


def test_a_difference_that_exchanges_make_as_often_is_not_claimed():
    rng, n = np.random.default_rng(0), 50
    refused = 0
    for number in range(250):
        rows = np.eye(21)[rng.choice(21, 2 * n, p=[0.9, *[0.005] * 20])]  # rare kinds, of which a sample may hold none
        paired = PairedScores(rows, np.arange(n), n + np.arange(n), seed=number)
        if not paired.unchecked_ratio().direction:
            continue
        found = abs(textbook_entropy(rows[:n]) - textbook_entropy(rows[n:]))
        swaps = rng.random((300, n, 1)) < 0.5
        pairs = [(np.where(swap, rows[n:], rows[:n]), np.where(swap, rows[:n], rows[n:])) for swap in swaps]
        others = [abs(textbook_entropy(one) - textbook_entropy(other)) for one, other in pairs]
        as_large = np.mean(np.array(others) >= found - 1e-9)
        claimed = paired.ratio().direction != 0
        assert (as_large < 0.16) if claimed else (as_large > 0.005)  # 39 exchanges estimate it, as 300 do
        low, high = bounds(paired.ratio())
        assert claimed or 1 in (low, high)
        refused += not claimed
    assert refused >= 2


def test_two_samples_of_one_population_are_seldom_called_different():
    rng, repeats, claims = np.random.default_rng(5), 300, 0
    scale = np.arange(1, 17) ** -0.5
    for number in range(repeats):
        rows = rng.standard_normal((120, 16)) * scale
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        paired = PairedScores(rows, np.arange(60), 60 + np.arange(60), seed=number)
        claims += paired.ratio().direction != 0
    assert claims <= 25  # 5 % are 15; more than 25 have a probability of .004


def test_a_narrower_population_is_found():
    found = sum(
        compare({"wide": random_rows(150, seed=s), "narrow": random_rows(150, power=0.8, seed=100 + s)})
        .pairs[0]
        .verdict.startswith("wide is more diverse than narrow: ")
        for s in range(5)
    )
    assert found == 5


# ---- what one adds to the other -------------------------------------------------------------------------------------


def test_the_mixture_is_half_of_each_with_shared_rows_once():
    directions = np.eye(80)
    a, b = directions[:40], np.concatenate([directions[:20], directions[40:60]])  # half of the rows in both
    pair = compare({"a": a, "b": b}).pairs[0]
    assert pair.shared == 20
    assert pair.mixture.g_vendi == pytest.approx(40)  # no row twice
    assert pair.mixture.over_a.value == pytest.approx(1) and pair.union_g_vendi == pytest.approx(60)


@pytest.mark.parametrize("n, dim", [(60, 12), (45, 64)], ids=["moments", "Gram"])
def test_the_mixture_score_is_that_of_an_independent_decomposition(n, dim):
    a, b = random_rows(n, dim), random_rows(n, dim, power=1.0, seed=1)
    mixture, _ = PairedScores(np.concatenate([a, b]), np.arange(n), n + np.arange(n)).mixture()
    taken = np.array([(position // 20 + position) % 2 == 0 for position in range(n)])
    mixtures = [np.concatenate([a[taken], b[~taken]]), np.concatenate([a[~taken], b[taken]])]
    mean = np.mean([textbook_entropy(rows) for rows in mixtures])
    assert mixture.g_vendi == pytest.approx(math.exp(mean), rel=1e-9)
    assert mixture.over_b.value == pytest.approx(math.exp(mean - textbook_entropy(b)), rel=1e-9)


def test_overlap_is_one_for_the_same_kind_of_rows_and_zero_for_directions_apart():
    def blocks(seed: int, at: int) -> np.ndarray:
        return np.pad(random_rows(200, 8, seed=seed), ((0, 0), (at, 16 - at)))

    same = compare({"a": blocks(0, 0), "b": blocks(1, 0)}).pairs[0].mixture
    apart = compare({"a": blocks(0, 0), "b": blocks(1, 8)}).pairs[0].mixture
    between = compare({"a": blocks(0, 0), "b": np.concatenate([blocks(1, 0)[:100], blocks(2, 8)[:100]])})
    assert same.overlap == pytest.approx(1, abs=0.02) and (same.overlap_interval or (0, 0))[1] == 1
    assert apart.overlap == pytest.approx(0, abs=1e-9)
    assert apart.over_a.direction == apart.over_b.direction == 1
    assert apart.over_a.value == pytest.approx(2, rel=0.05)
    assert 0.2 < (between.pairs[0].mixture.overlap or 0) < 0.9


def test_overlap_is_not_told_where_every_row_is_its_own_direction_or_for_other_orders():
    apart = compare({"a": np.eye(60)[:30], "b": np.eye(60)[30:]}).pairs[0]
    assert apart.mixture.overlap is None and any("too few rows" in note for note in apart.notes)
    second = compare({"a": random_rows(40), "b": random_rows(40, seed=1)}, order=2).pairs[0]
    assert second.mixture.overlap is None and any("order 1" in note for note in second.notes)


# ---- rarefaction, words and JSON ------------------------------------------------------------------------------------


def test_rarefaction_goes_to_the_matched_size_and_on_to_all_rows():
    small, large = random_rows(64), random_rows(300, seed=1)
    curves = compare({"small": small, "large": large}).rarefactions
    assert curves["small"].sizes.tolist() == [16, 32, 64]
    assert curves["large"].sizes.tolist() == [16, 32, 64, 128, 256, 300]
    assert curves["large"].means[-1] == pytest.approx(math.exp(textbook_entropy(large)))
    assert (np.diff(curves["large"].means[:-1]) > 0).all()


def test_the_verdict_claims_no_more_than_the_interval():
    wide, narrow = random_rows(150), random_rows(150, power=1.0, seed=1)
    for sets in ({"wide": wide, "narrow": narrow}, {"narrow": narrow, "wide": wide}):
        pair = compare(sets).pairs[0]
        assert pair.verdict.startswith("wide is more diverse than narrow: ") and pair.verdict.endswith(
            "150 rows each."
        )
    same = compare({"a": random_rows(150), "b": random_rows(150, seed=3)}).pairs[0]
    low, high = bounds(same.ratio)
    assert low < 1 < high and same.verdict == (
        f"no difference shown: a is between {low:.2f} and {high:.2f} times as diverse as b at 150 rows each."
    )


def test_too_few_rows_have_no_interval_and_a_note_says_so():
    result = compare({"a": random_rows(19), "b": random_rows(30, power=3.0, seed=1)})
    pair = result.pairs[0]
    assert pair.ratio.interval is None and pair.mixture.over_a.interval is None
    assert pair.verdict == "too few rows to tell a and b apart: 19 each."
    assert any("n = 19 is too small for intervals" in note for note in result.notes)
    small = compare({"a": random_rows(20), "b": random_rows(20, seed=1)})
    assert small.pairs[0].ratio.interval is not None and any("n = 20 is small" in note for note in small.notes)
    single = compare({"a": random_rows(1), "b": random_rows(1, seed=1)})
    assert single.pairs[0].ratio.value == pytest.approx(1)


def test_notes_say_what_makes_numbers_incomparable():
    known = Origin("f" * 8, {"seed": 0})
    a = features(random_rows(50), list(range(50)), known)
    result = compare({"a": a, "b": random_rows(150, 16, power=0.0, seed=1), "c": random_rows(60, seed=2)})
    said = "\n".join(result.notes)
    assert result.feature_id == "f" * 8
    assert "b: 100 of 150 rows are left aside" in said and "c: 10 of" not in said
    assert "the feature_id of b and c is unknown" in said
    assert "each interval is for its pair alone" in said
    assert "n = 50 limits the score of" in said
    assert "dim = 16 limits the score of" in said
    assert "the ids of b and c are unknown" in said
    steep = features(random_rows(100, power=2.0), list(range(100)), known)
    assert not compare({"a": steep, "b": steep.select(range(60))}).notes


@pytest.mark.parametrize("order", [1.0, math.inf])
def test_as_dict_is_plain_json_with_the_frozen_keys_of_a_score(order):
    result = compare({"a": random_rows(50), "b": random_rows(120, seed=1), "c": random_rows(50)}, order=order)
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["order"] == plain["scores"]["a"]["order"] == ("inf" if math.isinf(order) else 1.0)
    frozen = {"g_vendi", "g_vendi_debiased", "interval", "order", "n", "dim", "saturation", "feature_id"}
    assert frozen <= set(plain["scores"]["b"])
    assert [(pair["a"], pair["b"]) for pair in plain["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert plain["pairs"][0]["ratio"]["value"] == result.pairs[0].ratio.value
    assert plain["pairs"][0]["mixture"]["over_a"]["interval"] == list(bounds(result.pairs[0].mixture.over_a))
    assert plain["rarefactions"]["b"]["sizes"][-1] == 120


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "ids", "message"),
    [
        ({"a": random_rows(5)}, None, r"1 dataset given \(a\)"),
        ({"a": random_rows(5), "b": random_rows(5, 8)}, None, r"'a' have 16 numbers a row, those of 'b' 8"),
        ({"a": random_rows(5), "b": [None, None]}, None, r"dataset 'b': no gradient vectors among 2 rows"),
        ({"a": random_rows(5), "b": np.zeros((3, 16))}, None, r"dataset 'b': row 0 is all zeros"),
        ({"a": random_rows(5), "b": random_rows(5)}, {"c": range(5)}, r"ids are given for 'c'"),
        ({"a": random_rows(5), "b": random_rows(5)}, {"a": range(5), "b": [1] * 5}, r"dataset 'b': id 1 is repeated"),
    ],
)
def test_bad_input_names_the_dataset_and_the_fix(sets, ids, message):
    with pytest.raises(ValueError, match=message):
        compare(sets, ids=ids)


def test_features_of_two_featurizers_do_not_compare():
    a = features(random_rows(5), list(range(5)), Origin("one", {"seed": 0, "dtype": "float32"}))
    b = features(random_rows(5), list(range(5)), Origin("two", {"seed": 1, "dtype": "float32"}))
    with pytest.raises(ValueError, match=r"'a' and 'b' do not compare.*seed: 0 and 1"):
        compare({"a": a, "b": b})


def test_an_order_that_is_none_is_refused():
    with pytest.raises(ValueError, match="order 0"):
        compare({"a": random_rows(5), "b": random_rows(5)}, order=0)


def test_the_score_at_full_size_is_that_of_the_dataset_alone():
    rows, ids = random_rows(60), [f"r{i}" for i in range(60)]
    score = compare(
        {"a": features(rows, ids), "b": features(random_rows(80, seed=1), ids + list("abcdefghijklmnopqrst"))}
    )
    alone = g_vendi(rows, ids=ids)
    assert score.scores["a"].g_vendi == pytest.approx(alone.g_vendi, rel=1e-12)
    assert score.scores["a"].interval == pytest.approx(alone.interval, rel=1e-9)
