"""From what a caller hands over to rows, and from rows to batches of like length."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .samples import RowFormat


BATCH_TOKENS = 4096
"""Padded tokens of one forward and backward pass. Part of the plan, not of the map: any value gives the same sketches
within float error."""


def separate(rows: Mapping[str, Any], row_format: RowFormat) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of one call as a list of dicts, and whether the call was a batch rather than one row.

    Raises:
        ValueError: Not a dict of columns, or columns of different length.
    """
    if not isinstance(rows, Mapping):
        raise ValueError(
            f"{type(rows).__name__} is neither a row nor a batch of columns, which are dicts. In `map`, leave out "
            "`input_columns` and formats that hand out tables (`dataset.with_format(None)`)."
        )
    columns = {name: _as_lists(rows[name]) for name in rows}
    if not _is_batch(rows, columns, row_format):
        return [columns], False
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"The columns of a batch hold different numbers of rows: {sizes}.")
    count = max(sizes.values(), default=0)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)], True


def _as_lists(value: Any) -> Any:
    """Lists in place of the arrays, tuples and columns that `datasets` and its formats hand out."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return value
    return [_as_lists(item) for item in value]


def _is_batch(rows: Mapping[str, Any], columns: Mapping[str, Any], row_format: RowFormat) -> bool:
    """Tell a batch (every column a list, one cell a row) from a row.

    `datasets` says which it is, except when it streams. In plain dicts a row's own lists are message lists, whose
    items are dicts; the same column in a batch holds lists of dicts.
    """
    formatting = sys.modules.get("datasets.formatting.formatting")
    if formatting is not None and isinstance(rows, formatting.LazyDict):
        return isinstance(rows, formatting.LazyBatch)
    if not all(isinstance(values, list) for values in columns.values()):
        return False
    read = [columns.get(row_format.column_mapping.get(name) or name) for name in row_format.layout(columns)]
    return not any(values and isinstance(values[0], Mapping) for values in read)


def plan_batches(lengths: Sequence[int], *, one_by_one: bool = False) -> list[list[int]]:
    """Group rows of like length into batches of at most `BATCH_TOKENS` padded tokens, longest first.

    Args:
        lengths: Tokens of each row.
        one_by_one: Every row a batch of its own.

    Returns:
        Positions in `lengths`, one list a batch; a function of the lengths only.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if one_by_one:
        return [[i] for i in order]
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
