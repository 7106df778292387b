"""Subsets of equal size whose composition is decided: how many values of a column they hold, and how unevenly.

A pool has a column for each factor, such as the reasoning skeleton and the surface style of a row. A composition says of
how many values of each column a subset is made. Which values, and which rows of them, a hash with a seed decides, so that
the same subset comes out on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Composition:
    """What a subset is made of.

    Attributes:
        size: Rows.
        values: By column, how many of its values; the rows are spread evenly over their combinations.
        skew: Exponent of Zipf's law over the values of the first column: 0 takes all alike, 1 takes the second half as
            often as the first, the third a third as often.
        seed: Draws the values and the rows.
    """

    size: int
    values: Mapping[str, int]
    skew: float = 0.0
    seed: int = 0


class Pool:
    """Rows by the values of their factors.

    Args:
        columns: For each factor its column.
        ids: An id for each row, all different; which rows are drawn depends on them and not on the order of the rows.

    Raises:
        ValueError: No factor, columns of different lengths, ids that repeat.

    Example:
        >>> pool = Pool({"skill": ["add", "add", "sort", "sort"]}, ["a", "b", "c", "d"])
        >>> len(pool.compose(Composition(2, {"skill": 2})))
        2
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], ids: Sequence[str]) -> None:
        lengths = {name: len(column) for name, column in {**columns, "id": ids}.items()}
        if not columns or len(set(lengths.values())) > 1:
            raise ValueError(
                f"a pool needs a factor at least, and columns of one length; their lengths are {lengths}."
            )
        if len(set(ids)) < len(ids):
            raise ValueError(f"the ids of the pool repeat: {len(ids):,} rows have {len(set(ids)):,} ids.")
        self.ids = list(ids)
        self.values = {name: sorted(set(map(str, column))) for name, column in columns.items()}
        self._cells: dict[tuple[str, ...], list[int]] = {}
        for row, cell in enumerate(zip(*(map(str, column) for column in columns.values()), strict=True)):
            self._cells.setdefault(cell, []).append(row)

    def compose(self, composition: Composition) -> np.ndarray:
        """The rows of a subset, in the order of the pool.

        Raises:
            ValueError: As `check`.
        """
        rows: list[int] = []
        for cell, count in self._counts(composition):
            rows += sorted(self._cells[cell], key=lambda row: _hash(composition.seed, self.ids[row]))[:count]
        return np.sort(np.array(rows, dtype=np.int64))

    def check(self, composition: Composition) -> None:
        """Make sure that a subset can be drawn.

        Raises:
            ValueError: Another factor, more values than there are, a value that gets no row, or a combination of values
                with too few rows.
        """
        self._counts(composition)

    def _counts(self, composition: Composition) -> list[tuple[tuple[str, ...], int]]:
        """How many rows of each combination of values."""
        chosen = self.chosen(composition)
        first, *others = chosen.values()
        weights = [rank ** -float(composition.skew) for rank in range(1, len(first) + 1)]
        found = []
        for value, share in zip(first, apportion(composition.size, weights), strict=True):
            cells = [(value, *rest) for rest in product(*others)]
            cells.sort(key=lambda cell: _hash(composition.seed, *cell))  # who gets one row more is drawn
            found += zip(cells, apportion(share, [1.0] * len(cells)), strict=True)
        found = [(cell, count) for cell, count in found if count]
        for place, (name, values) in enumerate(chosen.items()):
            if lost := [value for value in values if all(cell[place] != value for cell, _ in found)]:
                raise ValueError(
                    f"{composition.size:,} rows are too few for {len(values)} values of {name} in the subset "
                    f"{dict(composition.values)} with skew {composition.skew:g}: {lost[0]!r} gets none. Take a larger size."
                )
        for cell, count in found:
            self._require(cell, count, composition)
        return found

    def chosen(self, composition: Composition) -> dict[str, list[str]]:
        """The values that a subset is drawn from, by column, the most frequent first.

        Raises:
            ValueError: Another factor, or more values than there are.
        """
        if list(composition.values) != list(self.values):
            raise ValueError(f"the composition is of {list(composition.values)}, the pool of {list(self.values)}.")
        found = {}
        for name, count in composition.values.items():
            known = self.values[name]
            if not 1 <= count <= len(known):
                raise ValueError(f"{name}: {count} values were asked for; the pool has {len(known)}.")
            found[name] = sorted(known, key=lambda value: _hash(composition.seed, name, value))[:count]
        return found

    def _require(self, cell: tuple[str, ...], count: int, composition: Composition) -> None:
        held = len(self._cells.get(cell, []))
        if held < count:
            named = ", ".join(f"{name} {value!r}" for name, value in zip(self.values, cell, strict=True))
            raise ValueError(
                f"the pool has {held:,} rows with {named}, and the subset {dict(composition.values)} of "
                f"{composition.size:,} rows needs {count:,}. Take a larger pool, a smaller size, or more values."
            )


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to the total, in proportion to the weights, by the largest remainders.

    Example:
        >>> apportion(10, [1.0, 1.0, 1.0])
        [4, 3, 3]
    """
    exact = [total * weight / sum(weights) for weight in weights]
    found = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (found[place] - exact[place], place))
    for place in by_remainder[: total - sum(found)]:
        found[place] += 1
    return found


def _hash(*parts: object) -> bytes:
    return blake2b("\0".join(map(str, parts)).encode(errors="surrogatepass"), digest_size=16).digest()
