"""Which of several datasets is more diverse, by how much, and what one adds to another.

G-Vendi is not comparable at unequal n, so every dataset is cut to the size of the smallest. The ratio of two scores has an
interval, see `paired`, and a verdict never claims more than it allows. See docs/compare.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .origin import Origin, origin_of, require_same_origin
from .paired import DUST, Mixture, PairedScores, Ratio
from .vectors import BLOCK_ROWS, column_of, content_hashes, id_hashes, number_blocks, unit
from .vendi import GROUPS, Covariance, Rarefaction, VendiScore, rarefaction, vendi


SAME_COSINE = 0.999  # of a row's vector in two datasets: bfloat16 and another batch move it by less
FEW_ROWS = 50  # under which a kind of rows that is rare in the sample spoils intervals, docs/vendi.md
RAREFIED_ROWS = 16384  # of one dataset in its curve: 128 MB at dim = 1024


@dataclass(frozen=True)
class Pair:
    """Two of the datasets at matched n."""

    a: str
    "name of the first"
    b: str
    "name of the second"
    shared: int
    "rows among the n of each that are in both"
    ratio: Ratio
    "score of a over score of b"
    mixture: Mixture
    "what each adds to the other"
    union_g_vendi: float
    "score of all distinct rows of both together: not comparable with the others, whose n is smaller"
    union_n: int
    "how many these are"
    verdict: str
    "what the interval allows to say about which is more diverse"
    mixture_verdict: str
    "the same about what each adds to the other"
    notes: tuple[str, ...] = ()
    "what to beware of in this pair"


@dataclass(frozen=True)
class Comparison:
    """Several datasets at the same n. See `compare`."""

    n: int
    "rows of each dataset that were compared: the size of the smallest"
    dim: int
    "numbers in a row"
    order: float
    "q of the Vendi score"
    seed: int
    "of the choice of rows"
    feature_id: str | None
    "identity of the featurizer, if any of the datasets says it"
    sizes: dict[str, int]
    "all rows of each dataset"
    scores: dict[str, VendiScore]
    "of n rows of each"
    rarefactions: dict[str, Rarefaction]
    "expected score of each at n, n/2, n/4, ... and 2n, 4n, ... rows as far as there are some"
    pairs: tuple[Pair, ...]
    "each two of them, in the order given"
    notes: tuple[str, ...] = ()
    "what to beware of, in plain words"

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; an infinite order is "inf"."""
        order = "inf" if math.isinf(self.order) else self.order
        curves = {
            name: {"sizes": curve.sizes.tolist(), "means": curve.means.tolist(), "errors": curve.errors.tolist()}
            for name, curve in self.rarefactions.items()
        }
        return {
            **{name: getattr(self, name) for name in ("n", "dim", "seed", "feature_id")},
            "order": order,
            "sizes": dict(self.sizes),
            "scores": {name: score.as_dict() | {"order": order} for name, score in self.scores.items()},
            "rarefactions": curves,
            "pairs": [_plain(asdict(pair)) for pair in self.pairs],
            "notes": list(self.notes),
        }


