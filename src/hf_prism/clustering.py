"""Spherical k-means of gradient sketches: which rows teach the same (PAPER, Prismatic Synthesis, step 1).

Lloyd's algorithm on unit rows. Every step is exact, so that neither the size of a block nor the number of threads and
processes changes any bit of labels and centres, and with ids not the order of the rows either:

- A row's nearest centre is decided in float64 in a fixed order of summation, see `nearest`.
- Rows are summed as 64-bit whole multiples of 2^-38. The entries of a unit float32 row that are not below 2^-15 are such
  multiples already; of smaller ones the rest is cut off.
- Random numbers are raw Philox numbers, one for each row of all processes, in the order of the hashed ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .nearest import ROWS_AT_A_TIME, Centers, Nearest, float32_sums, ordered_sum, repeated
from .vectors import id_hashes, number_blocks, unit


GROWTH = 1.5
"""Centres after a round of the initialisation, over those before it. Up to 2, k-means++ one by one starts no better."""

TRIALS = 2
"""Rows drawn for each new centre. More make better centres, and cost an assignment each."""

UNIT = 2.0**38
"""Sums of rows count in 1 / UNIT. Clusters of 2^24 rows fit."""

FINE = 2.0**32
"""Sums of cosines count in 1 / FINE. A billion rows fit."""

SAME = 2.0**-22
"""Float32 unit rows cannot tell a cosine from 1 that is nearer to it than this."""

CLUSTERS_AT_A_TIME = 4096


class FewDirections(ValueError):
    """More clusters were asked for than there are rows of different direction; `count` says how many there are."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


def sparse_clusters(sizes: Any, ratio: float, seed: int = 0) -> np.ndarray:
    """Which clusters are the sparse ones: the ceil(ratio * k) smallest, exactly (PAPER, step 5).

    A comparison of sizes with a quantile would take all of them, or none, where many are equally large. Of those, the ones
    with the smallest numbers of a seeded stream count as smaller.

    Args:
        sizes: (k,) rows of each cluster.
        ratio: Above 0, and at most 1.
        seed: Of the stream.

    Returns:
        (k,) bool.

    Raises:
        ValueError: no clusters, or another ratio.

    Example:
        >>> sparse_clusters([5, 1, 9, 2], 0.5).tolist()
        [False, True, False, True]
    """
    sizes = np.asarray(sizes)
    if not 0 < ratio <= 1:
        raise ValueError(f"the ratio of sparse clusters must be above 0 and at most 1, got {ratio!r}.")
    if not len(sizes):
        raise ValueError("there are no clusters, so none is sparse.")
    sparse = np.zeros(len(sizes), dtype=bool)
    # Rounded first: 0.07 * 100 is a little more than 7.
    count = int(np.ceil(round(ratio * len(sizes), 9)))
    sparse[np.lexsort((np.random.Philox(key=seed).random_raw(len(sizes)), sizes))[:count]] = True
    return sparse


