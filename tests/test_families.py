"""What stands apart is found whatever clusters it was cut into, and nothing is found where nothing stands apart."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import silhouette_samples

from hf_prism.clustering import SphericalKMeans
from hf_prism.families import _merges, isolated_families


def pool(sizes, alone=150, dim=48, spread=0.4, seed=0):
    """Families around directions of their own, after rows that have nothing in common."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((alone, dim))]
    for size in sizes:
        rows.append(rng.standard_normal(dim) + spread * rng.standard_normal((size, dim)))
    rows = np.concatenate(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(sizes, alone=150):
    stops = alone + np.cumsum(sizes)
    return [list(range(stop - size, stop)) for size, stop in zip(sizes, stops, strict=True)]


@pytest.mark.parametrize("n_clusters", [60, 100])
def test_planted_families_are_found_whole(n_clusters):
    """Also where k-means put strays into their clusters."""
    sizes = [40, 25, 9]
    rows = pool(sizes)
    labels = SphericalKMeans(n_clusters).fit(rows).labels_
    assert [family.tolist() for family in isolated_families(rows, labels)] == planted(sizes)


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_family_that_was_cut_into_clusters_is_one_family(pieces):
    rows = pool([42])
    labels = np.r_[np.arange(150), 150 + np.arange(42) % pieces]
    assert [family.tolist() for family in isolated_families(rows, labels)] == planted([42])


def test_rows_without_anything_in_common_hold_no_family():
    rows = pool([])
    assert isolated_families(rows, SphericalKMeans(15).fit(rows).labels_) == []


def test_rows_that_are_all_alike_are_no_family_apart_from_others():
    rows = pool([], spread=0) + 3 * np.eye(48)[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert isolated_families(rows, SphericalKMeans(15).fit(rows).labels_) == []


def test_too_few_rows_are_no_family():
    assert isolated_families(pool([4], spread=0.01), np.r_[np.arange(150), [150] * 4]) == []


def test_families_have_the_silhouette_that_is_promised_by_scikit_learn():
    rows = pool([40, 25])
    families = isolated_families(rows, SphericalKMeans(30).fit(rows).labels_)
    labels = np.arange(len(rows))
    for number, family in enumerate(families):
        labels[family] = 1000 + number
    silhouettes = silhouette_samples(rows, labels, metric="cosine")
    assert [silhouettes[family].mean() > 0.45 for family in families] == [True, True]


def test_merges_are_those_of_average_linkage():
    """Heights of the merges of single rows, by SciPy."""
    rows = pool([6], alone=20)
    heights = [1 - near for _, _, near in _merges(rows @ rows.T, np.ones(len(rows)))]
    assert heights == pytest.approx(linkage(rows, "average", metric="cosine")[:, 2].tolist())


def test_no_row_and_one_row():
    assert isolated_families(np.empty((0, 4)), np.empty(0, dtype=np.int64)) == []
    assert isolated_families(np.eye(4)[:1], np.zeros(1, dtype=np.int64)) == []
