"""The spectrum of a dataset's gradients: mergeable covariance, Vendi scores of any order, and what goes with them.

G-Vendi is exp(entropy) of the eigenvalues of C = (1/n) sum g g^T over unit gradient sketches g (PAPER, G-Vendi): the
effective number of independent learning directions, between 1 and min(n, d). It is not comparable across n or d, so
a result always carries both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .debiasing import debiased_vendi
from .jackknife import jackknife_interval, log_vendi
from .moments import Batch, GroupMoments
from .vectors import BLOCK_ROWS, ahead, content_hashes, id_hashes, number_blocks, unit, unit_rows


GROUPS = 20  # of the jackknife
KEEP_ROWS = 16384  # at dim = 1024 these rows still take less memory than the sums of the groups


@dataclass(frozen=True)
class VendiScore:
    """A score with what is needed to read it."""

    g_vendi: float
    "the Vendi score of the sketched gradients, the paper's number at order 1"
    g_vendi_debiased: float | None
    "estimate of the score without the sketch; None, with a note, where none is trustworthy"
    interval: tuple[float, float] | None
    "covers the expected g_vendi of a fresh sample of the same n in 95 % of cases; None for n = 1"
    order: float
    "q of the Vendi score"
    n: int
    "rows scored"
    dim: int
    "numbers in a row"
    saturation: float
    "g_vendi / min(n, dim): near 1, n or dim limits the score, not the data"
    feature_id: str | None = None
    "identity of the featurizer; scores with different ones do not compare"
    notes: tuple[str, ...] = ()
    "what to beware of, in plain words"

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; `notes` only when there are any."""
        result: dict[str, Any] = asdict(self) | {"interval": None if self.interval is None else list(self.interval)}
        del result["notes"]
        return result | ({"notes": list(self.notes)} if self.notes else {})


@dataclass(frozen=True)
class Rarefaction:
    """The expected score at smaller sizes. See `rarefaction`."""

    sizes: np.ndarray
    means: np.ndarray
    errors: np.ndarray
    "standard error of each mean, from the repeats; 0 at the full size"


