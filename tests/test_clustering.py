"""Labels and centres are exact: the same for any block, thread, process, precision and row order, and as plain NumPy's."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate import PartialState, debug_launcher
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from hf_prism import SphericalKMeans, clustering, nearest
from hf_prism.nearest import Centers, Nearest


def mixture(n: int, dim: int, kinds: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around random directions, of which a few are common and most are rare; float32, of various lengths."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, kinds + 1)
    kind = rng.choice(kinds, n, p=shares / shares.sum())
    rows = rng.standard_normal((kinds, dim))[kind] + noise * rng.standard_normal((n, dim))
    return (rows * rng.uniform(0.1, 10, (n, 1))).astype(np.float32), kind


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plain_scores(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ centers.astype(np.float64).T


def plain_lloyd(rows: np.ndarray, centers: np.ndarray, updates: int) -> tuple[np.ndarray, np.ndarray]:
    """The textbook, without any of the library; no cluster may run empty."""
    for _ in range(updates):
        labels = plain_scores(rows, centers).argmax(axis=1)
        assert (np.bincount(labels, minlength=len(centers)) > 0).all()
        centers = unit(np.stack([rows[labels == c].sum(axis=0, dtype=np.float64) for c in range(len(centers))]))
    return plain_scores(rows, centers).argmax(axis=1), centers


def lloyd(rows: np.ndarray, centers: np.ndarray) -> clustering._Lloyd:
    """The state of a fit with given first centres."""
    ranks = clustering._Ranks(None, torch.device("cpu"))
    state = clustering._Lloyd(torch.from_numpy(rows), np.arange(len(rows)), len(rows), ranks)
    state.centers = torch.from_numpy(centers)
    state.nearest.add(Centers(state.centers))
    return state


def assert_same(kmeans: SphericalKMeans, other: SphericalKMeans) -> None:
    np.testing.assert_array_equal(kmeans.labels_, other.labels_)
    np.testing.assert_array_equal(kmeans.cluster_centers_, other.cluster_centers_)
    assert kmeans.mean_cosine_ == other.mean_cosine_ and kmeans.n_iter_ == other.n_iter_


@pytest.fixture
def bfloat16(monkeypatch):
    """Compares in bfloat16 also where the hardware is slow at it."""
    monkeypatch.setattr(nearest, "fast_dtype", lambda device: torch.bfloat16)


# ---- what is fitted ---------------------------------------------------------------------------------------------------


def test_attributes_agree_with_each_other_and_with_numpy(bfloat16):
    rows, _ = mixture(1500, 48, 200)
    kmeans = SphericalKMeans(150).fit(rows)
    scores = plain_scores(unit(rows), kmeans.cluster_centers_)
    np.testing.assert_array_equal(kmeans.labels_, scores.argmax(axis=1))
    np.testing.assert_array_equal(kmeans.predict(rows), kmeans.labels_)
    np.testing.assert_array_equal(kmeans.cluster_sizes_, np.bincount(kmeans.labels_, minlength=150))
    np.testing.assert_allclose(np.linalg.norm(kmeans.cluster_centers_, axis=1), 1, rtol=1e-6)
    assert kmeans.mean_cosine_ == pytest.approx(scores.max(axis=1).mean(), abs=1e-10)
    assert kmeans.labels_.dtype == kmeans.cluster_sizes_.dtype == np.int64
    assert kmeans.cluster_centers_.dtype == np.float32 and kmeans.cluster_sizes_.min() > 0


@pytest.mark.parametrize("updates", [1, 3, 10])
def test_it_is_textbook_lloyd_from_the_same_start(bfloat16, updates):
    rows, _ = mixture(3000, 32, 40, noise=2)
    rows = unit(rows)
    state = lloyd(rows, rows[:60].copy())
    done = state.run(updates, 0.0)
    labels, centers = plain_lloyd(rows, rows[:60], done)
    np.testing.assert_array_equal(state.nearest.labels.numpy(), labels)
    np.testing.assert_allclose(state.centers.numpy(), centers, atol=2e-7)
    assert done == updates  # not converged: every update was compared


def test_clear_clusters_are_found():
    rows, kind = mixture(2000, 64, 30, noise=0.3)
    kmeans = SphericalKMeans(30).fit(rows)
    assert adjusted_rand_score(kind, kmeans.labels_) > 0.97


@pytest.mark.parametrize("kinds", [50, 1000])
def test_the_objective_is_no_worse_than_scikit_learn_s_started_one_by_one(kinds):
    rows = unit(mixture(1500, 48, kinds)[0])
    ours = np.mean([SphericalKMeans(100, seed=seed).fit(rows).mean_cosine_ for seed in range(3)])

    def reference(seed: int) -> float:
        rng, chosen = np.random.default_rng(seed), [seed]
        for _ in range(99):  # k-means++ as published: one draw after the other
            far = 1 - plain_scores(rows, rows[chosen]).max(axis=1).clip(max=1)
            chosen.append(int(rng.choice(len(rows), p=far / far.sum())))
        peer = KMeans(100, init=rows[chosen], n_init=1, max_iter=20).fit(rows)
        return plain_scores(rows, unit(peer.cluster_centers_)).max(axis=1).mean()

    assert ours > 0.998 * np.mean([reference(seed) for seed in range(3)])


def test_it_stops_when_nothing_changes_or_little_is_gained():
    rows, _ = mixture(800, 24, 60)
    fixed = SphericalKMeans(40, max_iter=1000).fit(rows)
    assert 2 < fixed.n_iter_ < 100
    assert_same(fixed, SphericalKMeans(40, max_iter=fixed.n_iter_).fit(rows))
    early = SphericalKMeans(40, max_iter=1000, tol=1e-2).fit(rows)
    assert early.n_iter_ < fixed.n_iter_ and early.mean_cosine_ > fixed.mean_cosine_ - 0.02
    np.testing.assert_array_equal(early.predict(rows), early.labels_)


# ---- what does not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 5), (333, 50, 64), (10_000, 10_000, 10_000)])
def test_block_sizes_change_no_bit(bfloat16, monkeypatch, sizes):
    rows, _ = mixture(600, 33, 90, noise=2)
    kmeans = SphericalKMeans(70).fit(rows)
    rows_at_a_time, pairs, group = sizes
    monkeypatch.setitem(nearest.ROWS_AT_A_TIME, "cpu", rows_at_a_time)
    monkeypatch.setitem(nearest.PAIRS_AT_A_TIME, "cpu", pairs)
    monkeypatch.setattr(nearest, "GROUP", group)
    monkeypatch.setattr(clustering, "CLUSTERS_AT_A_TIME", group)
    blocked = SphericalKMeans(70).fit(rows)
    assert_same(kmeans, blocked)
    np.testing.assert_array_equal(blocked.predict(rows), kmeans.labels_)


def test_precision_of_the_products_and_number_of_threads_change_no_bit(monkeypatch):
    rows, _ = mixture(1500, 64, 300, noise=2)
    fits = []
    for dtype, threads in ((torch.bfloat16, 1), (torch.float32, 1), (torch.bfloat16, 2), (torch.float64, 2)):
        monkeypatch.setattr(nearest, "fast_dtype", lambda device, dtype=dtype: dtype)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        fits.append(SphericalKMeans(200).fit(rows))
        torch.set_num_threads(before)
    for other in fits[1:]:
        assert_same(fits[0], other)


def test_with_ids_the_order_of_the_rows_changes_no_bit():
    rows, _ = mixture(700, 32, 100)
    ids = [f"row-{i}" for i in range(700)]
    kmeans = SphericalKMeans(80).fit(rows, ids)
    shuffled = np.random.default_rng(1).permutation(700)
    other = SphericalKMeans(80).fit(rows[shuffled], [ids[i] for i in shuffled])
    np.testing.assert_array_equal(other.labels_, kmeans.labels_[shuffled])
    np.testing.assert_array_equal(other.cluster_centers_, kmeans.cluster_centers_)
    assert (SphericalKMeans(80, seed=1).fit(rows, ids).labels_ != kmeans.labels_).any()


def test_lengths_and_containers_of_the_rows_do_not_matter():
    rows = mixture(300, 16, 40)[0].astype(np.float16).astype(np.float32)
    kmeans = SphericalKMeans(20).fit(rows)
    column = datasets.Dataset.from_dict({"gradient": rows.tolist()})
    for other in (rows.astype(np.float16), 4 * rows, torch.from_numpy(rows), rows.tolist(), column):
        assert_same(SphericalKMeans(20).fit(other), kmeans)
    torch_rows = torch.from_numpy(rows).bfloat16()
    assert_same(SphericalKMeans(20).fit(torch_rows), SphericalKMeans(20).fit(torch_rows.float()))


def test_skipped_rows_have_no_label():
    rows = mixture(60, 8, 10)[0]
    holes = [None, *rows[:20].tolist(), None, *rows[20:].tolist()]
    kmeans, whole = SphericalKMeans(5).fit(holes), SphericalKMeans(5).fit(rows)
    kept = [i for i, row in enumerate(holes) if row is not None]
    np.testing.assert_array_equal(kmeans.labels_[kept], whole.labels_)
    assert kmeans.labels_[0] == kmeans.labels_[21] == -1 and kmeans.cluster_sizes_.sum() == 60
    np.testing.assert_array_equal(kmeans.predict(holes), kmeans.labels_)


@pytest.mark.cuda
def test_cuda_changes_no_bit():
    rows, _ = mixture(20_000, 256, 3000, noise=2)
    assert_same(SphericalKMeans(2000, device="cuda").fit(rows), SphericalKMeans(2000, device="cpu").fit(rows))


# ---- near ties --------------------------------------------------------------------------------------------------------


def near_ties(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and centres that bfloat16 cannot tell apart."""
    rng = np.random.default_rng(0)
    rows, direction = unit(rng.standard_normal((400, 64))), unit(rng.standard_normal((1, 64)))
    if kind == "pairs":  # each centre has a twin that differs in the fourth digit
        centers = rows[:100] + 0.3 * rng.standard_normal((100, 64))
        return rows, unit(np.concatenate([centers, centers + 1e-4 * rng.standard_normal(centers.shape)]))
    # All rows and centres nearly the same: more candidates than are worth scoring one by one.
    return unit(direction + 1e-3 * rows), unit(direction + 1e-3 * rng.standard_normal((300, 64)) / 8)


