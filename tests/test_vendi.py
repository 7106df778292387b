"""The score against closed forms and an independent eigen-decomposition, and every way its rows may come."""

from __future__ import annotations

import math
import pickle
import tracemalloc

import datasets
import numpy as np
import pytest
import torch
from accelerate import PartialState, debug_launcher
from accelerate.utils import gather_object

from hf_prism.debiasing import debiased_vendi
from hf_prism.vectors import BLOCK_ROWS, content_hashes, id_hashes, number_blocks
from hf_prism.vendi import Covariance, contribution, g_vendi, rarefaction, vendi


ORDERS = (0.5, 1.0, 2.0, 3.0, math.inf)


def textbook_vendi(rows: np.ndarray, order: float) -> float:
    """Vendi score by singular values, with none of the library's code."""
    rows = np.asarray(rows, np.float64)
    rows = rows / np.sqrt((rows * rows).sum(1))[:, None]
    shares = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    shares = shares[shares > 1e-15]
    if order == 1:
        return math.exp(sum(-p * math.log(p) for p in shares))
    return 1 / shares[0] if order == math.inf else sum(shares**order) ** (1 / (1 - order))


def random_rows(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Rows with a falling spectrum, lengths from small to large, and names."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)) / np.arange(1, dim + 1) ** 0.5 * np.exp(rng.standard_normal((n, 1)))


@pytest.fixture
def few_rows_kept(monkeypatch):
    """Condenses already beyond 1,000 rows, in products of 50."""
    monkeypatch.setattr("hf_prism.vendi.KEEP_ROWS", 1000)
    monkeypatch.setattr("hf_prism.moments.BATCH_ROWS", 50)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n, dim", [(7, 12), (12, 7), (1500, 6)])
def test_closed_forms_hold_at_every_order(order, n, dim, few_rows_kept):
    pair = np.zeros((2 * n, dim))
    pair[:n, 0], pair[n:, 1] = 3.0, 0.5
    assert g_vendi(np.ones((n, dim)), order=order).g_vendi == pytest.approx(1, abs=1e-9)
    assert g_vendi(pair, order=order).g_vendi == pytest.approx(2, abs=1e-9)
    orthogonal = np.linalg.qr(random_rows(dim, dim))[0][: min(n, dim)]
    assert g_vendi(orthogonal, order=order).g_vendi == pytest.approx(min(n, dim), abs=1e-9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n, dim", [(30, 50), (50, 30), (1100, 20)])
def test_score_equals_an_independent_decomposition(order, n, dim, few_rows_kept):
    rows = random_rows(n, dim)
    result = g_vendi(rows, order=order)
    assert result.g_vendi == pytest.approx(textbook_vendi(rows, order), rel=1e-10)
    assert (result.n, result.dim, result.order) == (n, dim, order)
    assert result.saturation == pytest.approx(result.g_vendi / min(n, dim))
    spectrum = Covariance(dim).update(rows).spectrum()
    assert len(spectrum) == min(n, dim) and (np.diff(spectrum) <= 0).all() and spectrum.sum() == pytest.approx(1)
    assert vendi(spectrum, order) == pytest.approx(result.g_vendi, rel=1e-10)


def test_orders_between_are_continuous_and_falling():
    spectrum = Covariance(30).update(random_rows(50, 30)).spectrum()
    scores = [vendi(spectrum, order) for order in (0.01, 0.5, 1 - 1e-6, 1, 1 + 1e-6, 2, 50, 1e6, math.inf)]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] == pytest.approx(scores[4], rel=1e-4) and scores[-2] == pytest.approx(scores[-1], rel=1e-4)


@pytest.mark.parametrize("n, dim", [(40, 64), (500, 16), (3000, 16)], ids=["Gram", "kept", "condensed"])
@pytest.mark.parametrize("named", [True, False])
def test_stream_split_and_merge_agree(n, dim, named, few_rows_kept):
    rows, rng = random_rows(n, dim), np.random.default_rng(1)
    ids = [f"row-{i}" for i in range(n)]
    whole = Covariance(dim).update(rows, ids if named else None)
    order = rng.permutation(n)
    parts = [Covariance(dim) for _ in range(3)]
    cuts = np.split(order, [n // 8, n // 4])  # of unlike size, in another order, in calls of unlike size
    for i, (part, mine) in enumerate(zip(parts, cuts, strict=True)):
        for block in np.array_split(mine, 1 + 10 * i):
            part.update(rows[block], [ids[j] for j in block] if named else None)
    merged = parts[1].merge(parts[2]).merge(parts[0])
    np.testing.assert_allclose(merged.spectrum(), whole.spectrum(), atol=1e-10)
    a, b = merged.score(), whole.score()
    assert a.n == b.n == n and a.g_vendi == pytest.approx(b.g_vendi, rel=1e-10)
    np.testing.assert_allclose(a.interval, b.interval, rtol=1e-8)


@pytest.mark.parametrize("n", [30, 1500])
def test_row_order_changes_nothing_and_ids_decide_the_groups(n, few_rows_kept):
    rows = np.round(random_rows(n, 8) * 2) + [1, 0, 0, 0, 0, 0, 0, 0]  # with repeats
    rows = rows[np.abs(rows).sum(1) > 0]
    n = len(rows)
    order = np.random.default_rng(3).permutation(n)
    here, there = g_vendi(rows), g_vendi(rows[order])
    assert there.g_vendi == pytest.approx(here.g_vendi, rel=1e-10)
    np.testing.assert_allclose(here.interval, there.interval, rtol=1e-8)
    named, shuffled = g_vendi(rows, ids=range(n)), g_vendi(rows[order], ids=order)
    np.testing.assert_allclose(named.interval, shuffled.interval, rtol=1e-8)
    assert named.interval != pytest.approx(here.interval, rel=1e-6)


def test_many_equal_rows_do_not_fall_into_one_group(few_rows_kept):
    rows = np.eye(4)[np.random.default_rng(0).integers(0, 2, 3000)]
    width = np.diff(g_vendi(rows).interval)[0]
    assert width < 0.02  # one group of 1,500 equal rows would make it 20 times that


CONTAINERS = {
    "float64": lambda rows: rows,
    "float16": lambda rows: rows.astype(np.float16),
    "every second of an array": lambda rows: np.repeat(rows.astype(np.float16), 2, axis=0)[::2],
    "columns apart": lambda rows: np.asfortranarray(rows.astype(np.float32)),
    "whole numbers": lambda rows: rows.astype(np.int16),
    "list": lambda rows: rows.tolist(),
    "list of arrays": list,
    "tensor": torch.tensor,
    "float16 tensor": lambda rows: torch.tensor(rows).half(),
    "bfloat16": lambda rows: torch.tensor(rows).bfloat16(),
    "with a graph": lambda rows: torch.tensor(rows, requires_grad=True),
    "list of tensors": lambda rows: [torch.tensor(row) for row in rows],
    "dataset": lambda rows: datasets.Dataset.from_dict({"gradient": rows.tolist(), "n": list(range(len(rows)))}),
    "shuffled dataset": lambda rows: CONTAINERS["dataset"](rows).shuffle(seed=0),
    "column": lambda rows: CONTAINERS["dataset"](rows)["gradient"],
    "formatted column": lambda rows: CONTAINERS["dataset"](rows).with_format("torch")["gradient"],
    "fixed length": lambda rows: CONTAINERS["dataset"](rows).cast_column(
        "gradient", datasets.List(datasets.Value("float32"), length=rows.shape[1])
    ),
    "float16 column": lambda rows: datasets.Dataset.from_dict(
        {"gradient": rows.astype(np.float16)},
        features=datasets.Features(gradient=datasets.List(datasets.Value("float16"), length=rows.shape[1])),
    ),
    "part of a float16 column": lambda rows: CONTAINERS["float16 column"](np.concatenate([rows + 1, rows])).select(
        range(len(rows), 2 * len(rows))
    ),
    "shuffled float16 column": lambda rows: CONTAINERS["float16 column"](rows).shuffle(seed=0),
    "chunks": lambda rows: datasets.concatenate_datasets([CONTAINERS["float16 column"](r) for r in np.split(rows, 8)]),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_score(name):
    rows = np.round(random_rows(40, 16) * 4) + 1  # small whole numbers, exact in every dtype
    expected = textbook_vendi(rows, 1)
    assert g_vendi(CONTAINERS[name](rows)).g_vendi == pytest.approx(expected, rel=1e-6)


def test_every_float16_is_read_exactly():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)].reshape(-1, 64)
    read = np.concatenate([rows for _, rows in number_blocks(values)])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.view(np.uint32), values.astype(np.float32).view(np.uint32))
    for bad in (np.nan, np.inf, -np.inf):
        values[7, 3] = bad
        with pytest.raises(ValueError, match="row 7 holds NaN or infinity"):
            g_vendi(values)


def test_rows_of_different_dtype_mix(few_rows_kept):
    rows = np.round(random_rows(3000, 16) * 4) + 1
    covariance = Covariance(16).update(rows[:700].astype(np.float16)).update(rows[700:900])
    covariance.update(rows[900:2000].astype(np.float32)).update(rows[2000:].tolist())
    assert covariance.score().g_vendi == pytest.approx(textbook_vendi(rows, 1), rel=1e-10)


@pytest.mark.parametrize("n", [100, 3000])
def test_what_the_caller_does_to_its_array_afterwards_changes_nothing(n, few_rows_kept):
    rows, covariance = random_rows(n, 8).astype(np.float32), Covariance(8)
    buffer = np.empty_like(rows[:50])
    for start in range(0, n, 50):
        buffer[...] = rows[start : start + 50]
        covariance.update(buffer)
    buffer[...] = 1
    assert covariance.score().g_vendi == pytest.approx(textbook_vendi(rows, 1), rel=1e-10)


class Served:
    """Rows from elsewhere, which counts how many are asked for."""

    def __init__(self, rows):
        self.rows, self.count = rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part):
        self.count += len(self.rows[part])
        return self.rows[part]