def compare(
    datasets: Mapping[str, Any], *, ids: Mapping[str, Sequence[Any]] | None = None, order: float = 1.0, seed: int = 0
) -> Comparison:
    """Compares the diversity of two or more datasets at the same number of rows.

    Of each dataset n rows are kept, those with the smallest hash of (seed, id): a row that several hold is kept or left
    out alike. Rows of two datasets are the same if their ids are and their vectors nearly are; without ids, if their
    contents are.

    All rows of all datasets are held in memory as they come, and n rows of each in float64.

    Args:
        datasets: two or more sets of gradients by name: (n, d) numbers in any container of `number_blocks`, or features
            as `featurize` and `load_features` return them.
        ids: one id a row for each dataset; by default the `id` column of features. Where a dataset has none, the content
            of rows stands in for their ids, in all datasets alike.
        order: q > 0 of the Vendi score.
        seed: of the choice of rows, of their groups, and of the exchanges.

    Raises:
        ValueError: fewer than two datasets, different dim or featurizers, unknown names in `ids`, and as `number_blocks`;
            the message names the dataset.

    Example:
        >>> plane, line = np.eye(2)[np.arange(40) % 2], np.eye(2)[np.zeros(40, int)]
        >>> compare({"plane": plane, "line": line}).pairs[0].verdict
        'plane is more diverse than line: 2.00 times (2.00 to 2.00) at 40 rows each.'
    """
    if not isinstance(datasets, Mapping):
        raise ValueError(
            f'give the datasets by name, compare({{"a": ..., "b": ...}}), not as {type(datasets).__name__}.'
        )
    if isinstance(seed, bool) or seed != int(seed) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {seed!r}.")
    if len(datasets) < 2:
        raise ValueError(
            f"nothing to compare: {len(datasets)} dataset given ({', '.join(datasets)}). Give two or more."
        )
    origins = {name: origin_of(vectors) for name, vectors in datasets.items()}
    feature_id = require_same_origin(origins).feature_id
    samples, notes = _read(datasets, dict(ids or {}), seed)
    n = min(len(sample.hashes) for sample in samples.values())
    scores = {name: sample.score(n, order, feature_id) for name, sample in samples.items()}
    both = list(combinations(samples, 2))
    pairs = tuple(
        _pair(one, other, samples[one], samples[other], n, order, seed)
        for one, other in tqdm(both, desc="Comparing", unit=" pairs", delay=2, leave=False)
    )
    sizes = {name: len(sample.hashes) for name, sample in samples.items()}
    curves = {name: sample.rarefaction(n, order, seed) for name, sample in samples.items()}
    dim = next(iter(scores.values())).dim
    notes += _notes(sizes, samples, scores, origins)
    return Comparison(n, dim, float(order), seed, feature_id, sizes, scores, curves, pairs, tuple(notes))


@dataclass(frozen=True)
class _Sample:
    """All rows of a dataset, in the order of their hashes: the first n of them are the matched rows."""

    hashes: np.ndarray
    vectors: np.ndarray
    ids: list[Any] | None
    skipped: int

    def score(self, n: int, order: float, feature_id: str | None) -> VendiScore:
        covariance = Covariance(self.vectors.shape[1], feature_id=feature_id)
        return covariance.update(self.vectors[:n], self.ids and self.ids[:n]).score(order)

    def rarefaction(self, n: int, order: float, seed: int) -> Rarefaction:
        """At n, at its halves down to 10, and at its doubles."""
        rows = self.vectors[: max(n, RAREFIED_ROWS)]
        sizes = {n >> k for k in range(6) if k == 0 or n >> k >= 10} | {
            n << k for k in range(20) if n << k <= len(rows)
        }
        return rarefaction(rows, sorted(sizes | {len(rows)}), order=order, seed=seed)


def _read(
    datasets: Mapping[str, Any], ids: dict[str, Sequence[Any]], seed: int
) -> tuple[dict[str, _Sample], list[str]]:
    if unknown := sorted(set(ids) - set(datasets)):
        raise ValueError(f"ids are given for {unknown[0]!r}, which is not one of the datasets: {', '.join(datasets)}.")
    known = {name: list(ids[name]) if name in ids else column_of(datasets[name], "id") for name in datasets}
    unnamed = [name for name, column in known.items() if column is None]
    notes = []
    if unnamed and len(unnamed) < len(known):
        notes.append(f"the ids of {_listed(unnamed)} are unknown: rows in several datasets are told by their contents")
    samples = {
        name: _sample(name, vectors, None if unnamed else known[name], seed) for name, vectors in datasets.items()
    }
    first, *others = samples
    for other in others:
        here, there = samples[first].vectors.shape[1], samples[other].vectors.shape[1]
        if here != there:
            raise ValueError(
                f"the vectors of {first!r} have {here} numbers a row, those of {other!r} {there}: sketches of different "
                "dim do not compare. Featurize both with the same dim."
            )
    return samples, notes