@pytest.mark.parametrize("kind", ["pairs", "all alike"])
def test_near_ties_are_decided_exactly(bfloat16, kind):
    rows, centers = near_ties(kind)
    exact = plain_scores(rows, centers).argmax(axis=1)
    rounded = (torch.from_numpy(rows).bfloat16() @ torch.from_numpy(centers).bfloat16().T).float().numpy()
    assert (rounded.argmax(axis=1) != exact).mean() > 0.3  # bfloat16 alone gets these wrong
    state = Nearest(torch.from_numpy(rows))
    state.add(Centers(torch.from_numpy(centers)))
    np.testing.assert_array_equal(state.labels.numpy(), exact)


def test_rows_that_are_all_alike_are_not_scored_pair_by_pair(bfloat16, monkeypatch):
    rows, centers = near_ties("all alike")
    scored, original = [], nearest.pair_scores
    monkeypatch.setattr(nearest, "pair_scores", lambda *a: scored.append(len(a[1])) or original(*a))
    Nearest(torch.from_numpy(rows)).add(Centers(torch.from_numpy(centers)))
    assert sum(scored) < 2 * len(rows)


def test_equal_centres_give_the_lowest_number(bfloat16):
    rows, _ = mixture(200, 40, 30)
    kmeans = SphericalKMeans(20).fit(rows)
    labels = kmeans.labels_
    kmeans.cluster_centers_ = kmeans.cluster_centers_[[7, *range(20), *range(20)]]
    np.testing.assert_array_equal(kmeans.predict(rows), np.where(labels == 7, 0, labels + 1))


