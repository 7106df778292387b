"""A synthesis run on disk: what is there is never computed again.

    config.json                     what decides the result; another one is refused
    requests.jsonl                  every response, before it is parsed
    pool.parquet                    the pool after the last whole round
    rounds/NNN/clusters.parquet     the clusters of the pool before the round
    rounds/NNN/prompts.parquet      the requests to the generator
    rounds/NNN/parsed.parquet       the candidates, and those that fell out on reading
    rounds/NNN/verified.parquet     the same, voted on
    rounds/NNN/features/            the gradients of those left, a run directory of their own
    rounds/NNN/candidates.parquet   every candidate with its one verdict
    rounds/NNN/accepted.parquet     the rows that enter the pool
    rounds/NNN/round.json           the counts; with this file the round is whole

Each file is written whole or not at all, and made from those above it and from the log alone. So a run that is killed at
any moment goes on from the last whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import files
from .clustering import SphericalKMeans
from .rows import write_parquet
from .run_config import open_run, whole


if TYPE_CHECKING:
    from datasets import Dataset

KIND = "synthesis"
POOL, ROUND = "pool.parquet", "round.json"

# Columns of the files of a round, by their Arrow types.
PROMPT = {
    "messages": pa.string(),
    "seed": pa.int64(),
    "seed_ids": pa.list_(pa.string()),
    "persona": pa.string(),
    "level": pa.float32(),
}
CANDIDATE = {
    "id": pa.string(),
    "request": pa.int32(),
    "verdict": pa.string(),
    "candidate": pa.string(),  # what was read, as JSON
    "row": pa.string(),  # as it would enter the pool, as JSON
    "votes": pa.int32(),
    "num_valid": pa.int32(),
    "agreement": pa.float32(),
    "cluster": pa.int32(),
    "of": pa.string(),  # what it repeats: a row of the pool or the batch, or benchmark/item; or why a request failed
    "share": pa.float32(),
    "matched": pa.string(),
}
PROVENANCE = {
    "seed_ids": pa.list_(pa.string()),
    "round": pa.int32(),
    "cluster": pa.int32(),
    "generator": pa.string(),
    "solver": pa.string(),
    "votes": pa.int32(),
    "agreement": pa.float32(),
    "feature_id": pa.string(),
}


def run_id_of(config: Mapping[str, Any]) -> str:
    """Identifies the run of a configuration: two runs with the same one are the same."""
    return files.digest(whole(config, KIND))


def is_synthesis(path: str | Path) -> bool:
    """Whether a synthesis run was begun there."""
    try:
        config = files.read_json(Path(path).expanduser() / "config.json")
    except ValueError:
        return False
    return config is not None and config.get("kind") == KIND


class SynthesisDirectory:
    """The files of one run.

    Args:
        path: Where it is, or is to be.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def open(self, config: Mapping[str, Any]) -> None:
        """Begin a run with this configuration, or go on with it.

        Raises:
            ValueError: The directory holds something else, or a run with another configuration; the message lists the
                fields that differ.
        """
        open_run(self.path, config, KIND, hint="target_size and limits may change")
        for folder in self.rounds():
            files.sweep(folder)

    def round(self, number: int) -> Path:
        """The folder of a round, made if need be."""
        folder = self.path / "rounds" / f"{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def rounds(self) -> list[Path]:
        """The folders of all rounds begun, in order."""
        return sorted((self.path / "rounds").glob("[0-9]*"), key=lambda folder: int(folder.name))

    def whole_rounds(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The rounds that were finished, in order, with their counts."""
        for folder in self.rounds():
            summary = files.read_json(folder / ROUND)
            if summary is None:
                return
            yield folder, summary


@dataclass(frozen=True)
class Clusters:
    """The clusters of a pool.

    Attributes:
        sizes: (k,) rows of each.
        sparse: (k,) bool, whether candidates that fall into it are kept.
        centers: (k, dim) float32 of unit length.
    """

    sizes: np.ndarray
    sparse: np.ndarray
    centers: np.ndarray

    def nearest(self, vectors: Any) -> np.ndarray:
        """(n,) the cluster whose centre is nearest to each of (n, dim) vectors, -1 for a None row."""
        kmeans = SphericalKMeans(len(self.sizes))
        kmeans.cluster_centers_ = self.centers
        return kmeans.predict(vectors)

    def write(self, path: Path) -> None:
        centers = pa.FixedSizeListArray.from_arrays(pa.array(self.centers.ravel()), self.centers.shape[1])
        table = pa.table({"size": self.sizes, "sparse": self.sparse, "center": centers})
        with files.replacing(path) as file:
            pq.write_table(table, file)

    @classmethod
    def read(cls, path: Path) -> Clusters:
        table = pq.ParquetFile(path).read().combine_chunks()
        centers = table["center"].combine_chunks().flatten().to_numpy().copy().reshape(len(table), -1)
        return cls(table["size"].to_numpy(), table["sparse"].to_numpy(zero_copy_only=False), centers)


def row_features(extra_columns: Iterable[str], *, has_level: bool) -> dict[str, pa.DataType]:
    """The columns of a row of the pool; the task may add some."""
    names = ["id", "prompt", "completion", "answer", *extra_columns]
    return {name: pa.string() for name in names} | ({"level": pa.float32()} if has_level else {}) | PROVENANCE


def stage(
    path: Path, columns: Mapping[str, pa.DataType], make: Callable[[], Iterable[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows of a Parquet file, made and written first if it is not there."""
    if not path.is_file():
        from datasets import Dataset, Features

        table = pa.Table.from_pylist([dict(row) for row in make()], schema=pa.schema(columns.items()))
        write_parquet(Dataset(table.cast(Features.from_arrow_schema(table.schema).arrow_schema)), path)
    return read_rows(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file of a round."""
    return pq.ParquetFile(path).read().to_pylist()


def load_accepted(folder: Path) -> Dataset:
    """What a round added to the pool, with its Features; it may be nothing."""
    from datasets import Dataset, Features

    table = pq.ParquetFile(folder / "accepted.parquet").read()
    return Dataset(table.cast(Features.from_arrow_schema(table.schema).arrow_schema))
