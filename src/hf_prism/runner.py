"""Featurize a whole dataset into a run directory, in chunks that survive a crash.

A run directory holds `config.json` (what the numbers depend on), `chunks/*.parquet` (features by row id),
`manifest.jsonl` (one line a committed chunk, with its checksum) and `log.jsonl`. The same dataset and configuration
resume where the last run stopped; anything else is an error that names what differs.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from .batches import plan_batches
from .featurizer import GradientFeaturizer
from .files import append_line, digest, read_json, read_lines, write_atomically, write_json
from .proxy import EncodedRow, Skipped
from .rows import describe, load_rows, row_ids


if TYPE_CHECKING:
    from datasets import Dataset

CHUNK_TOKENS = 2**16
"""A chunk, the unit that is committed and resumed, is closed at this many padded tokens."""

ENCODE_ROWS = 1000
"""Rows tokenised at a time."""

ESTIMATE_BATCHES = 20
"""Runs of at least so many batches say beforehand how long they will take."""


@dataclass(frozen=True)
class Survey:
    """What a pass over the rows, before any model work, found.

    Attributes:
        ids: One id a row.
        num_repeats: Rows whose content occurred before.
        lengths: Tokens of each row; 0 where the row is skipped.
        skipped: Why, by row number.
        truncated: Rows cut to the limit.
        content: Digest of the tokens and masks, since ids that the user gave do not show an edited text.
    """

    ids: list[str]
    num_repeats: int
    lengths: list[int]
    skipped: dict[int, Skipped]
    truncated: list[int]
    content: str

    @property
    def digest(self) -> str:
        """Identifies the rows, their order and their content."""
        return digest([self.ids, self.lengths, self.content])


def survey(dataset: Dataset, featurizer: GradientFeaturizer, *, progress: bool = True) -> Survey:
    """Read, check and tokenise every row, so that bad input is an error before the model is loaded.

    Raises:
        RowError: A row that the policies do not allow, or a repeated id.
        ValueError: Every row is skipped.
    """
    named = row_ids(dataset, featurizer.proxy.row_format)
    lengths, skipped, truncated, content = [0] * len(named.ids), {}, [], hashlib.sha256()
    with tqdm(total=len(named.ids), desc="Tokenizing", unit=" rows", disable=not progress, leave=False) as bar:
        for start in range(0, len(named.ids), ENCODE_ROWS):
            rows = list(range(start, min(start + ENCODE_ROWS, len(named.ids))))
            for row, encoded in zip(rows, _encode(dataset, featurizer, named.ids, rows), strict=True):
                if isinstance(encoded, Skipped):
                    skipped[row] = encoded
                else:
                    lengths[row] = len(encoded.input_ids)
                    truncated += [row] * encoded.truncated
                    content.update(np.array(encoded.input_ids).tobytes() + bytes(encoded.completion_mask))
            bar.update(len(rows))
    if len(skipped) == len(named.ids):
        raise ValueError(f"All {len(skipped):,} rows are skipped, nothing is left to featurize; {skipped[0].detail}.")
    return Survey(named.ids, named.num_repeats, lengths, skipped, truncated, content.hexdigest())


def _encode(
    dataset: Dataset, featurizer: GradientFeaturizer, ids: Sequence[str], rows: Sequence[int]
) -> list[EncodedRow | Skipped]:
    plain = dataset.with_format(None)
    cells: list[Any] = list(plain.select(rows))
    return featurizer.proxy.encode_rows(cells, [describe(row, ids[row]) for row in rows])


def plan_chunks(lengths: Sequence[int], *, one_by_one: bool = False) -> list[list[list[int]]]:
    """Group rows into chunks of batches: chunk, batch, row number. Rows of length 0 are left out.

    A function of the lengths only, so that any number of processes works on the same plan.
    """
    rows = [row for row, length in enumerate(lengths) if length]
    chunks: list[list[list[int]]] = []
    tokens = CHUNK_TOKENS
    for batch in plan_batches([lengths[row] for row in rows], one_by_one=one_by_one):
        members = [rows[i] for i in batch]
        if tokens >= CHUNK_TOKENS:
            chunks.append([])
            tokens = 0
        chunks[-1].append(members)
        tokens += len(members) * max(lengths[row] for row in members)
    return chunks


def featurize(
    dataset: Dataset, featurizer: GradientFeaturizer, output_dir: str | Path, *, progress: bool = True
) -> Dataset:
    """Featurize every row of a dataset into `output_dir`, and return the features in the dataset's order.

    Args:
        dataset: Rows in a layout that the featurizer reads.
        featurizer: What to compute.
        output_dir: The run directory; made if missing, resumed if it holds the same run.
        progress: Show progress bars and the cost on standard error.

    Returns:
        A dataset with the columns `id`, `gradient` (dim float32), `gradient_norm`, `loss`, `num_tokens` (and
        `truncated` with `on_long="truncate"`), one row for each row that was not skipped.

    Raises:
        RowError: A row cannot be used; nothing has been computed yet.
        ValueError: No rows, or rows that stream (use `IterableDataset.map(featurizer)`); the directory holds another
            run, and the message names the fields that differ.

    Example:
        >>> features = featurize(dataset, GradientFeaturizer("embedded"), "runs/gsm8k")
        >>> features.column_names
        ['id', 'gradient', 'gradient_norm', 'loss', 'num_tokens']
    """
    return run(dataset, featurizer, output_dir, progress=progress).features


@dataclass(frozen=True)
class Run:
    """A finished run: its features in the dataset's order, its directory, and what the survey found."""

    features: Dataset
    directory: Path
    survey: Survey

    @property
    def feature_id(self) -> str:
        return feature_id_of(self.directory)


