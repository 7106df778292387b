"""The pool of a synthesis run in memory: its rows, their directions, its score, and what a new problem may not repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import runner
from .curation import Decontaminator, Deduplicator
from .synthesis_directory import read_rows
from .tasks.task import Task
from .vectors import unit
from .vendi import Covariance


class Pool:
    """Rows and their gradients, grown by whole rounds.

    Args:
        task: Says by which text problems are compared.
        dim: Of the gradients.
        near_duplicate: Share of common word n-grams from which two problems count as the same.
        benchmarks: By name, (item, text) of what nothing may repeat.

    Attributes:
        rows: In the order in which they came.
        covariance: Of their gradients.
    """

    def __init__(
        self, task: Task, dim: int, near_duplicate: float, benchmarks: Mapping[str, Sequence[tuple[str, str]]]
    ) -> None:
        self.task, self.near_duplicate = task, near_duplicate
        self.rows: list[dict[str, Any]] = []
        self._blocks = [np.empty((0, dim), dtype=np.float32)]
        self.covariance = Covariance(dim)
        self._ids: set[str] = set()
        self._known = Deduplicator(threshold=near_duplicate)
        self._benchmarks = Decontaminator(benchmarks) if benchmarks else None

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]

    @property
    def vectors(self) -> np.ndarray:
        """(n, dim) float32 of unit length, one for each row."""
        if len(self._blocks) > 1:  # put together when they are needed, not round by round when a run goes on
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]

    def take_in(self, folder: Path) -> None:
        """Add what a round accepted, with the gradients that lie in its folder.

        Raises:
            ValueError: a row whose id the pool has already.
        """
        rows = read_rows(folder / "accepted.parquet")
        if not rows:
            return
        ids = [row["id"] for row in rows]
        if repeated := self._ids & set(ids):
            raise ValueError(f"{folder}: the id {repeated.pop()!r} is in the pool already; ids must be unique.")
        features = runner.load_features(folder / "features")
        places = {row_id: place for place, row_id in enumerate(features["id"])}
        chosen: Any = features.select([places[row_id] for row_id in ids]).with_format("numpy")
        vectors = unit(np.asarray(chosen["gradient"][:], dtype=np.float32))
        self.rows += rows
        self._ids |= set(ids)
        self._blocks.append(vectors)
        self.covariance.update(vectors, ids)
        for row in rows:
            self._known.add(row["id"], self.text(row))

    def text(self, row: Mapping[str, str]) -> str:
        """The text by which a row or a candidate is compared."""
        return self.task.text(self.task.candidate(row))

    def repeats(self, row: Mapping[str, str], batch: Deduplicator) -> dict[str, Any]:
        """Columns that say what of the pool, of a batch or of the benchmarks a row repeats; none where it is new."""
        text = self.text(row)
        if repeat := self._known.match(text) or batch.match(text):
            return {"verdict": "duplicate", "of": repeat.of, "share": repeat.share}
        return self.contamination(row)

    def contamination(self, row: Mapping[str, str]) -> dict[str, Any]:
        """Columns that say which benchmark item a row repeats; none where it repeats none."""
        hit = self._benchmarks.match(self.text(row)) if self._benchmarks else None
        if hit is None:
            return {}
        of = f"{hit.benchmark}/{hit.item}"
        return {"verdict": "contaminated", "of": of, "share": hit.share, "matched": hit.matched}

    def new_batch(self) -> Deduplicator:
        """What the candidates of one round are compared with besides the pool."""
        return Deduplicator(threshold=self.near_duplicate)
