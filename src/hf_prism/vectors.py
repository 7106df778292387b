"""Gradient vectors, in whatever container they come, as checked float64 unit rows with a hash each.

Needs NumPy only: tensors and `datasets` columns are recognised once their library is loaded, by whoever made them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np


BLOCK_ROWS = 4096  # rows converted to float64 at a time: 32 MB at 1024 numbers a row


def unit_rows(vectors: Any, ids: Sequence[Any] | None = None) -> np.ndarray:
    """Returns all rows of `vectors` that are not None, scaled to unit length, as one (n, d) float64 array.

    Args:
        vectors: (n, d) numbers, see `unit_blocks`.
        ids: one id a row, only to name a bad row.

    Raises:
        ValueError: as `unit_blocks`, and when no row is left.
    """
    blocks = [rows for _, rows in unit_blocks(vectors, ids)]
    if not blocks:
        raise ValueError(f"no gradient vectors among {len(vectors)} rows: at least one is needed.")
    return np.concatenate(blocks)


def unit_blocks(vectors: Any, ids: Sequence[Any] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (positions, rows): the rows that are not None in float64 and unit length, some thousands at a time.

    Args:
        vectors: (n, d) numbers of any real dtype: a NumPy array, a torch tensor (bfloat16 too), a list of rows, a
            `datasets.Dataset` with a `gradient` column, or such a column. A None row is one the featurizer skipped.
        ids: one id a row, only to name a bad row.

    Raises:
        ValueError: not two-dimensional, rows of different width, not numbers, NaN, infinity, or a zero row.
    """
    columns = sys.modules.get("datasets")
    if columns is not None and isinstance(vectors, columns.Dataset):
        if "gradient" not in vectors.column_names:
            raise ValueError(f"no column 'gradient' among {vectors.column_names}: run the featurizer on it first.")
        vectors = vectors["gradient"]
    width = None
    for start in range(0, len(vectors), BLOCK_ROWS):
        kept, rows = _numbers(vectors, start)
        if not len(rows):
            continue
        positions = start + kept
        width = width or rows.shape[1]
        if rows.shape[1] != width:
            raise ValueError(
                f"{_name(positions[0], ids)} has {rows.shape[1]} numbers, the rows before it {width}: the vectors "
                "come from sketches of different dim."
            )
        yield positions, _normalised(rows, positions, ids)


def row_hashes(rows: np.ndarray, ids: Sequence[Any] | None, seen: Counter[bytes]) -> np.ndarray:
    """A uint64 for each row, the same on every machine and in any row order: the hash of its id.

    Without ids, of its content in float32 and of how many equal rows came before it, which `seen` counts: equal rows
    must not all get the same hash.
    """
    if ids is not None:
        names = [str(i).encode() for i in ids]
    else:
        names = []
        for row in rows.astype("<f4"):
            content = _digest(row.tobytes())
            names.append(content + str(seen[content]).encode())
            seen[content] += 1
    return np.frombuffer(b"".join(map(_digest, names)), dtype="<u8")


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


def _numbers(vectors: Any, start: int) -> tuple[np.ndarray, np.ndarray]:
    """One block as (indices of its rows that are not None, their float64 values)."""
    columns = sys.modules.get("datasets")
    stop = min(start + BLOCK_ROWS, len(vectors))
    if columns is not None and isinstance(vectors, columns.Column) and isinstance(vectors.source, columns.Dataset):
        return _arrow_numbers(vectors, start, stop)
    block = vectors[start:stop]
    if not isinstance(block, list | tuple):
        rows = _array(block)
        if rows.ndim != 2:
            raise ValueError(f"gradients must be rows of numbers, shape (n, d); found shape {np.shape(vectors)}.")
        return np.arange(len(rows)), rows
    kept = [i for i, row in enumerate(block) if row is not None]
    arrays = [_array(block[i]) for i in kept]
    for i, row in zip(kept, arrays, strict=True):
        if row.shape != arrays[0].shape or row.ndim != 1:
            raise ValueError(
                f"row {start + i} has shape {row.shape}, row {start + kept[0]} has {arrays[0].shape}: every row must "
                "be one list of d numbers."
            )
    return np.array(kept, dtype=np.int64), np.stack(arrays) if arrays else np.empty((0, 0))


def _arrow_numbers(column: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """As `_numbers`, straight from Arrow: Python lists are slow, and the NumPy formatter turns float64 to float32."""
    import pyarrow.compute

    table = column.source.select_columns([column.column_name]).with_format("arrow")[start:stop]
    cells = table[column.column_name].combine_chunks()
    kept = np.flatnonzero(cells.is_valid().to_numpy(zero_copy_only=False))
    cells = cells.drop_null()
    if not len(cells):
        return kept, np.empty((0, 0))
    widths = pyarrow.compute.call_function("list_value_length", [cells]).to_numpy(zero_copy_only=False)
    if (widths != widths[0]).any():
        odd = int(np.argmax(widths != widths[0]))
        raise ValueError(
            f"row {start + kept[odd]} has {widths[odd]} numbers, row {start + kept[0]} has {widths[0]}: every row "
            "must be one list of d numbers."
        )
    return kept, np.asarray(cells.flatten().to_numpy(zero_copy_only=False), np.float64).reshape(len(kept), -1)


def _array(values: Any) -> np.ndarray:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return values.detach().to("cpu", torch.float64).numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"gradients must be rows of real numbers, shape (n, d): {error}.") from error


def _normalised(rows: np.ndarray, positions: np.ndarray, ids: Sequence[Any] | None) -> np.ndarray:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        where = _name(positions[int(np.argmin(finite))], ids)
        raise ValueError(
            f"{where} holds NaN or infinity ({int((~finite).sum())} such rows in this batch): the proxy's loss was not "
            'finite there. Featurize with dtype="float32", or drop the row.'
        )
    # Scaling by the largest entry first keeps tiny rows from underflowing when squared.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    if not largest.all():
        where = _name(positions[int(np.argmin(largest[:, 0]))], ids)
        raise ValueError(
            f"{where} is all zeros ({int((largest == 0).sum())} such rows in this batch), so it has no direction: a row "
            "without supervised tokens, or a loss that is exactly zero. Drop it before scoring."
        )
    rows = rows / largest
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _name(position: Any, ids: Sequence[Any] | None) -> str:
    return f"row {position}" if ids is None else f"row {position} (id {ids[int(position)]!r})"
