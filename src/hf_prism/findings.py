"""What there is to know about a dataset's gradients: the numbers behind the report.

All rows are scored. What costs more is done on a sample, drawn by seed: near-duplicates are looked for among 100,000 rows at
most, clusters, contributions and other measures take 20,000 at most, and the map shows 3,000 at most. The page says how many
they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .baselines import MEASURES, Measure
from .clustering import SphericalKMeans, sparse_clusters
from .families import isolated_families
from .near_duplicates import THRESHOLD, near_duplicates, nearest_cosines
from .origin import origin_of
from .vectors import column_of, id_hashes, number_blocks, unit
from .vendi import Covariance, Rarefaction, VendiScore, contribution, rarefaction


if TYPE_CHECKING:
    from datasets import Dataset

COMPARED, EXAMINED, DRAWN = 100_000, 20_000, 3_000
"""Rows at most among which near-duplicates are looked for, whose clusters are found, and that the map shows."""

ROWS_A_CLUSTER = 10  # the paper's code: k is a tenth of the rows
SPARSE = 0.5  # the paper's code: the smaller half of the clusters


@dataclass(frozen=True)
class Findings:
    """What `examine` found. Positions are those of rows in the features."""

    name: str
    "of the data, for people"
    proxy: str
    "the model whose gradients these are, for people; may be empty"
    seed: int
    "of the samples, the clusters, and ties"
    score: VendiScore
    "of all rows"
    spectrum: np.ndarray
    "(r,) eigenvalues of the covariance of all rows, descending, sum 1"
    curve: Rarefaction
    "the score at fewer rows, drawn from those examined"
    ids: list[str]
    "of all rows"
    texts: list[tuple[str, str]] | None
    "prompt and completion of all rows"
    num_copies: int | None
    "rows whose text an earlier row has, to the letter; None without texts"
    threshold: float
    "cosine from which on two rows are near-duplicates"
    num_compared: int
    "rows among which near-duplicates were looked for"
    groups: Sequence[np.ndarray]
    """positions of rows that are much alike: near-duplicates, and isolated families, joined where they overlap; the
    largest group first, and in each the row nearest to its mean first"""
    cosines: Mapping[int, tuple[float, float]]
    """of a group that is not near-duplicates alone, by its number: the mean cosine of its rows, and that of its rows with
    the nearest other row examined, NaN if there is none"""
    rows: np.ndarray
    "(m,) positions of the rows examined, in the order they were drawn"
    nearest: np.ndarray
    "(m,) cosine of each of them with the nearest other of them; empty for a single row"
    contributions: np.ndarray
    "(m,) what each adds to their entropy, see `vendi.contribution`"
    clusters: np.ndarray
    "(m,) the cluster of each"
    closeness: np.ndarray
    "(m,) cosine of each with the centre of its cluster"
    sizes: np.ndarray
    "(k,) rows of each cluster"
    sparse: np.ndarray
    "(k,) bool: the smallest half of the clusters"
    points: np.ndarray
    "(p, 2) the first p rows examined in the plane of their first two principal components"
    variance_shares: tuple[float, float]
    "of the variance along the two"
    measures: Sequence[tuple[Measure, float | str]]
    "other measures of the rows examined, or why there is no value"

    @property
    def num_redundant(self) -> int:
        """Rows beside one of every group."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def kinds(self) -> list[str]:
        """What makes each group one: "same text", "near-duplicates", or "family" where those alone do not hold it together."""
        return [self._kind(number) for number in range(len(self.groups))]

    def _kind(self, number: int) -> str:
        if self.texts is not None and len({self.texts[row] for row in self.groups[number]}) == 1:
            return "same text"
        return "family" if number in self.cosines else "near-duplicates"

    @property
    def memberships(self) -> dict[str, np.ndarray]:
        """Which of the rows examined, (m,) bool, are in a group of each of the kinds that there are."""
        rows_of: dict[str, list[np.ndarray]] = {}
        for kind, group in zip(self.kinds, self.groups, strict=True):
            rows_of.setdefault(kind, []).append(group)
        return {kind: np.isin(self.rows, np.concatenate(groups)) for kind, groups in sorted(rows_of.items())}

    @property
    def redundancy(self) -> str:
        """How many rows are much like another, in words."""
        count, of = self.num_redundant, self.num_compared
        compared = " compared" * (of < self.score.n)
        if not count:
            return "No row" + f" of the {of:,}{compared}" * bool(compared) + " is much like another"
        add, they = ("add", "they are") if count > 1 else ("adds", "it is")
        return f"{count:,} of the {of:,} rows{compared} ({count / of:.0%}) {add} little: {they} much like another row"

    @property
    def headline(self) -> str:
        """The score and the redundancy, as plain text."""
        interval = self.score.interval
        told = f", 95% interval {interval[0]:,.1f} to {interval[1]:,.1f}" if interval else ""
        return f"G-Vendi {self.score.g_vendi:,.1f}{told}, n = {self.score.n:,}. {self.redundancy}."