def test_a_source_is_read_once_and_a_block_for_its_width():
    served = Served(random_rows(5000, 8))
    assert g_vendi(served).n == 5000
    assert 5000 <= served.count <= 5000 + BLOCK_ROWS


def test_a_memory_map_is_scored_in_memory_that_does_not_grow_with_it(tmp_path, few_rows_kept):
    peaks, dim = [], 128
    for n in (20_000, 60_000):
        np.save(tmp_path / f"{n}.npy", random_rows(n, dim).astype(np.float16))
        rows = np.load(tmp_path / f"{n}.npy", mmap_mode="r")
        tracemalloc.start()
        score = g_vendi(rows, ids=range(n)).g_vendi
        peaks.append(tracemalloc.get_traced_memory()[1] - 8 * n)  # less the hashes of the ids
        tracemalloc.stop()
        assert score == pytest.approx(textbook_vendi(rows, 1), rel=1e-9)
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < 60_000 * dim * 4 / 2


@pytest.mark.parametrize("dim", [6, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_content_hash_is_its_definition_in_whole_numbers(dim, dtype):
    rows = random_rows(5, dim).astype(dtype)
    words = [[int(word) for word in row.view("<u4")] for row in rows]
    pairs = (len(words[0]) + 1) // 2
    keys = [int(key) for key in np.random.Philox(key=0).random_raw(2 * pairs)]

    def defined(row: list[int], earlier: int) -> int:
        z = earlier * 0x9E3779B97F4A7C15
        for j, word in enumerate(row):
            z += word * (keys[j // 2] if j % 2 == 0 else keys[pairs + j // 2] + (keys[j // 2] << 32))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = ((z ^ (z % 2**64 >> shift)) * factor) % 2**64
        return z ^ (z >> 31)

    seen: dict[int, int] = {}
    assert content_hashes(rows, seen).tolist() == [defined(row, 0) for row in words]
    assert content_hashes(rows[3:], seen).tolist() == [defined(row, 1) for row in words[3:]]


def test_rows_that_differ_in_signs_only_get_unlike_hashes():
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 14)).reshape(14, -1).T
    for dtype in (np.float32, np.float64):
        hashes = content_hashes(signs.astype(dtype), {})
        assert len(np.unique(hashes)) == 2**14
        groups = np.bincount((hashes % 20).astype(int), minlength=20)
        assert ((groups - 2**14 / 20) ** 2).sum() / (2**14 / 20) < 43.8  # chi square, p = .001


def test_ids_of_any_container_decide_the_same_groups():
    names = [f"row-{i}" for i in range(3000)]
    column = datasets.Dataset.from_dict({"id": names})["id"]
    assert (id_hashes(names, 3000) == id_hashes(column, 3000)).all()
    assert (id_hashes(range(3000), 3000) == id_hashes(np.arange(3000), 3000)).all()
    assert (id_hashes(range(3000), 3000) == id_hashes(list(map(str, range(3000))), 3000)).all()
    names[2500] = names[10]
    with pytest.raises(ValueError, match="'row-10' is repeated, at rows 10 and 2500"):
        id_hashes(names, 3000)


@pytest.mark.parametrize("n", [50, 900, 3000])
def test_a_pickled_covariance_goes_on_as_the_same(n, few_rows_kept):
    rows = random_rows(2 * n, 8)
    copy = pickle.loads(pickle.dumps(Covariance(8, feature_id="f").update(rows[:n]))).update(rows[n:])
    whole = Covariance(8, feature_id="f").update(rows)
    assert copy.score().g_vendi == pytest.approx(textbook_vendi(rows, 1), rel=1e-10)
    np.testing.assert_allclose(copy.score().interval, whole.score().interval, rtol=1e-10)
    assert copy.feature_id == "f"


def _score_of_ranks(rows: np.ndarray, ids: list[str], path: str) -> None:
    """The recipe of docs/vendi.md."""
    state = PartialState(cpu=True)
    mine = slice(state.process_index, None, state.num_processes)
    parts = gather_object([Covariance(rows.shape[1]).update(rows[mine], ids[mine])])
    if state.is_main_process:
        assert len(parts) == 2
        merged = parts[0].merge(parts[1])
        np.savez(path, spectrum=merged.spectrum(), interval=merged.score().interval, n=merged.n)
    state.destroy_process_group()


@pytest.mark.parametrize("n", [800, 5000], ids=["kept", "condensed"])
def test_two_processes_score_as_one(n, tmp_path, few_rows_kept):
    rows, ids = random_rows(n, 12), [f"row-{i}" for i in range(n)]
    debug_launcher(_score_of_ranks, (rows, ids, str(tmp_path / "merged.npz")), num_processes=2)
    merged, whole = np.load(tmp_path / "merged.npz"), Covariance(12).update(rows, ids)
    assert merged["n"] == n
    np.testing.assert_allclose(merged["spectrum"], whole.spectrum(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(merged["interval"], whole.score().interval, rtol=1e-9)


@pytest.mark.parametrize(
    "wrap", [list, lambda rows: datasets.Dataset.from_dict({"gradient": rows})], ids=["list", "ds"]
)
def test_skipped_rows_are_left_out_and_counted(wrap):
    rows = np.round(random_rows(10, 4) * 4) + 0.5
    holes = [None, *rows[:5].tolist(), None, *rows[5:].tolist(), None]
    result = g_vendi(wrap(holes), ids=list("abcdefghijklm"))
    assert result.g_vendi == pytest.approx(textbook_vendi(rows, 1)) and result.n == 10
    assert any(note.startswith("3 rows without a gradient") for note in result.notes)


def test_another_sample_of_the_same_rows_splits_otherwise():
    """Else all samples of a few distinct rows would share one lucky or unlucky interval."""
    rng = np.random.default_rng(0)
    widths = [np.diff(g_vendi(np.eye(4)[rng.choice(3, 2000, p=[0.6, 0.3, 0.1])]).interval)[0] for _ in range(20)]
    assert 0.1 < np.std(widths) / np.mean(widths) < 0.3  # a t interval with 19 degrees of freedom: 0.16


def test_one_row_scores_one_without_an_interval():
    result = g_vendi([[3.0, 4.0]])
    assert (result.g_vendi, result.interval, result.n) == (1.0, None, 1)
    assert any("one row scores 1.0" in note for note in result.notes)


def test_result_is_plain_json_with_the_frozen_keys():
    keys = ["g_vendi", "g_vendi_debiased", "interval", "order", "n", "dim", "saturation", "feature_id"]
    rows = np.random.default_rng(0).standard_normal((800, 64)) / np.arange(1, 65) ** 1.5
    result = g_vendi(rows, feature_id="f").as_dict()
    assert list(result) == keys
    assert {type(value) for value in result.values()} <= {float, int, str, list}
    assert list(g_vendi(rows[:1]).as_dict()) == [*keys, "notes"]


def test_notes_say_what_limits_the_score():
    few = g_vendi(random_rows(10, 100)).notes
    assert any("n = 10 limits the score" in note for note in few)
    wide = g_vendi(np.random.default_rng(0).standard_normal((2000, 20))).notes
    assert any("dim = 20 limits the score" in note for note in wide)
    assert any("same direction" in note for note in g_vendi(np.ones((5, 3))).notes)


def test_tiny_and_huge_rows_count_by_direction_only():
    rows = random_rows(20, 5)
    scale = np.logspace(-250, 250, 20)[:, None]
    assert g_vendi(rows * scale).g_vendi == pytest.approx(textbook_vendi(rows, 1), rel=1e-10)
    narrow = (rows * np.logspace(-35, 35, 20)[:, None]).astype(np.float32)
    assert g_vendi(narrow).g_vendi == pytest.approx(textbook_vendi(narrow, 1), rel=1e-10)


@pytest.mark.parametrize("n, dim", [(20, 40), (200, 10)])
def test_contributions_average_to_the_entropy(n, dim):
    rows = random_rows(n, dim)
    parts = contribution(rows)
    assert parts.shape == (n,) and (parts >= 0).all()
    assert parts.mean() == pytest.approx(math.log(textbook_vendi(rows, 1)), abs=1e-10)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values, basis = np.linalg.eigh(unit.T @ unit / n)
    logarithm = basis @ np.diag(np.log(np.where(values > 1e-12, values, 1))) @ basis.T
    np.testing.assert_allclose(parts, -np.einsum("na,ab,nb->n", unit, logarithm, unit), atol=1e-8)


def test_rarefaction_is_the_expected_score_of_fewer_rows():
    rows = random_rows(400, 12)
    curve = rarefaction(rows, [20, 100, 400], repeats=40)
    rng = np.random.default_rng(5)
    for size, mean, error in zip(curve.sizes[:2], curve.means, curve.errors, strict=False):
        fresh = [textbook_vendi(rows[rng.choice(400, size, replace=False)], 1) for _ in range(400)]
        assert abs(mean - np.mean(fresh)) < 5 * error and 0 < error < 0.1
    assert curve.means[2] == pytest.approx(textbook_vendi(rows, 1)) and curve.errors[2] == 0
    again = rarefaction(rows[::-1], [20, 100, 400], repeats=40)
    np.testing.assert_allclose(again.means, curve.means, rtol=1e-10)
    assert not np.allclose(rarefaction(rows, [20], repeats=40, seed=1).means, curve.means[0])
    assert len(rarefaction(rows).sizes) == 8 and rarefaction(rows).sizes[-1] == 400


# How rows are drawn, n, and the least and greatest share of 300 intervals that hold the expected score. In the first
# the plain jackknife covers .99, in the last .84; an interval half as wide covers under .75 in all three.
COVERAGE = {
    "degenerate": (lambda n, r: r.standard_normal((n, 8)), 300, 0.92, 0.985),
    "regular": (lambda n, r: r.standard_normal((n, 16)) / np.arange(1, 17), 200, 0.92, 0.985),
    "two groups": (lambda n, r: np.eye(4)[r.integers(0, 2, n)], 100, 0.97, 1.0),
}


@pytest.mark.parametrize("name", COVERAGE)
def test_interval_covers_the_expected_score(name):
    draw, n, least, greatest = COVERAGE[name]
    rng = np.random.default_rng(7)
    expected = np.mean([textbook_vendi(draw(n, rng), 1) for _ in range(1500)])
    inside = [low <= expected <= high for low, high in (g_vendi(draw(n, rng)).interval for _ in range(300))]
    assert least <= np.mean(inside) <= greatest


@pytest.mark.parametrize("order", ORDERS)
def test_interval_holds_the_score_and_stays_in_range(order, few_rows_kept):
    for n, dim in [(2, 5), (3, 5), (25, 100), (2000, 3)]:
        result = g_vendi(random_rows(n, dim), order=order)
        low, high = result.interval
        assert 1 <= low <= result.g_vendi <= high <= min(n, dim) + 1e-9


def test_debiased_estimate_is_that_of_the_spectrum():
    covariance = Covariance(128).update(np.random.default_rng(0).standard_normal((100, 128)))
    for order in (0.5, 1, 2):
        expected, _ = debiased_vendi(covariance.spectrum(), 100, 128, order)
        assert covariance.score(order).g_vendi_debiased == pytest.approx(expected, rel=1e-9)


GOOD = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
BAD = [
    ("no rows", lambda: g_vendi([]), ["at least one row"]),
    ("no rows left", lambda: g_vendi([None, None]), ["among 2 rows"]),
    ("nothing added", lambda: Covariance(4).score(), ["at least one row"]),
    ("NaN", lambda: g_vendi([*GOOD, [math.nan, 1]]), ["row 3", "NaN", "float32"]),
    ("infinity", lambda: g_vendi([[math.inf, 1], *GOOD]), ["row 0", "infinity"]),
    ("zero", lambda: g_vendi([GOOD[0], [0, 0]]), ["row 1", "zeros"]),
    ("bad row with id", lambda: g_vendi([GOOD[0], None, [0, 0]], ids=["a", "b", "c"]), ["row 2", "'c'"]),
    ("far down", lambda: g_vendi(np.r_[np.ones((9000, 2)), [[0, 0]]]), ["row 9000"]),
    ("one vector", lambda: g_vendi([1.0, 2.0]), ["row 0", "shape ()"]),
    ("one array", lambda: g_vendi(np.ones(3)), ["(n, d)", "(3,)"]),
    ("ragged", lambda: g_vendi([[1, 2], [1, 2, 3]]), ["row 1", "(3,)", "(2,)"]),
    ("ragged column", lambda: g_vendi(datasets.Dataset.from_dict({"gradient": [[1.0], [1.0, 2.0]]})), ["row 1", "2"]),
    ("not numbers", lambda: g_vendi([["a", "b"]]), ["real numbers"]),
    ("no column", lambda: g_vendi(datasets.Dataset.from_dict({"x": [[1.0]]})), ["'gradient'", "['x']"]),
    ("other width", lambda: Covariance(3).update(GOOD), ["2 numbers", "3"]),
    ("merge dim", lambda: Covariance(3).merge(Covariance(2)), ["dim", "3 here, 2 there"]),
    (
        "merge id",
        lambda: Covariance(2, feature_id="a").merge(Covariance(2, feature_id="b")),
        ["feature_id", "'a' here, 'b' there"],
    ),
    ("repeated ids", lambda: g_vendi(GOOD, ids=["x", "y", "x"]), ["'x'", "rows 0 and 2"]),
    ("missing ids", lambda: g_vendi(GOOD, ids=["x"]), ["1 ids for 3 rows"]),
    ("order 0", lambda: g_vendi(GOOD, order=0), ["order 0", "0.5, 1, 2 or inf"]),
    ("order NaN", lambda: Covariance(2).update(GOOD).score(math.nan), ["order nan"]),
    ("dim 0", lambda: Covariance(0), ["at least 1"]),
    ("negative spectrum", lambda: vendi([0.5, -0.1]), ["at or above 0"]),
    ("size over n", lambda: rarefaction(GOOD, [4]), ["n = 3", "4"]),
    ("one repeat", lambda: rarefaction(GOOD, [2], repeats=1), ["repeats"]),
]


@pytest.mark.parametrize("call, said", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert [part for part in said if part not in str(error.value)] == []