def run(
    dataset: Dataset, featurizer: GradientFeaturizer, output_dir: str | Path | None = None, *, progress: bool = True
) -> Run:
    """`featurize`, with a directory of its own for every configuration where `output_dir` is None.

    That directory lies in the Hugging Face cache and is named by what it holds, so the same call finds it again.
    """
    dataset = load_rows(dataset)
    found = survey(dataset, featurizer, progress=progress)
    output = Path(output_dir).expanduser() if output_dir is not None else _cache_directory(featurizer, found)
    return Run(_resume(dataset, featurizer, found, output, progress), output, found)


def _cache_directory(featurizer: GradientFeaturizer, found: Survey) -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_prism" / "runs" / digest([featurizer.identity, found.digest])


def _resume(dataset: Dataset, featurizer: GradientFeaturizer, found: Survey, output: Path, progress: bool) -> Dataset:
    config = {**featurizer.identity, "rows": len(found.ids), "dataset": found.digest}
    stored = read_json(output / "config.json")
    _check_same_run(output, stored, config)
    if stored is not None and (done := _committed(output)) and len(done) == stored["chunks"]:
        return load_features(output)
    try:
        (output / "chunks").mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{output} cannot be a run directory: a file is in the way. Choose another.") from error
    chunks = plan_chunks(found.lengths, one_by_one=featurizer.one_by_one)
    config |= {"feature_id": featurizer.feature_id, "chunks": len(chunks), "plan": digest(chunks)}
    _check_same_run(output, stored, config)
    if stored is None:
        write_json(output / "config.json", config)
    _log(
        output,
        "start",
        rows=len(found.ids),
        repeats=found.num_repeats,
        truncated=[found.ids[i] for i in found.truncated],
    )
    for row, skip in found.skipped.items():
        _log(output, "skipped", id=found.ids[row], reason=skip.reason, detail=skip.detail)
    _run_chunks(dataset, featurizer, found, chunks, output, progress)
    return load_features(output)


def _run_chunks(
    dataset: Dataset,
    featurizer: GradientFeaturizer,
    found: Survey,
    chunks: list[list[list[int]]],
    output: Path,
    progress: bool,
) -> None:
    done = _committed(output)
    missing = [number for number in range(len(chunks)) if number not in done]
    cost = {number: sum(_padded(batch, found.lengths) for batch in chunks[number]) for number in missing}
    rows = sum(len(batch) for number in missing for batch in chunks[number])
    if progress:
        batches = [batch for number in missing for batch in chunks[number]]
        tqdm.write(
            f"{rows:,} rows to featurize, {sum(cost.values()):,} tokens with padding, "
            f"{_duration(dataset, featurizer, found, batches)}, "
            f"{rows * featurizer.dim * 4 / 1e6:,.1f} MB on disk at {output}"
            + (f" ({len(done)} of {len(chunks)} chunks are there already)" if done else ""),
            file=sys.stderr,
        )
    with tqdm(
        total=sum(cost.values()), desc="Featurizing", unit=" tokens", unit_scale=True, disable=not progress
    ) as bar:
        for number in missing:
            started = time.perf_counter()
            table = _featurize_chunk(dataset, featurizer, found, chunks[number], output, bar)
            entry = _commit(output, number, table)
            seconds = time.perf_counter() - started
            _log(output, "chunk", chunk=number, rows=entry["rows"], tokens=cost[number], seconds=round(seconds, 3))