def examine(
    features: Dataset,
    texts: Sequence[Any] | None = None,
    *,
    labels: Sequence[Any] | None = None,
    name: str = "the dataset",
    proxy: str = "",
    feature_id: str | None = None,
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> Findings:
    """Compute what the report shows.

    Args:
        features: As `featurize` and `load_features` return them: columns gradient (n, d) and, if they are there, id, loss
            and gradient_norm. Rows without id are named by their number, which their order then changes.
        texts: Of the same rows, to be shown: (prompt, completion) pairs or strings. None shows ids only.
        labels: Of the same rows, one or several a row, for the skill-set entropy.
        name: Of the data, for people.
        proxy: Name of the model whose gradients these are, for people.
        feature_id: Of the gradients; by default the one that they carry.
        threshold: Cosine from which on two rows are near-duplicates.
        seed: Of the samples, the clusters, and ties. The order of the rows changes nothing.

    Raises:
        ValueError: no rows, no gradient column, texts or labels that are not one a row, a text that is no text; and as
            `Covariance.update` and `near_duplicates`.

    Example:
        >>> from datasets import Dataset
        >>> features = Dataset.from_dict({"id": ["a", "b", "c"], "gradient": [[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]]})
        >>> examine(features, ["one", "another", "one more"]).num_redundant
        1
    """
    if "gradient" not in features.column_names:
        raise ValueError(f"no column 'gradient' among {features.column_names}: run the featurizer on it first.")
    named = column_of(features, "id")
    ids = [f"row {i}" for i in range(len(features))] if named is None else [str(name) for name in named]
    pairs = None if texts is None else _pairs(texts, ids)
    if labels is not None and len(labels) != len(ids):
        raise ValueError(f"{len(labels)} labels for {len(ids)} rows: give one for each row of the features.")
    score, spectrum = _score(features, ids, feature_id)
    compared, vectors = _read(features, _drawn(ids, seed)[:COMPARED])
    near = near_duplicates(vectors, threshold=threshold, ids=[ids[row] for row in compared])
    count = min(EXAMINED, len(compared))
    rows = compared[:count]
    kmeans = _cluster(vectors[:count], [ids[row] for row in rows], near, seed)
    closeness = np.einsum("ij,ij->i", vectors[:count], kmeans.cluster_centers_[kmeans.labels_], dtype=np.float64).clip(
        -1, 1
    )
    is_near = np.isin(np.arange(len(vectors)), np.concatenate([[-1], *near]))
    joined = sorted(_joined([*near, *isolated_families(vectors[:count], kmeans.labels_)]), key=len, reverse=True)
    groups = [compared[_from_the_middle(vectors, group)] for group in joined]
    cosines = {
        number: _cosines(vectors, group, count) for number, group in enumerate(joined) if not is_near[group].all()
    }
    vectors = vectors[:count]
    points, shares = _principal(vectors)
    columns = {key: _column(features, key, rows) for key in ("loss", "gradient_norm")}
    return Findings(
        name=name,
        proxy=proxy,
        seed=seed,
        score=score,
        spectrum=spectrum,
        curve=_curve(vectors, score, seed),
        ids=ids,
        texts=pairs,
        num_copies=None if pairs is None else len(pairs) - len(set(pairs)),
        threshold=threshold,
        num_compared=len(compared),
        groups=groups,
        cosines=cosines,
        rows=rows,
        nearest=nearest_cosines(vectors) if len(rows) > 1 else np.empty(0),
        contributions=contribution(vectors),
        clusters=kmeans.labels_,
        closeness=closeness,
        sizes=kmeans.cluster_sizes_,
        sparse=sparse_clusters(kmeans.cluster_sizes_, SPARSE, seed),
        points=points[:DRAWN],
        variance_shares=shares,
        measures=_measures(
            texts=None if pairs is None else ["\n".join(pairs[row]) for row in rows],
            gradients=vectors,
            clusters=kmeans.labels_,
            labels=None if labels is None else [labels[int(row)] for row in rows],
            **columns,
        ),
    )


def _pairs(texts: Sequence[Any], ids: Sequence[str]) -> list[tuple[str, str]]:
    if len(texts) != len(ids):
        raise ValueError(f"{len(texts)} texts for {len(ids)} rows: give one for each row of the features.")
    pairs = []
    for row, text in enumerate(texts):
        pair = (text, "") if isinstance(text, str) else text
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ValueError(
                f"the text of row {row} (id {ids[row]!r}) is {str(text)[:60]!r}: give a string, or a pair of strings, "
                "prompt and completion."
            )
        pairs.append((pair[0], pair[1]))
    return pairs


def _score(features: Dataset, ids: list[str], feature_id: str | None) -> tuple[VendiScore, np.ndarray]:
    dim = next((block.shape[1] for _, block in number_blocks(features, ids)), None)  # reads one block
    if dim is None:
        raise ValueError(f"no gradient vectors among {len(features)} rows: there is nothing to report.")
    covariance = Covariance(dim, feature_id=feature_id or origin_of(features).feature_id).update(features, ids)
    return covariance.score(), covariance.spectrum()


def _drawn(ids: list[str], seed: int) -> np.ndarray:
    """All positions, in an order that depends on ids and seed alone: the first ones are a random sample."""
    order = np.argsort(id_hashes(ids, len(ids)))
    draws = np.random.Philox(key=seed).random_raw(len(ids))
    return order[np.argsort(draws, kind="stable")]


def _read(features: Dataset, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wanted rows that have a gradient, in the same order: positions, and (c, d) float32 of unit length."""
    place = np.full(len(features), -1)
    place[wanted] = np.arange(len(wanted))
    found, parts = [], []
    for positions, block in number_blocks(features):
        chosen = place[positions] >= 0
        found.append(positions[chosen])
        parts.append(unit(block[chosen]).astype(np.float32) if chosen.any() else block[:0].astype(np.float32))
    positions = np.concatenate(found)
    order = np.argsort(place[positions])
    return positions[order], np.concatenate(parts)[order]


def _cluster(vectors: np.ndarray, ids: list[str], near: Sequence[np.ndarray], seed: int) -> SphericalKMeans:
    """A tenth of the rows as clusters, and never more than there are rows that are no near-duplicates."""
    redundant = sum(int((group < len(vectors)).sum()) - 1 for group in near if (group < len(vectors)).any())
    count = max(1, min(len(vectors) // ROWS_A_CLUSTER, len(vectors) - redundant))
    return SphericalKMeans(count, seed=seed).fit(vectors, ids=ids)


def _joined(groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The groups, those that share a row made one."""
    home: dict[int, int] = {}
    members: dict[int, set[int]] = {}
    for number, group in enumerate(groups):
        members[number] = set(group.tolist())
        for other in {home[row] for row in members[number] if row in home}:
            members[number] |= members.pop(other)
        home.update(dict.fromkeys(members[number], number))
    return [np.array(sorted(rows)) for rows in members.values()]


def _from_the_middle(vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The group by falling cosine with its mean."""
    members = vectors[group]
    return group[np.argsort(-members @ members.mean(axis=0), kind="stable")]


def _cosines(vectors: np.ndarray, group: np.ndarray, count: int) -> tuple[float, float]:
    """The mean cosine of a group's rows, and the greatest that one of the first `count` other rows has with them."""
    total, size = vectors[group].sum(axis=0, dtype=np.float64), len(group)
    others = np.delete(np.arange(count), group[group < count])
    nearest = (vectors[:count] @ (total / size).astype(np.float32))[others].max() if len(others) else np.nan
    return float((total @ total - size) / (size * (size - 1))), float(nearest)


def _principal(vectors: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Coordinates along the first two principal components, and their shares of the variance."""
    centered = vectors - vectors.mean(axis=0, dtype=np.float64)
    variances, basis = np.linalg.eigh(centered.T @ centered)
    basis = np.pad(basis[:, ::-1][:, :2], ((0, 0), (0, max(0, 2 - len(basis)))))
    basis *= np.sign(basis[np.abs(basis).argmax(axis=0), [0, 1]])  # an eigenvector has no sign of its own
    shares = np.pad(variances[::-1].clip(0), (0, 1)) / max(variances.sum(), np.finfo(float).tiny)
    return centered @ basis, (float(shares[0]), float(shares[1]))


def _curve(vectors: np.ndarray, score: VendiScore, seed: int) -> Rarefaction:
    curve = rarefaction(vectors, seed=seed)
    if len(vectors) == score.n:
        return curve
    return Rarefaction(
        np.append(curve.sizes, score.n), np.append(curve.means, score.g_vendi), np.append(curve.errors, 0.0)
    )


def _column(features: Dataset, name: str, rows: np.ndarray) -> list[Any] | None:
    column = column_of(features, name)
    return None if column is None else [column[row] for row in rows]


def _measures(**inputs: Any) -> list[tuple[Measure, float | str]]:
    """The measures whose input is there; those that these rows do not allow say why."""
    found: list[tuple[Measure, float | str]] = []
    for measure in MEASURES:
        if inputs.get(measure.reads) is None:
            continue
        try:
            found.append((measure, measure.function(inputs[measure.reads])))
        except ValueError as error:
            found.append((measure, str(error)))
    return found
