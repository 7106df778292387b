"""Exactly k rows of an existing pool, by what their gradients say (PAPER, five of six users of its code select).

Rows are read into one order, that of the hashes of their ids, before anything is drawn or compared: the order in which
they come, blocks, threads and processes do not change which rows are chosen; without ids, equal rows may change places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .clustering import FewDirections, SphericalKMeans
from .greedy import choose_greedily
from .origin import origin_of
from .samples import near
from .vectors import column_of, content_hashes, id_hashes, number_blocks, require_rows, unit
from .vendi import Covariance, vendi


METHODS = ("greedy", "round_robin", "inverse_cluster_size", "random")
CLUSTER_RATIO = 0.1  # clusters over rows, as in the paper's code
RANGE = 1e12  # largest quality over the smallest that is not 0
SAME = 2.0**-22  # float32 unit rows cannot tell a cosine from 1 that is nearer to it


@dataclass(frozen=True)
class Selection:
    """Rows chosen from a pool, and how.

    Attributes:
        indices: (k,) int64 positions in the pool, in the order of choice; `dataset.select(sorted(indices))` keeps the
            order of the pool.
        clusters: (k,) int64, the cluster of each.
        metadata: What was asked, and what came of it, as plain JSON values: `method`, `k`, `n`, `dim`, `seed`,
            `feature_id`, `g_vendi` of the chosen rows and `g_vendi_random` of as many random ones under the same quotas,
            `cluster_sizes` and `cluster_chosen` (rows of each cluster in the pool and among the chosen), `quotas`, and
            `stability`: the share of rows that the same method chooses again with the next seed, and what chance gives.
    """

    indices: np.ndarray
    clusters: np.ndarray
    metadata: dict[str, Any]


def select(
    vectors: Any,
    k: int,
    *,
    method: str = "greedy",
    quality: Sequence[float] | str | None = None,
    groups: Sequence[Any] | str | None = None,
    quotas: Mapping[Any, int] | None = None,
    n_clusters: int | None = None,
    ids: Sequence[Any] | None = None,
    seed: int = 0,
) -> Selection:
    """Choose exactly k rows of a pool of gradients.

    Methods:

    - `"greedy"`: one after the other the row that adds most to the log-determinant of the chosen rows' second moment, see
      `greedy`: at least 1 - 1/e of the best possible value (1/2 with groups), and close to the highest G-Vendi. Draws nothing.
    - `"round_robin"`: one row of each cluster in turn, those of high quality first.
    - `"inverse_cluster_size"`: drawn with probabilities proportional to quality / size of the row's cluster.
    - `"random"`: drawn with probabilities proportional to quality. The control.

    Args:
        vectors: (n, d) gradients in any container of `vectors.number_blocks`, such as a dataset with a `gradient` column.
            None rows, which the featurizer skipped, are never chosen.
        k: How many rows.
        method: One of the above.
        quality: A number at or above 0 for each row, or the name of a column of `vectors`; only ratios count. A row of
            quality 0 is never chosen; for `greedy`, one of half the quality must bring twice as much that is new.
        groups: A label for each row, or the name of a column. Each group gives rows in proportion to its size, or what
            `quotas` says.
        quotas: By label, exactly how many rows; what is left of k comes from the groups it does not name.
        n_clusters: For clustering, and for the counts by cluster in the metadata; default, a tenth of the rows as in the
            paper's code, or as many as there are directions if that is less.
        ids: One id a row; default, the `id` column of `vectors` if there is one, else the rows' content.
        seed: Of draws and clusters.

    Raises:
        ValueError: k under 1, or more than can be chosen; quality negative, NaN or not one a row; a quota of a group that
            is not there or has too few rows; all rows alike; an unknown method; and as `number_blocks`.

    Example:
        >>> chosen = select([[1.0, 0.0], [1.0, 0.1], [0.9, 0.0], [0.0, 1.0]], 2, n_clusters=2)
        >>> 3 in chosen.indices, chosen.metadata["cluster_chosen"]
        (True, [1, 1])
    """
    require_rows(vectors)
    ids = column_of(vectors, "id") if ids is None else ids
    demand = Demand(
        len(vectors),
        k,
        method=method,
        quality=_named(vectors, quality, "quality"),
        groups=_named(vectors, groups, "groups"),
        quotas=quotas,
        n_clusters=n_clusters,
        ids=ids,
        seed=seed,
    )
    pool = _Pool(vectors, ids, demand)
    room = demand.room(pool.positions)
    chosen = _Choice(pool, room, int(k), n_clusters)
    places = chosen.by(method, int(seed))
    labels = chosen.clusters(int(seed)).labels_
    sizes = np.bincount(labels, minlength=int(labels.max()) + 1)
    metadata = {
        "method": method,
        "k": int(k),
        "n": len(pool.rows),
        "dim": pool.rows.shape[1],
        "seed": int(seed),
        "feature_id": origin_of(vectors).feature_id,
        "quality": quality if isinstance(quality, str) else quality is not None,
        "quotas": dict(zip(demand.group_names, room.tolist(), strict=True)) if groups is not None else None,
        "g_vendi": pool.score(places),
        "g_vendi_random": pool.score(chosen.by("random", int(seed))),
        "stability": chosen.stability(method, int(seed), places),
        "cluster_sizes": sizes.tolist(),
        "cluster_chosen": np.bincount(labels[places], minlength=len(sizes)).tolist(),
    }
    return Selection(pool.positions[places], labels[places], metadata)


class Demand:
    """What is asked of a selection, checked: it can be made before there are gradients.

    Args:
        n: Rows of the pool. The others are those of `select`.

    Attributes:
        quality: (n,) float64, 1 without one.
        codes: (n,) int64, the group of each row; `group_names` has their labels as text.

    Raises:
        ValueError: as `select`.
    """

    def __init__(
        self,
        n: int,
        k: int,
        *,
        method: str = "greedy",
        quality: Sequence[float] | None = None,
        groups: Sequence[Any] | None = None,
        quotas: Mapping[Any, int] | None = None,
        n_clusters: int | None = None,
        ids: Sequence[Any] | None = None,
        seed: int = 0,
    ) -> None:
        if method not in METHODS:
            raise ValueError(
                f"unknown method {method!r}{near(method, METHODS)}; the methods are {', '.join(METHODS)}."
            )
        for name, value, least in (("k", k, 1), ("seed", seed, 0)):
            whole = isinstance(value, int | float | np.integer) and not isinstance(value, bool) and value == int(value)
            if not whole or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if n_clusters is not None and not 1 <= n_clusters <= n:
            raise ValueError(f"n_clusters must be a whole number from 1 to the {n:,} rows, got {n_clusters!r}.")
        if quotas is not None and groups is None:
            raise ValueError("quotas are by group: give groups too (--group COLUMN).")
        self.k, self.quotas = int(k), quotas
        self.quality = np.ones(n) if quality is None else _numbers(quality, n, ids)
        some = self.quality[self.quality > 0]
        if some.size and some.max() / RANGE > some.min():
            raise ValueError(
                f"quality goes from {some.min():g} to {some.max():g}: over more than {RANGE:g} times, sums of them lose the "
                "small ones. Put them on one scale, or give 0 to what is never to be chosen."
            )
        labels = [""] * n if groups is None else _labels(groups, n, ids)
        names, codes = np.unique(labels, return_inverse=True)
        self.group_names: list[str] = names.tolist()
        self.codes = codes.astype(np.int64)
        self.room(np.arange(n))

    def room(self, positions: np.ndarray) -> np.ndarray:
        """How many of the rows at these positions each group gives; their sum is k, and each has so many."""
        usable = positions[self.quality[positions] > 0]
        if self.k > len(usable):
            why = f" ({len(positions) - len(usable):,} rows have quality 0)" if len(usable) < len(positions) else ""
            raise ValueError(
                f"k = {self.k:,} is more than the {len(usable):,} rows that can be chosen{why}: ask for fewer, or give more."
            )
        there = np.bincount(self.codes[usable], minlength=len(self.group_names))
        return _shares(self.k, there) if self.quotas is None else _quotas(self.k, there, self.group_names, self.quotas)


class _Pool:
    """The rows that can be chosen from, in the order of their hashes.

    Attributes:
        rows: (n, d) float32 of unit length.
        positions: (n,) int64, where each row stands in what was given.
        quality: (n,) float64, with a mean of 1.
        codes: (n,) int64, the group of each row.
    """

    def __init__(self, vectors: Any, ids: Sequence[Any] | None, demand: Demand) -> None:
        rows, positions, hashes = _read(vectors, ids)
        order = np.argsort(hashes, kind="stable")
        self.rows, self.positions = rows[order], positions[order]
        self.codes, quality = demand.codes[self.positions], demand.quality[self.positions]
        self.quality = quality / quality.mean() if quality.any() else quality

    @property
    def usable(self) -> np.ndarray:
        return self.quality > 0

    def all_alike(self) -> bool:
        return bool((abs(self.rows @ self.rows[0]) > 1 - SAME).all())

    def score(self, places: np.ndarray) -> float:
        """G-Vendi of some of the rows."""
        return vendi(Covariance(self.rows.shape[1]).update(self.rows[places], places.tolist()).spectrum())


class _Choice:
    """The methods, on one pool under one set of quotas."""

    def __init__(self, pool: _Pool, room: np.ndarray, k: int, n_clusters: int | None) -> None:
        self.pool, self.room, self.k, self.n_clusters = pool, room, k, n_clusters
        self._clusters: dict[int, SphericalKMeans] = {}

    def by(self, method: str, seed: int) -> np.ndarray:
        """(k,) places in the pool, in the order of choice."""
        if method != "random" and self.k < np.count_nonzero(self.pool.usable) and self.pool.all_alike():
            raise ValueError(
                f"all {len(self.pool.rows):,} rows point in the same direction, so that gradients give no reason to prefer "
                "one. Was one row repeated, or a constant column featurized? To draw rows all the same use "
                "method='random' (--method random)."
            )
        if method == "greedy":
            weights, codes = self.pool.quality, self.pool.codes
            return choose_greedily(self.pool.rows, self.k, weights=weights, groups=codes, room=self.room)
        if method == "round_robin":
            return self._walk(self._in_turns(seed))
        if method == "inverse_cluster_size":
            kmeans = self.clusters(seed)
            return self._walk(self._race(self.pool.quality / kmeans.cluster_sizes_[kmeans.labels_], seed))
        return self._walk(self._race(self.pool.quality, seed))

    def clusters(self, seed: int) -> SphericalKMeans:
        if seed not in self._clusters:
            self._clusters[seed] = cluster(self.pool.rows, self.n_clusters, seed)
        return self._clusters[seed]

    def stability(self, method: str, seed: int, places: np.ndarray) -> dict[str, Any]:
        """How many of the chosen rows are chosen again with the next seed."""
        chance = float(np.sum(self.room**2 / np.bincount(self.pool.codes[self.pool.usable]).clip(1)) / self.k)
        if method == "greedy":
            return {"agreement": 1.0, "by_chance": chance, "seeds": [], "note": "greedy draws nothing"}
        again = self.by(method, seed + 1)
        return {
            "agreement": float(np.isin(places, again).mean()),
            "by_chance": chance,
            "seeds": [seed + 1],
            "g_vendi": [self.pool.score(again)],
        }

    def _in_turns(self, seed: int) -> np.ndarray:
        """All rows: the first of every cluster, the second of every cluster, and so on; clusters in a drawn order."""
        kmeans = self.clusters(seed)
        labels = kmeans.labels_
        order = np.lexsort((_uniform(len(labels), seed, 1), -self.pool.quality, labels))
        starts = np.cumsum(kmeans.cluster_sizes_) - kmeans.cluster_sizes_
        turns = np.empty(len(labels), dtype=np.int64)
        turns[order] = np.arange(len(labels)) - starts[labels[order]]
        return np.lexsort((_uniform(len(starts), seed, 2)[labels], turns))

    def _race(self, weights: np.ndarray, seed: int) -> np.ndarray:
        """All rows in the order of a draw without replacement, with probabilities proportional to the weights.

        Each waits for an exponential time at the rate of its weight (Efraimidis and Spirakis, 2006).
        """
        waits = np.full(len(weights), np.inf)
        np.divide(-np.log(_uniform(len(weights), seed, 0)), weights, out=waits, where=weights > 0)
        return np.argsort(waits, kind="stable")

    def _walk(self, order: np.ndarray) -> np.ndarray:
        """The first k rows in this order that can be chosen and whose group has room."""
        order = order[self.pool.usable[order]]
        codes = self.pool.codes[order]
        by_group = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes, minlength=len(self.room))
        number = np.empty(len(order), dtype=np.int64)  # of each row among those of its group, in this order
        number[by_group] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[number < self.room[codes]]


def _read(vectors: Any, ids: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows in float32, the positions they come from, and a hash of each."""
    n, done, seen = len(vectors), 0, {}
    hashes = np.empty(n, dtype=np.uint64) if ids is None else id_hashes(ids, n)
    rows, kept = np.empty((0, 0), dtype=np.float32), np.empty(n, dtype=np.int64)
    for at, block in number_blocks(vectors, ids):
        if not done:
            rows = np.empty((n, block.shape[1]), dtype=np.float32)
        span = slice(done, done := done + len(block))
        rows[span], kept[span] = unit(block), at
        if ids is None:
            hashes[at] = content_hashes(rows[span], seen)
    if not done:
        raise ValueError(f"no gradient vectors among {n} rows: there is nothing to choose from.")
    return rows[:done], kept[:done], hashes[kept[:done]]