@pytest.mark.parametrize("dim", [1, 3, 64, 1000])
def test_no_product_is_further_from_the_score_than_the_margin_assumes(bfloat16, dim):
    rng = np.random.default_rng(0)
    halves = (
        1 + 2.0**-8 * rng.integers(0, 2, (20, dim)) + 1e-6
    )  # every entry rounds the same way, by as much as can be
    rows = unit(np.concatenate([rng.standard_normal((200, dim)), halves, -halves, np.ones((1, dim))]))
    state, centers = Nearest(torch.from_numpy(rows)), Centers(torch.from_numpy(rows))
    products = centers.products(state.rows, len(rows), torch.bfloat16).reshape(-1, len(rows))[: len(rows)].double()
    error = (products.clamp(max=1).numpy() - plain_scores(rows, rows)).__abs__().max(axis=0)
    assert (error <= nearest.product_error(state.rounding, centers).numpy()).all()
    assert error.max() > 4e-4 or dim == 1  # the rows try the bound


def test_a_score_is_the_exact_inner_product():
    rng = np.random.default_rng(0)
    rows, centers = (torch.from_numpy(rng.standard_normal((9, 1000)).astype(np.float32)) for _ in range(2))
    every = torch.arange(9)
    for pair, score in enumerate(nearest.pair_scores(rows, every, centers, every).tolist()):
        products = [float(x) * float(c) for x, c in zip(rows[pair], centers[pair], strict=True)]
        assert score == pytest.approx(math.fsum(products), rel=1e-14)


