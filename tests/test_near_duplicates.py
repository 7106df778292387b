"""Near-duplicates against a brute-force search, whatever the order of the rows and the size of a block."""

import numpy as np
import pytest

from hf_prism import near_duplicates as module
from hf_prism.near_duplicates import near_duplicates, nearest_cosines
from hf_prism.vectors import id_hashes


def heaps(seed=0, *, heaps=6, rows=12, alone=40, dim=32, spread=0.25):
    """Rows round some directions, others alone, and exact copies; the cosines lie on both sides of any threshold."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(rng.standard_normal((heaps, dim)), rows, axis=0)
    near = centers + spread * rng.standard_normal(centers.shape)
    vectors = np.concatenate([near, rng.standard_normal((alone, dim)), near[:3], 5 * near[:2]])
    return vectors[rng.permutation(len(vectors))].astype(np.float32)


def cosines(vectors):
    rows = np.asarray(vectors, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def brute_force(vectors, ids, threshold):
    """The definition, one row at a time: the groups as sets, and the leader of each."""
    cosine, order = cosines(vectors), np.argsort(id_hashes(ids, len(ids)))
    leaders = []
    for row in order:
        if not any(cosine[row, leader] >= threshold for leader in leaders):
            leaders.append(row)
    groups = {leader: {leader} for leader in leaders}
    for row in set(range(len(vectors))) - set(leaders):
        groups[max(leaders, key=lambda leader: cosine[row, leader])].add(row)
    return {int(leader): group for leader, group in groups.items() if len(group) > 1}


def named(n):
    return [f"row {i}" for i in range(n)]


@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_those_of_the_definition(threshold, seed):
    vectors = heaps(seed)
    ids = named(len(vectors))
    found = near_duplicates(vectors, threshold=threshold, ids=ids)
    assert {int(group[0]): set(group.tolist()) for group in found} == brute_force(vectors, ids, threshold)


def test_rows_and_leaders_keep_what_is_promised():
    vectors, threshold = heaps(2), 0.9
    groups, cosine = near_duplicates(vectors, threshold=threshold), cosines(vectors)
    assert len(groups) > 5
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    for group in groups:
        to_leader = cosine[group[0], group[1:]]
        assert (to_leader >= threshold - 1e-6).all() and (np.diff(to_leader) <= 1e-6).all()
        assert cosine[np.ix_(group, group)].min() >= 2 * threshold**2 - 1 - 1e-6
    others = np.concatenate([group[1:] for group in groups])
    left = np.setdiff1d(np.arange(len(vectors)), others)
    assert (cosine[np.ix_(left, left)] - np.eye(len(left))).max() < threshold + 1e-6


@pytest.mark.parametrize("with_ids", [True, False])
def test_order_of_the_rows_and_size_of_a_block_change_nothing(monkeypatch, with_ids):
    vectors = heaps(3)
    vectors = np.unique(vectors, axis=0)  # without ids equal rows may change places
    ids = named(len(vectors))
    expected = near_duplicates(vectors, threshold=0.9, ids=ids if with_ids else None)
    for seed, block in ((1, 7), (2, 1), (3, 64), (4, 10_000)):
        monkeypatch.setattr(module, "BLOCK", block)
        order = np.random.default_rng(seed).permutation(len(vectors))
        found = near_duplicates(vectors[order], threshold=0.9, ids=[ids[row] for row in order] if with_ids else None)
        assert [order[group].tolist() for group in found] == [group.tolist() for group in expected]


def test_one_row_a_hundred_times_is_one_group():
    groups = near_duplicates(np.ones((100, 8)), threshold=0.9999)
    assert [len(group) for group in groups] == [100] and set(groups[0]) == set(range(100))


def test_rows_at_right_angles_have_no_group():
    assert near_duplicates(np.eye(50)) == []


def test_the_threshold_itself_counts():
    """3/5 and 4/5 are no float32: the cosine of the rows as they are kept lies beside .96, and the next number decides."""
    one, other = (np.array([[3, 4], [4, 3]]) / 5).astype(np.float32).astype(np.float64)
    cosine = float(one @ other)
    assert near_duplicates([[3.0, 4.0], [4.0, 3.0]], threshold=cosine)
    assert not near_duplicates([[3.0, 4.0], [4.0, 3.0]], threshold=float(np.nextafter(cosine, 1)))


def test_rows_without_a_gradient_are_in_no_group():
    groups = near_duplicates([None, [1.0, 0.0], None, [2.0, 0.0], [0.0, 1.0]], ids=list("abcde"))
    assert len(groups) == 1 and set(groups[0].tolist()) == {1, 3}


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 1.5, float("nan")])
def test_a_threshold_that_is_no_cosine_between_0_and_1_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold .* is not a cosine above 0 and below 1"):
        near_duplicates(np.eye(3), threshold=threshold)


def test_a_pool_without_rows_is_refused():
    with pytest.raises(ValueError, match="no gradient vectors among 2 rows"):
        near_duplicates([None, None])


def test_nearest_cosine_is_that_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    vectors = heaps(4)[:70]
    distances, _ = neighbors.NearestNeighbors(n_neighbors=2, metric="cosine").fit(vectors).kneighbors(vectors)
    assert nearest_cosines(vectors) == pytest.approx(1 - distances[:, 1], abs=1e-6)


def test_the_share_of_near_duplicates_is_that_of_all_pairs(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 9)
    vectors = heaps(5)
    cosine = cosines(vectors)
    np.fill_diagonal(cosine, -1)
    assert np.mean(nearest_cosines(vectors) >= 0.9) == np.mean(cosine.max(axis=1) >= 0.9)


def test_a_single_row_has_no_nearest_other():
    with pytest.raises(ValueError, match="needs at least two rows, and there is 1"):
        nearest_cosines([[1.0, 0.0]])
