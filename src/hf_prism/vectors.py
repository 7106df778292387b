"""Gradient vectors, in whatever container they come, as checked blocks of numbers, unit rows, and a hash for each row.

Needs NumPy only: tensors and `datasets` columns are recognised once their library is loaded, by whoever made them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np


BLOCK_ROWS = 1024  # rows read at a time: 4 MB as float32 at 1024 numbers a row
CACHED_ROWS = 256  # rows worked on at a time, so that they stay in the processor's cache from one step to the next
Block = TypeVar("Block")
Reader = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def unit_rows(vectors: Any, ids: Sequence[Any] | None = None) -> np.ndarray:
    """Returns all rows of `vectors` that are not None, scaled to unit length, as one (n, d) float64 array.

    Args:
        vectors: (n, d) numbers, see `number_blocks`.
        ids: one id a row, only to name a bad row.

    Raises:
        ValueError: as `number_blocks`, and when no row is left.
    """
    blocks = [rows for _, rows in unit_blocks(vectors, ids)]
    if not blocks:
        raise ValueError(f"no gradient vectors among {len(vectors)} rows: at least one is needed.")
    return np.concatenate(blocks)


def unit_blocks(vectors: Any, ids: Sequence[Any] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `number_blocks`, but the rows are float64 and of unit length."""
    for positions, rows in number_blocks(vectors, ids):
        yield positions, unit(rows)