# ---- work left out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_following_moving_centres_is_comparing_with_all_of_them(bfloat16, monkeypatch, share):
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(unit(mixture(1500, 32, 60)[0]))
    centers = rows[:200].clone()
    monkeypatch.setitem(nearest.ROWS_AT_A_TIME, "cpu", 64)
    state = Nearest(rows)
    state.add(Centers(centers))
    compared, original = [], Nearest._compare
    monkeypatch.setattr(Nearest, "_compare", lambda s, *a: compared.append(len(a[1]) * a[3]) or original(s, *a))
    for step in range(6):
        before, moves = centers.clone(), np.flatnonzero(rng.random(200) < share)
        scale = rng.choice([1e-4, 1e-2, 0.3], (len(moves), 1)) / math.sqrt(32)
        centers[moves] = torch.from_numpy(unit(centers[moves].numpy() + scale * rng.standard_normal((len(moves), 32))))
        movement = (centers.double() - before.double()).norm(dim=1) * (1 + 1e-6)
        state.follow(centers, movement)
        scores = plain_scores(rows.numpy(), centers.numpy())
        np.testing.assert_array_equal(state.labels.numpy(), scores.argmax(axis=1), err_msg=f"step {step}")
        np.testing.assert_allclose(state.scores.numpy(), scores.max(axis=1), rtol=1e-12)
        scores[np.arange(len(rows)), state.labels.numpy()] = -np.inf
        assert (scores.max(axis=1) <= state.rivals.numpy() + 1e-12).all()
    assert share == 1 or sum(compared) < 0.7 * 6 * rows.shape[0] * 200  # and it did leave work out


# ---- duplicates and empty clusters ------------------------------------------------------------------------------------


def test_a_pool_of_repeated_rows_gives_one_cluster_a_direction():
    distinct = mixture(40, 16, 40)[0]
    rows = np.concatenate([np.repeat(distinct[:1], 50, axis=0), np.repeat(distinct, 3, axis=0)])
    kmeans = SphericalKMeans(40).fit(rows)
    assert adjusted_rand_score([*[0] * 50, *np.repeat(np.arange(40), 3)], kmeans.labels_) == 1
    assert kmeans.mean_cosine_ == pytest.approx(1, abs=1e-6) and kmeans.cluster_sizes_.min() == 3
    with pytest.raises(ValueError, match=r"n_clusters=41 is more than the 40 different directions among 170 rows"):
        SphericalKMeans(41).fit(rows)
    with pytest.raises(ValueError, match=r"the 40 different directions"):  # lengths are not directions
        SphericalKMeans(41).fit(rows * np.linspace(1, 3, len(rows))[:, None])


def test_empty_clusters_start_again_from_rows_served_worst():
    rows = unit(mixture(500, 16, 50)[0])
    start = np.concatenate([rows[:20], np.repeat(rows[:1], 10, axis=0)])  # ten centres that no row is nearest to
    state = lloyd(rows, start)
    worst = plain_scores(rows, start)[:, :20].max(axis=1)
    labels = state.nearest.labels.numpy().copy()
    assert (np.bincount(labels, minlength=30)[20:] == 0).all()
    refilled = state.centers.clone()
    assert state._refill(refilled)
    expected = sorted(
        (worst[labels == c].min(), np.flatnonzero(labels == c)[worst[labels == c].argmin()]) for c in range(20)
    )
    np.testing.assert_array_equal(refilled[20:].numpy(), rows[[row for _, row in expected[:10]]])
    state.run(20, 0.0)
    assert state.sizes().min() > 0