class SphericalKMeans:
    """k-means of directions: rows and centres are of unit length, and the nearest centre is that of the greatest cosine.

    The first centres come from k-means++ in rounds. Each round draws, with a probability proportional to 1 - cosine to
    the nearest centre so far, as many rows as there are centres, two for each new centre: the one that serves the rows
    better becomes it. All rounds together cost two assignments; one draw at a time would cost k passes over the rows. A
    cluster that lost all rows starts again from the row that is served worst by its centre, at most one row of each other
    cluster.

    Args:
        n_clusters: k; the paper's code takes a tenth of the rows.
        max_iter: updates of the centres at most; the paper's code makes 20.
        tol: stop once an update raises the mean cosine by no more than this. With 0, stop when no label changes.
        seed: of the first centres.
        device: where to compute; by default CUDA where there is one, else the CPU.

    Attributes:
        labels_: (n,) int64, the cluster of each row; -1 for a None row.
        cluster_centers_: (k, d) float32 of unit length; `labels_` are the nearest of them.
        cluster_sizes_: (k,) int64, rows of each cluster. One is 0 only where there are fewer directions than clusters.
        mean_cosine_: of a row and its centre, over all rows: what k-means maximises. Inertia is 2 n (1 - mean_cosine_).
        n_iter_: updates made.

    Example:
        >>> kmeans = SphericalKMeans(2).fit(np.array([[1.0, 0.1], [0.0, 1.0], [2.0, 0.0], [0.1, 2.0]]))
        >>> bool(kmeans.labels_[0] == kmeans.labels_[2]), kmeans.cluster_sizes_.tolist()
        (True, [2, 2])
    """

    labels_: np.ndarray
    cluster_centers_: np.ndarray
    cluster_sizes_: np.ndarray
    mean_cosine_: float
    n_iter_: int

    def __init__(
        self, n_clusters: int, *, max_iter: int = 20, tol: float = 0.0, seed: int = 0, device: str | None = None
    ) -> None:
        for name, value, least in (("n_clusters", n_clusters, 1), ("max_iter", max_iter, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or value != int(value) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if not tol >= 0:
            raise ValueError(f"tol must be 0 or a small positive number, such as 1e-4, got {tol!r}.")
        self.n_clusters, self.max_iter, self.tol, self.seed = int(n_clusters), int(max_iter), tol, int(seed)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def fit(
        self, vectors: Any, ids: Sequence[Any] | None = None, *, group: dist.ProcessGroup | None = None
    ) -> SphericalKMeans:
        """Cluster rows. Takes 4 n d bytes, and 30 k d for the centres, beside the rows as they came.

        Args:
            vectors: (n, d) numbers of any real dtype and length, in any container of `vectors.number_blocks`.
            ids: one id a row. With them the order of the rows does not matter; without, it decides the first centres.
            group: the processes that hold the rest of the rows, such as `torch.distributed.group.WORLD` under
                `accelerate launch`; None, when these are all. Every process calls `fit` with its rows, however many,
                and gets their labels. All else comes out the same on each, and as in one process with all rows, which
                without ids are those of the first process, then those of the second, and so on.

        Raises:
            ValueError: more clusters than rows, or than rows of different direction; ids repeated or not one a row; and
                as `number_blocks`: NaN, infinity, a zero row, rows of different width.
            RuntimeError: another process of the group raised one of these about its rows.
        """
        ranks = _Ranks(group, self.device)
        rows, kept, hashes = _all_or_none(lambda: _read(vectors, ids), ranks)
        order, total, dim = _common_order(len(rows), rows.shape[1], hashes, ranks)
        if self.n_clusters > total:
            raise ValueError(f"n_clusters={self.n_clusters} is more than there are rows, {total}: ask for fewer.")
        with float32_sums():
            lloyd = _Lloyd(rows.reshape(-1, dim).to(self.device), order, total, ranks)
            lloyd.draw(self.n_clusters, self.seed)
            self.n_iter_ = lloyd.run(self.max_iter, self.tol)
        self.labels_ = np.full(len(vectors), -1, dtype=np.int64)
        self.labels_[kept] = lloyd.nearest.labels.cpu().numpy()
        self.cluster_centers_ = lloyd.centers.cpu().numpy()
        self.cluster_sizes_ = lloyd.sizes().cpu().numpy()
        self.mean_cosine_ = lloyd.mean_cosine()
        return self

    def predict(self, vectors: Any) -> np.ndarray:
        """The nearest centre of each of (n, d) vectors: (n,) int64, -1 for a None row. For the rows of `fit`, `labels_`.

        Raises:
            ValueError: called before `fit`; rows of another width than those of `fit`; and as `number_blocks`.
        """
        if not hasattr(self, "cluster_centers_"):
            raise ValueError("there are no centres yet: call fit before predict.")
        centers = Centers(torch.from_numpy(self.cluster_centers_).to(self.device))
        labels = np.full(len(vectors), -1, dtype=np.int64)
        for positions, block in number_blocks(vectors):
            if block.shape[1] != centers.vectors.shape[1]:
                raise ValueError(
                    f"rows have {block.shape[1]} numbers and the centres {centers.vectors.shape[1]}: they come from "
                    "sketches of different dim."
                )
            nearest = Nearest(_unit_floats(block).to(self.device))
            with float32_sums():
                nearest.add(centers)
            labels[positions] = nearest.labels.cpu().numpy()
        return labels


class _Lloyd:
    """The rows of this process, and the centres that all processes share.

    Args:
        rows: (n, d) float32 of unit length.
        order: (n,) int64, the place of each row among the `total` of all processes.
    """

    def __init__(self, rows: Tensor, order: np.ndarray, total: int, ranks: _Ranks) -> None:
        self.rows, self.order, self.total, self.ranks = rows, order, total, ranks
        self.by_order = np.argsort(order)
        self.nearest = Nearest(rows)
        self.centers = rows.new_empty(0, rows.shape[1])

    def draw(self, count: int, seed: int) -> None:
        """Draw the first centres, and assign the rows to them."""
        while (done := len(self.centers)) < count:
            weights = (1 - self.nearest.scores).cpu().numpy() if done else np.ones(len(self.rows))
            wanted = min(max(1, int((GROWTH - 1) * done)), count - done)
            places = self._race(weights, TRIALS * wanted, np.random.Philox([seed, done]))
            if not len(places):
                raise FewDirections(
                    f"n_clusters={count} is more than the {done} different directions among {self.total} rows (cosines "
                    "within 2^-22 of 1 count as equal): the rows repeat each other. Ask for fewer clusters.",
                    done,
                )
            drawn = self._rows_at(places)
            self._add_best(drawn[~repeated(drawn, 1 - SAME)], wanted)

    def _add_best(self, drawn: Tensor, wanted: int) -> None:
        """Add `wanted` of the drawn rows as centres: every so many-th of them compete, and the one that serves most wins."""
        row, place, score = self.nearest.better(Centers(drawn))
        gains = ((score - self.nearest.scores[row].clamp(min=-1)) * FINE).long()
        gains = self.ranks.sum(
            torch.zeros(len(drawn), dtype=torch.int64, device=row.device).index_add_(0, place, gains)
        )
        # The first `wanted` are drawn as by k-means++; a later one takes the place of its first if it gains more.
        wanted = min(wanted, len(drawn))
        slots = torch.full((TRIALS * wanted,), -1, device=row.device)
        slots[: len(drawn)] = gains
        winners = slots.view(TRIALS, wanted).argmax(0) * wanted + torch.arange(wanted, device=row.device)
        numbers = torch.full((len(drawn),), -1, device=row.device)
        numbers[winners] = torch.arange(len(self.centers), len(self.centers) + wanted, device=row.device)
        added = numbers[place] >= 0
        self.nearest.adopt(row[added], numbers[place[added]], score[added])
        self.centers = torch.cat([self.centers, drawn[winners]])

    def run(self, max_iter: int, tol: float) -> int:
        """Update centres and labels in turn. Returns the number of updates."""
        sums = torch.zeros(self.centers.shape, dtype=torch.int64, device=self.rows.device)
        summed = torch.full_like(self.nearest.labels, -1)  # the cluster in whose sum each row is
        updates, mean = 0, self.mean_cosine()
        while updates < max_iter and self.ranks.total(int((summed != self.nearest.labels).sum())):
            centers = self._means(sums, summed)
            self._refill(centers)
            self._move(centers)
            updates, before, mean = updates + 1, mean, self.mean_cosine()
            if tol and mean - before <= tol:
                break
        # The last assignment may have emptied a cluster. Each turn brings one row more to a cosine of 1, so it ends.
        while self._refill(centers := self.centers.clone()):
            self._move(centers)
        return updates

    def sizes(self) -> Tensor:
        return self.ranks.sum(torch.bincount(self.nearest.labels, minlength=len(self.centers)))

    def mean_cosine(self) -> float:
        return int(self.ranks.sum((self.nearest.scores * FINE).round().long().sum())) / FINE / self.total

    def _race(self, weights: np.ndarray, wanted: int, philox: np.random.Philox) -> np.ndarray:
        """Places of at most `wanted` rows, drawn without replacement with probabilities proportional to the weights.

        Every row waits for an exponential time at the rate of its weight, and the first ones win (Efraimidis and
        Spirakis, 2006): no process needs the weights of another.
        """
        uniform = ((philox.random_raw(self.total)[self.order] >> np.uint64(11)) + 0.5) * 2.0**-53
        waits = np.divide(-np.log(uniform), weights, out=np.full(len(weights), np.inf), where=weights > SAME)
        first = np.argpartition(waits, wanted)[:wanted] if wanted < len(waits) else np.arange(len(waits))
        mine = np.full((2, wanted), np.inf)
        mine[:, : len(first)] = waits[first], self.order[first]
        waits, places = self.ranks.gather(mine).swapaxes(0, 1).reshape(2, -1)
        winners = np.lexsort((places, waits))[:wanted]
        return places[winners[np.isfinite(waits[winners])]].astype(np.int64)

    def _rows_at(self, places: np.ndarray) -> Tensor:
        """The rows at these places, wherever they are."""
        rows = self.rows.new_zeros(len(places), self.rows.shape[1])
        if len(self.order):
            at = self.by_order[np.searchsorted(self.order, places, sorter=self.by_order).clip(max=len(self.order) - 1)]
            mine = np.flatnonzero(self.order[at] == places)
            rows[torch.from_numpy(mine).to(rows.device)] = self.rows[torch.from_numpy(at[mine]).to(rows.device)]
        return self.ranks.sum(rows)  # of which all but one are zero

    def _means(self, sums: Tensor, summed: Tensor) -> Tensor:
        """The centres of the clusters as they are, after bringing `sums` and `summed` up to date."""
        labels, touched = self.nearest.labels, torch.zeros(len(sums), dtype=torch.int64, device=sums.device)
        for part in (summed != labels).nonzero().flatten().split(ROWS_AT_A_TIME[sums.device.type]):
            terms = (self.rows.index_select(0, part) * UNIT).long()
            sums.index_add_(0, labels[part], terms)
            touched[labels[part]] = 1
            left = (summed[part] >= 0).nonzero().flatten()
            sums.index_add_(0, summed[part][left], terms[left], alpha=-1)
            touched[summed[part][left]] = 1
        summed.copy_(labels)
        centers = self.centers.clone()
        for part in self.ranks.sum(touched).nonzero().flatten().split(CLUSTERS_AT_A_TIME):
            total = self.ranks.sum(sums[part]).double()
            lengths = ordered_sum(total**2).sqrt()
            some = lengths > 0  # no rows, or rows that cancel: the centre stays
            centers[part[some]] = (total[some] / lengths[some, None]).float()
        return centers

    def _refill(self, centers: Tensor) -> bool:
        """Put the centres of empty clusters on rows that are served worst; says whether there were both."""
        sizes, labels, scores = self.sizes(), self.nearest.labels, self.nearest.scores
        empty = (sizes == 0).nonzero().flatten()
        if not len(empty):
            return False
        # One row of a cluster at most: equal rows have the same label, so no two of these are equal.
        worst = scores.new_full((len(sizes),), 2).scatter_reduce(0, labels, scores, "amin")
        worst = self.ranks.least(worst)
        order = torch.from_numpy(self.order).to(labels.device)
        order = torch.where(scores == worst[labels], order, self.total)
        places = self.ranks.least(torch.full_like(sizes, self.total).scatter_reduce(0, labels, order, "amin"))
        donors = worst.argsort(stable=True)
        donors = donors[(worst[donors] < 1 - SAME) & (sizes[donors] > 1)][: len(empty)]
        centers[empty[: len(donors)]] = self._rows_at(places[donors].cpu().numpy())
        return bool(len(donors))

    def _move(self, centers: Tensor) -> None:
        """Let the centres take these places, and assign the rows."""
        movement = self.nearest.scores.new_zeros(len(centers))
        for part in (centers != self.centers).any(1).nonzero().flatten().split(CLUSTERS_AT_A_TIME):
            # Rounded up, and for rows that are longer than 1 by rounding.
            movement[part] = (centers[part].double() - self.centers[part]).norm(dim=1) * (1 + 1e-6)
        self.nearest.follow(centers, movement)
        self.centers = centers


class _Ranks:
    """The processes that share the work; without a group, this one alone."""

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.world = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    def sum(self, values: Tensor) -> Tensor:
        return self._reduced(values, dist.ReduceOp.SUM)

    def least(self, values: Tensor) -> Tensor:
        return self._reduced(values, dist.ReduceOp.MIN)

    def total(self, value: int) -> int:
        return int(self.sum(torch.tensor(value, device=self.device)))

    def gather(self, values: np.ndarray) -> np.ndarray:
        """(world, ...) of the arrays of all processes, which have one shape."""
        every = np.zeros((self.world, *values.shape), values.dtype)
        every[self.rank] = values
        return self.sum(torch.from_numpy(every).to(self.device)).cpu().numpy()

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        if self.group is not None:
            dist.all_reduce(values, how, self.group)
        return values


Rows = tuple[Tensor, np.ndarray, np.ndarray | None]


def _read(vectors: Any, ids: Sequence[Any] | None) -> Rows:
    """Unit rows, the positions in `vectors` that they come from, and a hash for each row if there are ids."""
    rows, kept, done = torch.empty(0, 0), np.empty(len(vectors), dtype=np.int64), 0
    for positions, block in number_blocks(vectors, ids):
        if not done:
            rows = torch.empty(len(vectors), block.shape[1])
        span = slice(done, done := done + len(block))
        rows[span], kept[span] = _unit_floats(block), positions
    kept = kept[:done]
    return rows[:done], kept, None if ids is None else id_hashes(ids, len(vectors))[kept].view(np.int64)


def _unit_floats(block: np.ndarray) -> Tensor:
    return torch.from_numpy(unit(block).astype(np.float32))


def _all_or_none(read: Callable[[], Rows], ranks: _Ranks) -> Rows:
    """What `read` returns, unless it raises in one of the processes: the others would wait for that one for ever."""
    result, error = None, None
    try:
        result = read()
    except Exception as raised:
        error = raised
    failed = np.flatnonzero(ranks.gather(np.array(error is not None, dtype=np.int64)))
    if error is not None:
        raise error
    if result is None or len(failed):
        raise RuntimeError(f"process {failed[0]} of {ranks.world} could not take its rows; its own error says why.")
    return result


def _common_order(n: int, dim: int, hashes: np.ndarray | None, ranks: _Ranks) -> tuple[np.ndarray, int, int]:
    """The place of each row among those of all processes, how many those are, and their width."""
    facts = ranks.gather(np.array([n, dim, hashes is None], dtype=np.int64))
    counts, (_, dims, without) = facts[:, 0], facts[facts[:, 0] > 0].T
    total, start = int(counts.sum()), int(counts[: ranks.rank].sum())
    if not total:
        raise ValueError("no gradient vectors: at least one row is needed.")
    if len(set(dims.tolist())) > 1:
        raise ValueError(
            f"the processes have rows of {sorted(set(dims.tolist()))} numbers: sketches of different dim."
        )
    if len(set(without.tolist())) > 1:
        raise ValueError("some processes give ids and some do not: give them in all or in none.")
    if without[0]:
        return np.arange(start, start + n), total, int(dims[0])
    mine = np.zeros(total, dtype=np.int64)
    if hashes is not None:
        mine[start : start + n] = hashes
    every = np.sort(ranks.sum(torch.from_numpy(mine).to(ranks.device)).cpu().numpy())
    if (every[1:] == every[:-1]).any():
        raise ValueError("an id is in more than one process: every row must be given to one process only.")
    return np.searchsorted(every, hashes if hashes is not None else every[:0]), total, int(dims[0])