def cluster(rows: Any, n_clusters: int | None, seed: int) -> SphericalKMeans:
    """Spherical k-means with the paper's default for k: a tenth of the rows, or all directions where those are fewer."""
    if n_clusters is not None:
        return SphericalKMeans(n_clusters, seed=seed).fit(rows)
    try:
        return SphericalKMeans(max(1, round(CLUSTER_RATIO * len(rows))), seed=seed).fit(rows)
    except FewDirections as error:
        return SphericalKMeans(error.count, seed=seed).fit(rows)


def _uniform(n: int, seed: int, purpose: int) -> np.ndarray:
    """n numbers above 0 and below 1, from raw bits, whose stream NumPy promises to keep."""
    return ((np.random.Philox([seed, purpose]).random_raw(n) >> np.uint64(11)) + 0.5) * 2.0**-53


def _shares(k: int, there: np.ndarray) -> np.ndarray:
    """k divided in proportion, remainders to the largest (Hamilton's method), earlier groups first among equals."""
    exact = k * there / there.sum()
    shares = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[: k - shares.sum()]] += 1
    return shares


def _quotas(k: int, there: np.ndarray, names: list[str], quotas: Mapping[Any, int]) -> np.ndarray:
    room = np.full(len(names), -1, dtype=np.int64)
    if len({str(label) for label in quotas}) < len(quotas):
        raise ValueError(f"two quotas are of groups with one name: {', '.join(map(repr, quotas))}.")
    for label, count in quotas.items():
        if str(label) not in names:
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ValueError(f"a quota names the group {label!r}{near(str(label), names)}; the groups are {shown}.")
        group = names.index(str(label))
        if isinstance(count, bool) or count != int(count) or count < 0:
            raise ValueError(f"the quota of group {label!r} must be a whole number of at least 0, got {count!r}.")
        if count > there[group]:
            raise ValueError(
                f"the quota of group {label!r} is {count:,}, but only {there[group]:,} rows can be chosen."
            )
        room[group] = count
    named = room >= 0
    rest = k - int(room[named].sum())
    if rest < 0:
        raise ValueError(f"the quotas add up to {k - rest:,}, more than k = {k:,}.")
    if rest > there[~named].sum():
        raise ValueError(
            f"the quotas add up to {k - rest:,} of k = {k:,}, and the groups without one have {there[~named].sum():,} rows "
            f"for the other {rest:,}. Raise a quota, or lower k."
        )
    room[~named] = _shares(rest, there[~named]) if rest else 0
    return room