def test_clusters_emptied_by_the_last_assignment_are_filled(monkeypatch):
    rows = unit(mixture(500, 16, 50)[0])
    start = np.concatenate([rows[:20], np.repeat(rows[:1], 10, axis=0)])
    state = lloyd(rows, start)
    assert state.run(0, 0.0) == 0 and state.sizes().min() > 0
    np.testing.assert_array_equal(
        state.nearest.labels.numpy(), plain_scores(rows, state.centers.numpy()).argmax(axis=1)
    )


def test_more_centres_than_directions_do_not_loop_for_ever():
    rows = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    state = lloyd(rows, np.repeat(np.eye(4, dtype=np.float32), 2, axis=0))
    state.run(20, 0.0)
    assert sorted(state.sizes().tolist()) == [0, 0, 0, 0, 5, 5, 5, 5]


def test_sums_are_whole_numbers_and_forget_the_rows_that_left():
    rows = unit(mixture(300, 16, 50)[0])
    state = lloyd(rows, rows[:30].copy())
    sums, summed = torch.zeros(30, 16, dtype=torch.int64), torch.full((300,), -1)
    for labels in (state.nearest.labels, state.nearest.labels.flip(0)):
        state.nearest.labels = labels.clone()
        state._means(sums, summed)
    expected = [[0] * 16 for _ in range(30)]
    for row, label in zip(rows.tolist(), state.nearest.labels.tolist(), strict=True):
        expected[label] = [before + int(x * 2**38) for before, x in zip(expected[label], row, strict=True)]
    assert sums.tolist() == expected


def test_a_cluster_whose_rows_cancel_keeps_its_centre():
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    kmeans = SphericalKMeans(1).fit(rows)
    assert np.abs(kmeans.cluster_centers_).tolist() == [[1.0, 0.0]] and kmeans.mean_cosine_ == 0


def test_rows_are_drawn_in_proportion_to_their_weights():
    state = lloyd(np.eye(5, dtype=np.float32), np.eye(5, dtype=np.float32))
    weights = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    drawn = [state._race(weights, 1, np.random.Philox([seed, 0])) for seed in range(4000)]
    shares = np.bincount(np.concatenate(drawn), minlength=5) / 4000
    np.testing.assert_allclose(shares, weights, atol=4 * math.sqrt(0.25 / 4000))
    assert sorted(state._race(weights, 5, np.random.Philox(0)).tolist()) == [0, 1, 2, 3]


# ---- several processes ------------------------------------------------------------------------------------------------


def _fit_of_ranks(rows: np.ndarray, ids: list[str] | None, bounds: list[int], folder: str) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == 2
    mine = slice(bounds[state.process_index], bounds[state.process_index + 1])
    group = torch.distributed.group.WORLD
    kmeans = SphericalKMeans(60).fit(rows[mine], ids and ids[mine], group=group)
    np.savez(
        f"{folder}/{state.process_index}.npz",
        labels=kmeans.labels_,
        centers=kmeans.cluster_centers_,
        sizes=kmeans.cluster_sizes_,
        facts=[kmeans.mean_cosine_, kmeans.n_iter_],
    )
    state.destroy_process_group()


@pytest.mark.parametrize(("with_ids", "bounds"), [(True, [0, 150, 500]), (False, [0, 499, 500]), (False, [0, 0, 500])])
def test_two_processes_fit_as_one(tmp_path, with_ids, bounds):
    rows, _ = mixture(500, 24, 90)
    ids = [f"row-{i}" for i in range(500)] if with_ids else None
    debug_launcher(_fit_of_ranks, (rows, ids, bounds, str(tmp_path)), num_processes=2)
    parts, whole = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)], SphericalKMeans(60).fit(rows, ids)
    np.testing.assert_array_equal(np.concatenate([part["labels"] for part in parts]), whole.labels_)
    for part in parts:
        np.testing.assert_array_equal(part["centers"], whole.cluster_centers_)
        np.testing.assert_array_equal(part["sizes"], whole.cluster_sizes_)
        assert part["facts"].tolist() == [whole.mean_cosine_, whole.n_iter_]