def _sample(name: str, vectors: Any, ids: list[Any] | None, seed: int) -> _Sample:
    try:
        names = None if ids is None else id_hashes(ids, len(vectors))
        blocks = list(number_blocks(vectors, ids))
    except ValueError as error:
        raise ValueError(f"dataset {name!r}: {error}") from error
    if not blocks:
        raise ValueError(f"dataset {name!r}: no gradient vectors among {len(vectors)} rows. At least one is needed.")
    kept = np.concatenate([positions for positions, _ in blocks])
    if names is None:
        seen: dict[int, int] = {}
        hashes = np.concatenate([content_hashes(unit(rows).astype(np.float32), seen) for _, rows in blocks])
    else:
        hashes = names[kept]
    hashes = _seeded(hashes, seed)
    order = np.argsort(hashes, kind="stable")
    rows = np.concatenate([rows for _, rows in blocks])[order]
    return _Sample(
        hashes[order], rows, None if ids is None else [ids[i] for i in kept[order]], len(vectors) - len(kept)
    )


def _seeded(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Another one-to-one hash for every seed."""
    keys = np.random.Philox(key=seed).random_raw(4).reshape(2, 2)
    for added, factor in keys:
        hashes = (hashes ^ added) * (factor | np.uint64(1))
        hashes ^= hashes >> np.uint64(32)
    return hashes


def _pair(one: str, other: str, a: _Sample, b: _Sample, n: int, order: float, seed: int) -> Pair:
    in_a, in_b, same = _common(a, b)
    inside = (in_a < n) & (in_b < n)
    rows, of_a, of_b = _positions(a, b, in_a[inside], in_b[inside], n)
    paired = PairedScores(rows, of_a, of_b, order, seed)
    shared = int(np.sum(same & inside))
    ratio, (mixture, note) = paired.ratio(), paired.mixture()
    notes = [note] if note else []
    if different := int(np.sum(~same)):
        notes.append(
            f"{different:,} ids of {one} and {other} are equal where the vectors are not: these are different rows"
        )
    union = _union(a, b, in_b[same])
    identical = shared == len(a.hashes) == len(b.hashes)
    return Pair(
        one,
        other,
        shared,
        ratio,
        mixture,
        vendi(union.spectrum(), order),
        union.n,
        _verdict(one, other, ratio, n, identical=identical),
        _mixture_verdict(one, other, mixture, n, identical=identical),
        tuple(notes),
    )


def _union(a: _Sample, b: _Sample, shared_in_b: np.ndarray) -> Covariance:
    """All rows of a, and those of b that are not in a."""
    union = Covariance(a.vectors.shape[1])
    for sample, chosen in ((a, np.arange(len(a.hashes))), (b, np.delete(np.arange(len(b.hashes)), shared_in_b))):
        for start in range(0, len(chosen), BLOCK_ROWS):
            union.update(sample.vectors[chosen[start : start + BLOCK_ROWS]])
    return union


def _common(a: _Sample, b: _Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in a and in b of the rows whose ids both have, and whether their vectors are nearly the same."""
    _, in_a, in_b = np.intersect1d(a.hashes, b.hashes, return_indices=True)
    same = np.empty(len(in_a), dtype=bool)
    for start in range(0, len(in_a), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        cosines = np.einsum("ij,ij->i", unit(a.vectors[in_a[part]]), unit(b.vectors[in_b[part]]))
        same[part] = cosines >= SAME_COSINE
    return in_a, in_b, same


def _positions(
    a: _Sample, b: _Sample, in_a: np.ndarray, in_b: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows of both, and which of them stands at each of n positions in a and in b.

    Common rows come first, at the same position in both, then all others in the order of their hashes.
    """
    of_a, of_b = unit(a.vectors[:n]), unit(b.vectors[:n])
    places = np.full(n, -1)
    equal = (of_a[in_a] == of_b[in_b]).all(axis=1)
    places[in_b[equal]] = in_a[equal]  # not twice: a dataset and itself must give the same numbers to the last bit
    own = np.flatnonzero(places < 0)
    places[own] = n + np.arange(len(own))
    rows = np.concatenate([of_a, of_b[own]])
    return rows, _common_first(n, in_a), places[_common_first(n, in_b)]


def _common_first(n: int, common: np.ndarray) -> np.ndarray:
    return np.concatenate([common, np.delete(np.arange(n), common)])


def _verdict(one: str, other: str, ratio: Ratio, n: int, *, identical: bool) -> str:
    if identical:
        return f"{one} and {other} are identical: the same {n:,} rows."
    if ratio.interval is None:
        return f"too few rows to tell {one} and {other} apart: {n:,} each."
    low, high = ratio.interval
    if ratio.direction == 0:
        return (
            f"no difference shown: {one} is between {_number(low)} and {_number(high)} times as diverse as {other} at "
            f"{n:,} rows each."
        )
    value = ratio.value
    if ratio.direction < 0:
        one, other, value, low, high = other, one, 1 / value, 1 / high, 1 / low
    return f"{one} is more diverse than {other}: {_number(value)} times ({_number(low)} to {_number(high)}) at {n:,} rows each."


def _mixture_verdict(one: str, other: str, mixture: Mixture, n: int, *, identical: bool) -> str:
    if identical:
        return f"neither {one} nor {other} adds anything to the other."
    parts = [_effect(one, other, mixture.over_a), _effect(other, one, mixture.over_b)]
    return f"at {n:,} rows, " + "; ".join(parts) + "."


def _effect(kept: str, added: str, ratio: Ratio) -> str:
    change = f"half of {kept} exchanged for {added}"
    if ratio.interval is None:
        return f"{change}: too few rows to tell"
    low, high = (_number(bound) for bound in ratio.interval)
    if ratio.direction == 0:
        return f"{change}: no difference shown, between {low} and {high} times as diverse"
    return f"{change} is {'more' if ratio.direction > 0 else 'less'} diverse: {_number(ratio.value)} times ({low} to {high})"


def _number(ratio: float) -> str:
    """Two decimals, and more where these would hide that it is not 1."""
    digits = 2
    while abs(ratio - 1) > DUST and digits < 9 and float(f"{ratio:.{digits}f}") == 1:
        digits += 1
    return f"{ratio:.{digits}f}"


def _notes(
    sizes: Mapping[str, int],
    samples: Mapping[str, _Sample],
    scores: Mapping[str, VendiScore],
    origins: Mapping[str, Origin],
) -> list[str]:
    """What to beware of, apart from single pairs."""
    n, dim = min(sizes.values()), next(iter(scores.values())).dim
    notes = [
        f"{name}: {sample.skipped:,} rows without a gradient are left out"
        for name, sample in samples.items()
        if sample.skipped
    ]
    notes += [
        f"{name}: {size - n:,} of {size:,} rows are left aside, to compare at the {n:,} of the smallest"
        for name, size in sizes.items()
        if size > 2 * n
    ]
    if n < GROUPS:
        notes.append(f"n = {n} is too small for intervals: they need {GROUPS} rows of each dataset")
    elif n < FEW_ROWS:
        notes.append(
            f"n = {n} is small: a kind of rows of which these happen to hold none is in no interval. Trust them from "
            f"{FEW_ROWS} rows on"
        )
    if limited := [name for name, score in scores.items() if n < 4 * score.g_vendi]:
        notes.append(
            f"n = {n:,} limits the score of {_listed(limited)}: it is under four times the score. At more rows the ratio "
            "may be another; see where the rarefaction curves are going"
        )
    if limited := [name for name, score in scores.items() if n > dim and score.g_vendi > dim / 2]:
        notes.append(
            f"dim = {dim:,} limits the score of {_listed(limited)}: it is more than half of dim, and the difference of two "
            "such scores is understated. Use a larger dim"
        )
    if unknown := [name for name, origin in origins.items() if origin.feature_id is None]:
        notes.append(
            f"the feature_id of {_listed(unknown)} is unknown: scores compare only where the same featurizer made all vectors"
        )
    if (pairs := math.comb(len(sizes), 2)) > 1:
        notes.append(
            f"each interval is for its pair alone: with {pairs} pairs, the chance that some equal pair is called different "
            f"is up to {min(5 * pairs, 100)} %"
        )
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def _plain(value: Any) -> Any:
    """Tuples become lists, as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