class Covariance:
    """Second moment of unit rows, streaming and mergeable.

    Up to max(dim, 16384) rows are kept as they are, and split into 20 equal groups for the interval. Beyond, they are
    summed into 20 partial covariances, grouped by a hash of the row's id: 20 dim^2 float64, 168 MB at dim = 1024.

    `pickle` moves one between processes, ranks and files; see docs/vendi.md for the recipe with Accelerate.

    Args:
        dim: numbers in a row.
        feature_id: identity of the featurizer that made the rows; rows of two featurizers do not mix.

    Example:
        >>> first, second = Covariance(3).update([[1, 0, 0]]), Covariance(3).update([[0, 2, 0]])
        >>> round(first.merge(second).score().g_vendi, 6)
        2.0
    """

    def __init__(self, dim: int, *, feature_id: str | None = None) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.dim, self.feature_id = dim, feature_id
        self.n = 0
        self._rows: list[np.ndarray] = []
        self._hashes: list[np.ndarray] = []
        self._moments: GroupMoments | None = None
        self._seen: dict[int, int] = {}
        self._skipped = 0

    def update(self, vectors: Any, ids: Sequence[Any] | None = None) -> Covariance:
        """Adds rows. Neither their order nor the split into calls matters.

        Args:
            vectors: (n, dim) numbers of any real dtype and length, in any container of `number_blocks`: a memory map
                or a `datasets` column is read once, a thousand rows at a time. None rows are left out and counted.
            ids: one id a row, which decides its jackknife group. Without ids the row's content does, and a table of
                the contents seen takes some 90 bytes a row; give ids where covariances of repetitive data are merged.

        Raises:
            ValueError: wrong width, NaN, infinity or a zero row, not numbers; ids repeated or of another length.
        """
        before = self.n
        batches = self._batches(vectors, ids)
        self._multiply(ahead(batches) if len(vectors) > BLOCK_ROWS else batches)
        self._skipped += len(vectors) - (self.n - before)
        return self

    def merge(self, other: Covariance) -> Covariance:
        """Adds the rows of another covariance, from another batch, file or rank.

        Raises:
            ValueError: the two differ in dim or feature_id.
        """
        for field in ("dim", "feature_id"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                raise ValueError(f"covariances of different {field} do not merge: {mine!r} here, {theirs!r} there.")
        if other._moments is not None:
            self._moments = self._moments or GroupMoments(self.dim, GROUPS)
            self._moments.merge(other._moments)
            self._multiply(self._condense())
            self.n += other.n
        for rows, hashes in zip(list(other._rows), list(other._hashes), strict=True):
            self._multiply(self._add(rows, hashes))
        for content, count in other._seen.items():
            self._seen[content] = self._seen.get(content, 0) + count
        self._skipped += other._skipped
        return self

    def spectrum(self) -> np.ndarray:
        """Eigenvalues of C in float64, descending, min(n, dim) of them, clipped at 0 and scaled to sum 1."""
        return _shares(np.linalg.eigvalsh(self._matrix()))

    def score(self, order: float = 1.0) -> VendiScore:
        """Vendi score of order q > 0, with interval, debiased estimate and notes. The whole costs 20 spectra.

        Raises:
            ValueError: no rows yet, or an order that is not above 0.
        """
        _check_order(order)
        matrix = self._matrix()
        eigenvalues, vectors = np.linalg.eigh(matrix)
        shares = _shares(eigenvalues)
        value = math.exp(log_vendi(shares, order))
        debiased, reason = debiased_vendi(shares, self.n, self.dim, order)
        counts, partials = self._partials(shares, vectors[:, ::-1])
        limit = min(self.n, self.dim)
        interval = None
        if len(counts) > 1:
            low, high = jackknife_interval(shares[shares > _tiny(shares)], partials, counts, order)
            interval = (min(low, value), max(min(high, limit), value))
        notes = tuple(note for note in (*self._notes(value, interval), reason) if note)
        return VendiScore(
            value, debiased, interval, float(order), self.n, self.dim, value / limit, self.feature_id, notes
        )

    def _batches(self, vectors: Any, ids: Sequence[Any] | None) -> Iterator[Batch]:
        """Takes rows in, and yields what is to be multiplied: all of `update` but the products."""
        names = None if ids is None else id_hashes(ids, len(vectors))
        for positions, rows in number_blocks(vectors, ids):
            if rows.shape[1] != self.dim:
                raise ValueError(
                    f"the vectors have {rows.shape[1]} numbers a row, this covariance {self.dim}: they come from sketches "
                    "of different dim and do not mix."
                )
            yield from self._add(rows, content_hashes(rows, self._seen) if names is None else names[positions])

    def _add(self, rows: np.ndarray, hashes: np.ndarray) -> Iterator[Batch]:
        self.n += len(rows)
        if self._moments is not None:
            yield from self._moments.batches(rows, hashes % GROUPS)
            return
        self._rows.append(rows.copy())  # may be a view of what the caller goes on to change
        self._hashes.append(hashes)
        if self.n > max(self.dim, KEEP_ROWS):
            self._moments = GroupMoments(self.dim, GROUPS)
            yield from self._condense()

    def _condense(self) -> Iterator[Batch]:
        """Moves the kept rows to the sums of their groups."""
        assert self._moments is not None
        while self._rows:
            yield from self._moments.batches(self._rows.pop(), self._hashes.pop() % GROUPS)

    def _multiply(self, batches: Iterable[Batch]) -> None:
        for group, rows in batches:
            assert self._moments is not None  # they come from it
            self._moments.multiply(group, rows)

    def _matrix(self) -> np.ndarray:
        """n C, or the Gram matrix of the kept rows where that is smaller: the positive eigenvalues are the same."""
        if self.n == 0:
            skipped = f" ({self._skipped} were None: rows that the featurizer skipped)" if self._skipped else ""
            raise ValueError(f"no gradient vectors to score{skipped}: at least one row is needed.")
        if self._moments is not None:
            return self._moments.finish()[1].sum(axis=0)
        rows = unit(np.concatenate(self._rows))
        return rows @ rows.T if self.n <= self.dim else rows.T @ rows

    def _partials(self, shares: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, second moment summed over them in the eigenbasis) of each group that has rows."""
        vectors = vectors[:, shares > _tiny(shares)]
        if self._moments is not None:
            counts, sums = self._moments.finish()
            groups = np.flatnonzero(counts)
            partials = np.empty((len(groups), vectors.shape[1], vectors.shape[1]))
            for partial, group in zip(partials, groups, strict=True):
                np.matmul(vectors.T @ sums[group], vectors, out=partial)
            return counts[groups], partials
        if self.n <= self.dim:
            rows = vectors * np.sqrt(self.n * shares[shares > _tiny(shares)])
        else:
            rows = unit(np.concatenate(self._rows)) @ vectors
        # Groups of equal size, the same for any order of the rows; another sample of the same few rows splits otherwise.
        hashes = np.concatenate(self._hashes)
        hashes = (hashes ^ np.bitwise_xor.reduce(hashes)) * np.uint64(0x9E3779B97F4A7C15)
        count, rows = min(GROUPS, self.n), rows[np.argsort(hashes)]
        parts = [rows[g::count] for g in range(count)]
        return np.array([len(part) for part in parts]), np.stack([part.T @ part for part in parts])

    def _notes(self, value: float, interval: tuple[float, float] | None) -> list[str]:
        notes = []
        if self._skipped:
            notes.append(f"{self._skipped} rows without a gradient (skipped by the featurizer) are left out")
        if self.n == 1:
            notes.append("one row scores 1.0 whatever it is, and has no interval")
        elif interval is None:
            notes.append("no interval: all rows fell into one group of the jackknife")
        elif value < 1 + 1e-9:
            notes.append("all rows point in the same direction")
        elif self.n < 4 * value:
            notes.append(
                f"n = {self.n} limits the score: it is under four times the score, and more rows of the same kind would "
                "raise it. Compare only with scores at the same n"
            )
        if self.n > self.dim and value > self.dim / 2:
            notes.append(f"dim = {self.dim} limits the score: it is more than half of dim. Use a larger dim")
        return notes


def g_vendi(
    gradients: Any, *, order: float = 1.0, ids: Sequence[Any] | None = None, feature_id: str | None = None
) -> VendiScore:
    """G-Vendi of a set of gradient vectors (PAPER, G-Vendi).

    Args:
        gradients: (n, d) numbers: array, tensor (bfloat16 too), list of rows, `datasets.Dataset` with a `gradient`
            column, or such a column. Rows need not have unit length; None rows are left out and counted in the notes.
        order: q > 0 of the Vendi score; 1 is G-Vendi, `math.inf` the inverse of the largest eigenvalue.
        ids: one id a row, which decides its jackknife group. Without ids the row's content does.
        feature_id: identity of the featurizer, carried into the result.

    Raises:
        ValueError: no rows, rows of different width, NaN, infinity or zero rows, repeated ids, order not above 0.

    Example:
        >>> round(g_vendi([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]).g_vendi, 6)
        2.0
    """
    _check_order(order)
    dim = next((rows.shape[1] for _, rows in number_blocks(gradients, ids)), None)  # reads one block
    if dim is None:
        raise ValueError(f"no gradient vectors among {len(gradients)} rows: at least one row is needed.")
    return Covariance(dim, feature_id=feature_id).update(gradients, ids).score(order)


def vendi(eigenvalues: Any, order: float = 1.0) -> float:
    """Vendi score of order q of a spectrum: the exponential of its Renyi entropy.

    Args:
        eigenvalues: numbers at or above 0, not all 0; scaled here to sum 1.
        order: q > 0.

    Example:
        >>> round(vendi([0.5, 0.5, 0.0]), 6)
        2.0
    """
    _check_order(order)
    values = np.asarray(eigenvalues, dtype=np.float64).ravel()
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError(f"eigenvalues must be finite, at or above 0 and not all 0, got {values[:10]}.")
    return math.exp(log_vendi(values, order))


def contribution(vectors: Any) -> np.ndarray:
    """What each row adds to the entropy: s(x) = -x^T log(C) x, whose mean over the rows is log G-Vendi exactly.

    Args:
        vectors: (n, d) numbers in any container of `number_blocks`.

    Returns:
        (n,) float64, at or above 0; large for a row in directions that few others share.

    Example:
        >>> contribution([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).round(3)
        array([0.288, 0.288, 0.288, 1.386])
    """
    rows = unit_rows(vectors)
    n, dim = rows.shape
    eigenvalues, basis = np.linalg.eigh(rows @ rows.T if n <= dim else rows.T @ rows)
    kept = eigenvalues > _tiny(eigenvalues)
    shares, basis = eigenvalues[kept] / n, basis[:, kept]
    squares = basis**2 * (n * shares) if n <= dim else (rows @ basis) ** 2
    return -squares @ np.log(shares)


def rarefaction(
    vectors: Any, sizes: Sequence[int] | None = None, *, order: float = 1.0, repeats: int = 5, seed: int = 0
) -> Rarefaction:
    """Expected score of m rows drawn without replacement, for several m up to n: where the curve is going.

    Args:
        vectors: (n, d) numbers in any container of `number_blocks`.
        sizes: row counts from 1 to n; default, eight up to n on a logarithmic scale. They come back sorted.
        order: q > 0.
        repeats: subsamples for each size; at least 2. They depend on the rows' content and the seed, not on the order
            of the rows.
        seed: of the subsamples.

    Raises:
        ValueError: a size outside 1 to n, fewer than 2 repeats, and as `number_blocks`.

    Example:
        >>> rarefaction(np.eye(8), [2, 4, 8]).means.round(6)
        array([2., 4., 8.])
    """
    _check_order(order)
    rows = unit_rows(vectors)
    n = len(rows)
    chosen = np.geomspace(max(n / 50, 1), n, 8).round() if sizes is None else np.asarray(sizes)
    chosen = np.unique(chosen.astype(int))
    if repeats < 2 or not chosen.size or chosen[0] < 1 or chosen[-1] > n:
        raise ValueError(f"sizes must lie in 1 to n = {n} and repeats be at least 2, got {sizes} and {repeats}.")
    rows = rows[np.argsort(content_hashes(rows.astype(np.float32), {}))]
    orders = [np.random.Generator(np.random.Philox([seed, r])).permutation(n) for r in range(repeats)]
    # All rows are one sample, whatever their order.
    scores = [[_score_of(rows[o[:m]], order) for o in (orders if m < n else orders[:1])] for m in chosen]
    errors = [np.std(s, ddof=1) / math.sqrt(len(s)) if len(s) > 1 else 0.0 for s in scores]
    return Rarefaction(chosen, np.array([np.mean(s) for s in scores]), np.array(errors))


def _score_of(rows: np.ndarray, order: float) -> float:
    matrix = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return math.exp(log_vendi(_shares(np.linalg.eigvalsh(matrix)), order))


def _shares(eigenvalues: np.ndarray) -> np.ndarray:
    """Descending, sum 1, zero where rounding alone explains the value: at low orders such dust would count."""
    dust = len(eigenvalues) * np.finfo(float).eps * eigenvalues.max()
    clipped = np.where(eigenvalues > dust, eigenvalues, 0.0)[::-1]
    total = clipped.sum()
    assert abs(eigenvalues.sum() / total - 1) < 1e-6, f"eigenvalues sum to {eigenvalues.sum()}, {total} of it kept"
    return clipped / total


def _tiny(eigenvalues: np.ndarray) -> float:
    return 1e-12 * float(eigenvalues.max())


def _check_order(order: float) -> None:
    if not order > 0:
        raise ValueError(f"order {order!r} is not a Vendi order: give a number above 0, such as 0.5, 1, 2 or inf.")