def _bad_fit_of_ranks(kind: str, folder: str) -> None:
    state = PartialState(cpu=True)
    rank, rows = state.process_index, np.eye(6, dtype=np.float32)
    ids = [f"row-{i + 6 * rank}" for i in range(6)]
    if kind == "bad row" and rank == 1:
        rows[3] = np.nan
    if kind == "widths" and rank == 1:
        rows = np.eye(6, 8, dtype=np.float32)
    if kind == "same rows":
        ids = [f"row-{i}" for i in range(6)]
    try:
        SphericalKMeans(3).fit(rows, None if kind == "ids" and rank else ids, group=torch.distributed.group.WORLD)
        message = "nothing"
    except (ValueError, RuntimeError) as error:
        message = f"{type(error).__name__}: {error}"
    Path(folder, str(rank)).write_text(message)
    state.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        (
            "bad row",
            ["RuntimeError: process 1 of 2 could not take its rows", "ValueError: row 3 (id 'row-9') holds NaN"],
        ),
        ("widths", ["ValueError: the processes have rows of [6, 8] numbers"] * 2),
        ("same rows", ["ValueError: an id is in more than one process"] * 2),
        ("ids", ["ValueError: some processes give ids and some do not"] * 2),
    ],
)
def test_bad_rows_in_one_process_are_an_error_in_all(tmp_path, kind, messages):
    debug_launcher(_bad_fit_of_ranks, (kind, str(tmp_path)), num_processes=2)
    for rank, message in enumerate(messages):
        assert (tmp_path / str(rank)).read_text().startswith(message)


# ---- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters": 0}, "n_clusters must be a whole number of at least 1, got 0"),
        ({"n_clusters": 2.5}, "got 2.5"),
        ({"n_clusters": 2, "max_iter": 0}, "max_iter must be"),
        ({"n_clusters": 2, "tol": -1e-3}, "tol must be"),
        ({"n_clusters": 2, "tol": math.nan}, "tol must be"),
        ({"n_clusters": 2, "seed": -1}, "seed must be"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SphericalKMeans(**arguments)


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([[1.0, 0.0], [math.nan, 1.0], [1.0, 1.0]], ["a", "b", "c"], r"row 1 \(id 'b'\) holds NaN"),
        ([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], None, "row 1 is all zeros"),
        ([[1.0, 0.0]], None, "n_clusters=2 is more than there are rows, 1"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a", "a"], "id 'a' is repeated"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a"], "1 ids for 2 rows"),
        ([None, None], None, "no gradient vectors"),
        ([], None, "no gradient vectors"),
    ],
)
def test_bad_rows_are_named(rows, ids, message):
    with pytest.raises(ValueError, match=message):
        SphericalKMeans(2).fit(rows, ids)


def test_predict_wants_centres_and_rows_of_their_width():
    with pytest.raises(ValueError, match="call fit before predict"):
        SphericalKMeans(2).predict(np.eye(3))
    with pytest.raises(ValueError, match="rows have 4 numbers and the centres 3"):
        SphericalKMeans(2).fit(np.eye(3)).predict(np.eye(4))


# ---- sparse clusters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.35, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("sizes", [[5] * 20, [1] * 12 + [9] * 8, list(range(1, 21)), [1] * 19 + [100]])
def test_exactly_the_smallest_share_of_the_clusters_is_sparse_however_equal_they_are(sizes, ratio):
    sparse = clustering.sparse_clusters(sizes, ratio)
    assert sparse.sum() == math.ceil(Fraction(str(ratio)) * 20)
    taken = sorted(size for size, chosen in zip(sizes, sparse, strict=True) if chosen)
    assert taken == sorted(sizes)[: len(taken)]


def test_ties_between_clusters_are_broken_by_the_seed():
    chosen = {tuple(clustering.sparse_clusters([3] * 10, 0.5, seed)) for seed in range(20)}
    assert len(chosen) > 10 and all(sum(each) == 5 for each in chosen)


@pytest.mark.parametrize(("sizes", "ratio", "message"), [([1], 0, "above 0"), ([1], 1.1, "at most 1"), ([], 0.5, "no clusters")])  # fmt: skip
def test_a_wrong_ratio_and_no_clusters_are_named(sizes, ratio, message):
    with pytest.raises(ValueError, match=message):
        clustering.sparse_clusters(sizes, ratio)