def number_blocks(vectors: Any, ids: Sequence[Any] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (positions, rows): the rows that are not None, finite and not zero, as they are, 1,024 at a time.

    float16, bfloat16 and float32 come as float32, everything else as float64. Rows may be a view of `vectors`.

    Args:
        vectors: (n, d) numbers of any real dtype: a NumPy array or memory map, a torch tensor, a list of rows, a
            `datasets.Dataset` with a `gradient` column, or such a column. A None row is one the featurizer skipped.
        ids: one id a row, only to name a bad row.

    Raises:
        ValueError: not two-dimensional, rows of different width, not numbers, NaN, infinity, or a zero row.
    """
    require_rows(vectors)
    read, width = _reader(vectors), None
    for start in range(0, len(vectors), BLOCK_ROWS):
        kept, rows = read(start, min(start + BLOCK_ROWS, len(vectors)))
        if not len(rows):
            continue
        positions = start + kept
        width = width or rows.shape[1]
        if rows.shape[1] != width:
            raise ValueError(
                f"{_name(positions[0], ids)} has {rows.shape[1]} numbers, the rows before it {width}: the vectors "
                "come from sketches of different dim."
            )
        _check(rows, positions, ids)
        yield positions, rows


def require_rows(vectors: Any) -> None:
    """Raises ValueError for containers that are no rows of vectors: several splits, or rows that stream."""
    if isinstance(vectors, dict):
        raise ValueError(f"these are several sets of rows ({', '.join(map(str, vectors))}): give one of them.")
    if not hasattr(vectors, "__len__"):
        raise ValueError(
            f"a {type(vectors).__name__} has no length, so its rows cannot be read more than once: collect them first, with "
            "`datasets.Dataset.from_list(list(stream))` if it is a stream."
        )


def column_of(vectors: Any, name: str) -> list[Any] | None:
    """The values of a column beside the vectors as Python's own, whatever the format; None where there is none."""
    return list(vectors.with_format(None)[name]) if name in (getattr(vectors, "column_names", None) or ()) else None


def ahead(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same blocks; the next is made in a thread while the caller works on the last, as reading and BLAS can."""
    iterator, end = iter(blocks), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, end)
        while (block := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield block  # pyright: ignore[reportReturnType]


def unit(rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """(n, d) finite rows that are not zero, in float64 and of length 1; written to `out` if given."""
    out = np.empty(rows.shape) if out is None else out
    for start in range(0, len(rows), CACHED_ROWS):
        part = out[start : start + CACHED_ROWS]
        part[...] = rows[start : start + CACHED_ROWS]
        squares = np.einsum("ij,ij->i", part, part)
        if not (squares.min() > 1e-280 and squares.max() < 1e280):
            # Scaling by the largest entry first keeps tiny rows from underflowing when squared, and huge from the reverse.
            part /= np.abs(part).max(axis=1, keepdims=True)
            squares = np.einsum("ij,ij->i", part, part)
        part *= (1 / np.sqrt(squares))[:, None]
    return out


def id_hashes(ids: Sequence[Any], n: int) -> np.ndarray:
    """A uint64 for each of n ids, the same on every machine, from the id as a string.

    Raises:
        ValueError: not n ids, or one of them twice.
    """
    if len(ids) != n:
        raise ValueError(f"{len(ids)} ids for {n} rows: give one id a row.")
    digests = []
    for start in range(0, n, BLOCK_ROWS):
        names = (str(name).encode() for name in ids[start : start + BLOCK_ROWS])
        digests.append(b"".join(blake2b(name, digest_size=8).digest() for name in names))
    hashes = np.frombuffer(b"".join(digests), dtype="<u8")
    order = np.argsort(hashes, kind="stable")
    repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if repeats.size:
        second = int(order[repeats + 1].min())
        first = int(np.argmax(hashes == hashes[second]))
        raise ValueError(
            f"id {ids[second]!r} is repeated, at rows {first} and {second}: ids must be unique. Combine columns until "
            "they are, or leave ids out."
        )
    return hashes


def content_hashes(rows: np.ndarray, seen: dict[int, int]) -> np.ndarray:
    """A uint64 for each row of floats, the same on every machine and in any row order: of its bits, and of how many
    equal rows came before it, which `seen` counts. Equal rows must not all get the same hash.

    The bits are multiplied by fixed random keys and summed modulo 2^64: two rows that differ agree by chance once in
    2^33 to 2^64, the less the lower the bits in which they differ. They then count as equal, which matters little.
    """
    words = np.ascontiguousarray(rows).view(np.uint32)
    if words.shape[1] % 2:
        words = np.pad(words, ((0, 0), (0, 1)))
    pairs = words.view(np.uint64)
    low, high = _keys(pairs.shape[1])
    hashes = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), CACHED_ROWS):
        part = pairs[start : start + CACHED_ROWS]
        upper = np.einsum("ij,j->i", part >> np.uint64(32), high)
        hashes[start : start + CACHED_ROWS] = np.einsum("ij,j->i", part, low) + upper
    earlier = []
    for content in hashes.tolist():
        earlier.append(count := seen.get(content, 0))
        seen[content] = count + 1
    return _mixed(hashes + np.array(earlier, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


@lru_cache(maxsize=4)
def _keys(count: int) -> np.ndarray:
    return np.random.Philox(key=0).random_raw(2 * count).reshape(2, count)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: every bit depends on every bit."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))


def _reader(vectors: Any) -> Reader:
    """A function of (start, stop) to (indices of the rows between that are not None, their numbers)."""
    datasets = sys.modules.get("datasets")
    if datasets is not None and isinstance(vectors, datasets.Dataset):
        if "gradient" not in vectors.column_names:
            raise ValueError(f"no column 'gradient' among {vectors.column_names}: run the featurizer on it first.")
        vectors = vectors["gradient"]
    if datasets is not None and isinstance(vectors, datasets.Column) and isinstance(vectors.source, datasets.Dataset):
        # Straight from Arrow: Python lists are slow, and the NumPy formatter turns float64 to float32.
        return partial(_arrow_numbers, vectors.source.select_columns([vectors.column_name]).with_format("arrow"))
    return partial(_numbers, vectors)


def _numbers(vectors: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    block = vectors[start:stop]
    if not isinstance(block, list | tuple):
        rows = _floats(block)
        if rows.ndim != 2:
            raise ValueError(f"gradients must be rows of numbers, shape (n, d); found shape {np.shape(vectors)}.")
        return np.arange(len(rows)), rows
    kept = [i for i, row in enumerate(block) if row is not None]
    arrays = [_floats(block[i]) for i in kept]
    for i, row in zip(kept, arrays, strict=True):
        if row.shape != arrays[0].shape or row.ndim != 1:
            raise ValueError(
                f"row {start + i} has shape {row.shape}, row {start + kept[0]} has {arrays[0].shape}: every row must "
                "be one list of d numbers."
            )
    return np.array(kept, dtype=np.int64), np.stack(arrays) if arrays else np.empty((0, 0))


def _arrow_numbers(dataset: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.compute

    cells = dataset[start:stop].column(0).combine_chunks()
    kept = np.arange(len(cells))
    if cells.null_count:
        kept, cells = np.flatnonzero(cells.is_valid().to_numpy(zero_copy_only=False)), cells.drop_null()
    if not len(cells):
        return kept, np.empty((0, 0))
    widths = pyarrow.compute.call_function("list_value_length", [cells]).to_numpy(zero_copy_only=False)
    if (widths != widths[0]).any():
        odd = int(np.argmax(widths != widths[0]))
        raise ValueError(
            f"row {start + kept[odd]} has {widths[odd]} numbers, row {start + kept[0]} has {widths[0]}: every row "
            "must be one list of d numbers."
        )
    return kept, _floats(cells.flatten().to_numpy(zero_copy_only=False)).reshape(len(kept), -1)


def _floats(values: Any) -> np.ndarray:
    """The numbers as float32 where that is exact for their dtype, else as float64."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        narrow = values.dtype in (torch.float16, torch.bfloat16, torch.float32)
        return values.detach().to("cpu", torch.float32 if narrow else torch.float64).numpy()
    dtype = getattr(values, "dtype", None)
    if dtype == np.float16:
        return _from_half(np.asarray(values))
    try:
        return np.asarray(values, dtype=np.float32 if dtype == np.float32 else np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"gradients must be rows of real numbers, shape (n, d): {error}.") from error


def _from_half(half: np.ndarray) -> np.ndarray:
    """float16 to float32, exactly. NumPy does one number at a time; shifting the bits into place is four times faster."""
    bits = np.empty(half.shape, dtype=np.int32)
    floats = bits.view(np.float32)
    step = CACHED_ROWS if half.ndim > 1 else max(len(bits), 1)
    for start in range(0, len(bits), step):
        part = bits[start : start + step]
        part[...] = half[start : start + step].view(np.int16)  # repeats the sign, which belongs into the top bit only
        part <<= 13
        part &= -0x70000001
        floats[start : start + step] *= np.float32(2.0**112)  # the exponents of the two are biased by 15 and 127
    if bits.size and max(floats.max(), -floats.min()) > np.finfo(np.float16).max:
        return half.astype(np.float32)  # NaN or infinity
    return floats


def _check(rows: np.ndarray, positions: np.ndarray, ids: Sequence[Any] | None) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    if rows.shape[1] and squares.min() > 0 and squares.max() < np.inf:
        return  # else a bad row, or one so tiny or huge that its square is not a number of this dtype
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        where = _name(positions[int(np.argmin(finite))], ids)
        raise ValueError(
            f"{where} holds NaN or infinity ({int((~finite).sum())} such rows in this batch): the proxy's loss was not "
            'finite there. Featurize with dtype="float32", or drop the row.'
        )
    nonzero = rows.any(axis=1)
    if not nonzero.all():
        where = _name(positions[int(np.argmin(nonzero))], ids)
        raise ValueError(
            f"{where} is all zeros ({int((~nonzero).sum())} such rows in this batch), so it has no direction: a row "
            "without supervised tokens, or a loss that is exactly zero. Drop it before scoring."
        )


def _name(position: Any, ids: Sequence[Any] | None) -> str:
    return f"row {position}" if ids is None else f"row {position} (id {ids[int(position)]!r})"