def _named(vectors: Any, given: Any, what: str) -> Any:
    """The values, where the name of a column was given."""
    if not isinstance(given, str):
        return given
    values = column_of(vectors, given)
    if values is None:
        columns = list(getattr(vectors, "column_names", None) or ())
        raise ValueError(
            f"{what} names a column {given!r} that is not there{near(given, columns)}; columns found: "
            f"{', '.join(columns) or 'none: the vectors are no dataset'}."
        )
    return values


def _numbers(values: Any, n: int, ids: Any) -> np.ndarray:
    if len(values) != n:
        raise ValueError(f"{len(values)} quality values for {n} rows: give one a row.")
    numbers = np.empty(n)
    for i, value in enumerate(values):
        try:
            numbers[i] = value
        except (TypeError, ValueError):
            numbers[i] = math.nan
        if not (math.isfinite(numbers[i]) and numbers[i] >= 0):
            raise ValueError(
                f"{_row(i, ids)} has quality {value!r}; it must be a finite number at or above 0. Fill it, drop the row, or "
                "shift the scale: 0 means never."
            )
    return numbers


def _labels(values: Any, n: int, ids: Any) -> list[str]:
    if len(values) != n:
        raise ValueError(f"{len(values)} groups for {n} rows: give one a row.")
    names: dict[str, Any] = {}
    labels = [value.item() if hasattr(value, "item") else value for value in values]
    for i, value in enumerate(labels):
        if value is None or value != value:  # NaN
            raise ValueError(f"{_row(i, ids)} has no group: fill it, or drop the row.")
        if (other := names.setdefault(str(value), value)) != value:
            raise ValueError(f"{_row(i, ids)} has the group {value!r}, and others {other!r}: make them of one type.")
    return [str(value) for value in labels]


def _row(i: int, ids: Any) -> str:
    return f"row {i}" if ids is None else f"row {i} (id {ids[i]!r})"