def _duration(dataset: Dataset, featurizer: GradientFeaturizer, found: Survey, batches: list[list[int]]) -> str:
    """How long the batches will take, in words; measured on one of middling length, after a warm-up."""
    if len(batches) < ESTIMATE_BATCHES:
        return "a moment"
    middle = batches[len(batches) // 2]
    encoded = [row for row in _encode(dataset, featurizer, found.ids, middle) if isinstance(row, EncodedRow)]
    featurizer.featurize_batch(encoded)
    started = time.perf_counter()
    featurizer.featurize_batch(encoded)
    rate = (time.perf_counter() - started) / _padded(middle, found.lengths)
    minutes = rate * sum(_padded(batch, found.lengths) for batch in batches) / 60
    return f"about {minutes:.0f} minutes" if minutes >= 1.5 else f"about {60 * minutes:.0f} seconds"


def _featurize_chunk(
    dataset: Dataset,
    featurizer: GradientFeaturizer,
    found: Survey,
    batches: list[list[int]],
    output: Path,
    bar: tqdm,
) -> pa.Table:
    columns: dict[str, list[Any]] = {"row": [], "id": []} | {name: [] for name in featurizer.features}
    for batch in batches:
        encoded = [row for row in _encode(dataset, featurizer, found.ids, batch) if isinstance(row, EncodedRow)]
        for row, values in zip(batch, featurizer.featurize_batch(encoded), strict=True):
            if isinstance(values, Skipped):
                _log(output, "skipped", id=found.ids[row], reason=values.reason, detail=values.detail)
                continue
            for name, column in columns.items():
                column.append({"row": row, "id": found.ids[row], **values}[name])
        bar.update(_padded(batch, found.lengths))
    return _table(columns, featurizer)


def _table(columns: dict[str, list[Any]], featurizer: GradientFeaturizer) -> pa.Table:
    from datasets import Features, Value

    features = Features({"row": Value("int64"), "id": Value("string"), **featurizer.features})
    schema = features.arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), b"feature_id": featurizer.feature_id.encode()})
    flat = np.concatenate(columns.pop("gradient") or [np.zeros(0, np.float32)])
    arrays = {"gradient": pa.FixedSizeListArray.from_arrays(pa.array(flat), featurizer.dim)}
    arrays |= {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def load_features(output_dir: str | Path) -> Dataset:
    """Load the features of a run directory, in the order of the dataset they were made from.

    Raises:
        ValueError: Not a run directory, chunks missing or damaged.
    """
    from datasets import Dataset

    output = Path(output_dir).expanduser()
    config = read_json(output / "config.json")
    if config is None:
        raise ValueError(f"{output} is not a run directory: it has no config.json.")
    done = _committed(output)
    if len(done) < config["chunks"]:
        raise ValueError(
            f"{output} holds {len(done)} of {config['chunks']} chunks: the run stopped early or files are damaged. "
            "Run `hf-prism featurize` again with the same arguments to complete it."
        )
    table = pa.concat_tables([pq.read_table(output / done[number]["file"]) for number in sorted(done)])
    table = table.take(np.argsort(table["row"].to_numpy(), kind="stable")).drop_columns("row")
    return Dataset(table.replace_schema_metadata(_without_row(table.schema.metadata)).combine_chunks())


def feature_id_of(output_dir: str | Path) -> str:
    """The feature_id of a run directory."""
    return json.loads((Path(output_dir).expanduser() / "config.json").read_text())["feature_id"]


def _without_row(metadata: dict[bytes, bytes]) -> dict[bytes, bytes]:
    huggingface = json.loads(metadata[b"huggingface"])
    huggingface["info"]["features"].pop("row", None)
    return {**metadata, b"huggingface": json.dumps(huggingface).encode()}


def _check_same_run(output: Path, stored: dict[str, Any] | None, config: dict[str, Any]) -> None:
    if stored is None:
        return
    differing = [name for name in config if stored.get(name) != config[name]]
    if differing:
        fields = "; ".join(f"{name}: {stored.get(name)!r} there, {config[name]!r} now" for name in differing)
        raise ValueError(
            f"{output} holds another run. What differs: {fields}. Choose another directory, or delete it."
        )


def _commit(output: Path, number: int, table: pa.Table) -> dict[str, Any]:
    """Write a chunk, then the manifest line that makes it count."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content = sink.getvalue().to_pybytes()
    name = f"chunks/{number:05d}.parquet"
    write_atomically(output / name, content)
    entry = {
        "chunk": number,
        "file": name,
        "rows": table.num_rows,
        "ids": digest(table["id"].to_pylist()),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    append_line(output / "manifest.jsonl", entry)
    return entry


def _committed(output: Path) -> dict[int, dict[str, Any]]:
    """The chunks that are there and whole, by number. A damaged or missing one is simply not among them."""
    entries = {entry["chunk"]: entry for entry in read_lines(output / "manifest.jsonl")}
    return {number: entry for number, entry in sorted(entries.items()) if _is_whole(output / entry["file"], entry)}


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]


def _padded(batch: Sequence[int], lengths: Sequence[int]) -> int:
    return len(batch) * max(lengths[row] for row in batch)


def _log(output: Path, event: str, **fields: Any) -> None:
    append_line(output / "log.jsonl", {"time": round(time.time(), 3), "event": event, **fields})
