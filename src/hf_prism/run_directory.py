"""A run directory: what it holds, what of it counts, and how any number of processes write it at once.

    config.json            what the numbers depend on, and the number of chunks
    chunks/NNNNN.parquet   the features of a chunk's rows, by row number and id
    writers/NAME/          what the process NAME has to say: manifest.jsonl, log.jsonl, status
    manifest.jsonl         one line a committed chunk, with its checksum
    log.jsonl              what happened, in order of time
    features.arrow         all features in the dataset's order, for `Dataset.from_file`
    features.json          which chunks features.arrow was made from, and its checksum

No two processes write to one file: each appends to its own, the reader takes the union, and everything else is put in
place by a rename, with content that does not depend on who writes it. `manifest.jsonl` and `log.jsonl` at the top are the
unions, and like `features.arrow` they are made when the last chunk is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import (
    append_lines,
    create_json,
    digest,
    read_json,
    read_lines,
    replacing,
    sweep,
    write_atomically,
    write_json,
)
from .rows import read_arrow


if TYPE_CHECKING:
    from datasets import Dataset

MERGE_ROWS = 4096
"""Rows of one record batch of features.arrow: what a merge holds in memory of the gradients."""


class RunDirectory:
    """One run directory, as this process sees and writes it.

    Args:
        path: Where it is, or will be after `open`.
    """

    def __init__(self, path: str | Path):
        if not str(path).strip():
            raise ValueError(
                f"The run directory {str(path)!r} is empty: is a variable unset? Use '.' for the current one."
            )
        self.path = Path(path).expanduser()
        self._own = self.path / "writers"
        self._checked: dict[int, tuple[tuple[int, int], dict[str, Any]]] = {}

    def config(self) -> dict[str, Any] | None:
        """The configuration of the run, or None where there is none yet.

        Raises:
            ValueError: It is damaged, or of something else than a run.
        """
        path = self.path / "config.json"
        try:
            config = read_json(path)
            if config is not None and not (config.get("chunks") and _is_count(config["chunks"])):
                raise ValueError(f"{path} is not that of a run: it lacks a whole number `chunks`.")
            if config is not None and not isinstance(config.get("feature_id"), str):
                raise ValueError(f"{path} is not that of a run: it lacks a `feature_id`.")
        except ValueError as error:
            raise ValueError(
                f"{error} If this was a run, delete that file and run the same again: its chunks are kept. Else choose "
                "another directory."
            ) from error
        return config

    def check_same_run(self, config: dict[str, Any]) -> None:
        """Compare the fields of `config` with what is stored, if anything is.

        Raises:
            ValueError: The directory holds another run; the message names the fields that differ.
        """
        stored = self.config()
        differing = [name for name in config if stored is not None and stored.get(name) != config[name]]
        if stored is not None and differing:
            fields = "; ".join(f"{name}: {stored.get(name)!r} there, {config[name]!r} now" for name in differing)
            hint = " (dataset is a digest of the rows: their ids, order and text)" if "dataset" in differing else ""
            raise ValueError(
                f"{self.path} holds another run. What differs: {fields}{hint}. Choose another directory, or delete this "
                "one as a whole."
            )

    def open(self, writer: str) -> None:
        """Make the directory ready for this process to write under a name that no other process has.

        Raises:
            ValueError: A file is in the way, or the place cannot be written.
        """
        self._own = self.path / "writers" / writer
        try:
            (self.path / "chunks").mkdir(parents=True, exist_ok=True)
            self._own.mkdir(parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(
                f"{self.path} cannot be a run directory: a file is in the way. Choose another."
            ) from error
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror}: {error.filename}). Choose another directory, or have "
                "its owner give you the right to write there."
            ) from error
        sweep(self.path)
        sweep(self.path / "chunks")

    @property
    def status(self) -> Path:
        """The file that shows the other processes that this one lives."""
        return self._own / "status"

    def status_of(self, writer: str) -> Path:
        """The same file of another process."""
        return self.path / "writers" / writer / "status"

    def write_config(self, config: dict[str, Any]) -> None:
        """Store the configuration, unless there is one: of processes that start at once, one decides for all.

        Raises:
            ValueError: Another process has just begun another run here.
        """
        with self.explained_if_full(1000):
            if not create_json(self.path / "config.json", config):
                self.check_same_run(config)

    def log(self, *events: dict[str, Any]) -> None:
        """Log events of this process, with the time and its name."""
        stamp = {"time": round(time.time(), 3), "writer": self._own.name}
        with self.explained_if_full(len(json.dumps(events))):
            append_lines(self._own / "log.jsonl", *({**stamp, **event} for event in events))

    def events(self) -> list[dict[str, Any]]:
        """What all processes logged, in order of time."""
        lines = {json.dumps(event): event for path in self._all("log.jsonl") for event in read_lines(path)}
        return sorted(lines.values(), key=lambda event: (event.get("time", 0), str(event.get("writer"))))

    def commit(self, number: int, table: pa.Table, parts: dict[int, list[int]]) -> None:
        """Write a chunk, then the manifest line that makes it count.

        Args:
            number: Of the chunk.
            table: Its columns, among them `row` and `id`. The same table gives the same bytes.
            parts: By batch number, the sizes of the parts in which memory forced a batch to be computed.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, use_dictionary=False, compression="none")  # gradients do not compress
        content = sink.getvalue().to_pybytes()
        name = _chunk_name(number)
        with self.explained_if_full(len(content)):
            write_atomically(self.path / name, content)
            entry = {
                "run": digest(self.config()),
                "chunk": number,
                "file": name,
                "rows": table.num_rows,
                "ids": digest(table["id"].to_pylist()),
                "sha256": hashlib.sha256(content).hexdigest(),
                **({"parts": parts} if parts else {}),
            }
            append_lines(self._own / "manifest.jsonl", entry)

    def committed(self) -> dict[int, dict[str, Any]]:
        """The manifest lines of the chunks that are there and whole, by number.

        A file that is missing, damaged or another chunk's is simply not among them: it will be computed again.
        """
        announced: dict[int, list[dict[str, Any]]] = {}
        num_chunks = (self.config() or {}).get("chunks", 0)
        for entry in self._entries():
            if entry["chunk"] < num_chunks:
                announced.setdefault(entry["chunk"], []).append(entry)
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self._whole, announced.values()))
        return {entry["chunk"]: entry for entry in sorted(filter(None, found), key=lambda entry: entry["chunk"])}

    def _entries(self) -> Iterator[dict[str, Any]]:
        """All manifest lines of this run that make sense; any other is as good as torn."""
        run = digest(self.config())
        for path in self._all("manifest.jsonl"):
            for entry in read_lines(path):
                if (
                    entry.get("run") == run
                    and _makes_sense(entry)
                    and entry.get("file") == _chunk_name(entry["chunk"])
                ):
                    yield entry

    def _whole(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The line that describes the chunk's file as it is. Several lines tell of a chunk that was computed again."""
        number = entries[0]["chunk"]
        try:
            with (self.path / _chunk_name(number)).open("rb") as file:
                state = Path(file.name).stat()
                seen = (state.st_mtime_ns, state.st_size)
                if number in self._checked and self._checked[number][0] == seen:
                    return self._checked[number][1]
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        for entry in entries:
            if entry.get("sha256") == sha256:
                self._checked[number] = (seen, entry)
                return entry
        return None

    def parts(self) -> dict[int, dict[int, list[int]]]:
        """By the number of each chunk that was computed before, also if it is lost: by batch number, its parts."""
        recorded: dict[int, dict[int, list[int]]] = {}
        events = [event for event in self.events() if event.get("event") == "divided"]
        for source in [*filter(_makes_sense, events), *self._entries()]:
            parts = source.get("parts", {})
            recorded.setdefault(source["chunk"], {}).update({int(batch): parts[batch] for batch in parts})
        return recorded

    def _all(self, name: str) -> Iterator[Path]:
        """The file of this name at the top and those of all processes."""
        yield self.path / name
        yield from sorted(self.path.glob(f"writers/*/{name}"))

    def is_finished(self) -> bool:
        """Whether every chunk is there, and merged."""
        config, done = self.config(), self.committed()
        return config is not None and len(done) == config["chunks"] and self._is_merged(done)

    def finish(self) -> None:
        """Consolidate manifest and log, and merge the chunks. Any process may do it, also several at once.

        Raises:
            ValueError: Not a run directory; chunks missing or damaged.
        """
        done = self._all_chunks()
        for name, entries in (("manifest.jsonl", done.values()), ("log.jsonl", self.events())):
            content = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
            with self.explained_if_full(len(content)):
                write_atomically(self.path / name, content)
        if not self._is_merged(done):
            self._merge(done)

    def load(self) -> Dataset:
        """The features in the dataset's order, memory-mapped; merged first where that has not been done.

        Raises:
            ValueError: Not a run directory; chunks missing or damaged.
        """
        done = self._all_chunks()
        if not self._is_merged(done):
            self._merge(done)
        return self.features()

    def _all_chunks(self) -> dict[int, dict[str, Any]]:
        config, done = self.config(), self.committed()
        if config is None:
            raise ValueError(f"{self.path} is not a run directory: it has no config.json.")
        if len(done) < config["chunks"]:
            raise ValueError(
                f"{self.path} holds {len(done)} of {config['chunks']} chunks: the run stopped early or files are damaged. "
                "Run `hf-prism featurize` again with the same arguments to complete it."
            )
        return done

    def features(self) -> Dataset:
        """The merged features as they are."""
        return read_arrow(self.path / "features.arrow")

    def _is_merged(self, done: dict[int, dict[str, Any]]) -> bool:
        try:
            merged = read_json(self.path / "features.json") or {}
            if merged.get("chunks") != _digest_of(done):
                return False
            with (self.path / "features.arrow").open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == merged.get("sha256")
        except (FileNotFoundError, ValueError):
            return False

    def _merge(self, done: dict[int, dict[str, Any]]) -> None:
        """Write features.arrow without ever holding the gradients of more than one chunk and one record batch.

        Chunks hold rows of like length, from all over the dataset. So the file is first written with its small columns
        and gradients of zero, and then each gradient goes to its place.
        """
        sweep(self.path)  # a merge that was killed leaves a file as large as this one
        chunks = [self.path / entry["file"] for entry in done.values()]
        schema = _merged_schema(pq.read_schema(chunks[0]))
        small = [name for name in ["row", *schema.names] if name != "gradient"]
        table = pa.concat_tables([pq.read_table(chunk, columns=small) for chunk in chunks])
        order = np.argsort(table["row"].to_numpy(), kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        with (
            self.explained_if_full(len(order) * 4 * schema.field("gradient").type.list_size),
            replacing(self.path / "features.arrow") as file,
        ):
            _write_without_gradients(file, table.take(order), schema)
            addresses = _gradient_addresses(Path(file.name))[place]
            start = 0
            for chunk in chunks:
                vectors = _gradients(chunk)
                for vector, address in zip(vectors, addresses[start : start + len(vectors)].tolist(), strict=True):
                    file.seek(address)
                    file.write(vector)
                start += len(vectors)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        merged = {
            "rows": len(order),
            "feature_id": schema.metadata[b"feature_id"].decode(),
            "chunks": _digest_of(done),
            "sha256": sha256,
        }
        with self.explained_if_full(1000):
            write_json(self.path / "features.json", merged)

    def require_space(self, num_bytes: int) -> None:
        """Raises OSError where the disk has no room for so many bytes more."""
        place = next(folder for folder in [self.path, *self.path.parents] if folder.exists())
        free = shutil.disk_usage(place).free
        if free < num_bytes:
            raise OSError(
                errno.ENOSPC,
                f"the run needs {in_bytes(num_bytes)} on disk, for its chunks and for features.arrow, but only "
                f"{in_bytes(free)} are free. Nothing was computed. Make room, or choose another directory",
                str(self.path),
            )

    @contextmanager
    def explained_if_full(self, num_bytes: int) -> Iterator[None]:
        """Say of a full disk what was to be written, and what is safe."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            config = self.config() or {}
            raise OSError(
                error.errno,
                f"the disk is full, or the quota used up: {in_bytes(num_bytes)} more were to be written, "
                f"{in_bytes(shutil.disk_usage(self.path).free)} are free. {len(self.committed())} of "
                f"{config.get('chunks', '?')} chunks are safe. Make room and run the same again: it goes on from there",
                str(self.path),
            ) from error


def load_features(output_dir: str | Path) -> Dataset:
    """Load the features of a run directory, in the order of the dataset they were made from, memory-mapped.

    Args:
        output_dir: A run directory that `featurize` completed. Its `features.arrow` is also what
            `datasets.load_dataset("arrow", data_files=...)` reads; this function checks every file first.

    Returns:
        A dataset with the columns `id`, `gradient` (dim float32), `gradient_norm`, `loss`, `num_tokens` (and
        `truncated` with `on_long="truncate"`), one row for each row that was not skipped.

    Raises:
        ValueError: Not a run directory, chunks missing or damaged.

    Example:
        >>> load_features("runs/gsm8k").column_names  # doctest: +SKIP
        ['id', 'gradient', 'gradient_norm', 'loss', 'num_tokens']
    """
    return RunDirectory(output_dir).load()


def feature_id_of(output_dir: str | Path) -> str:
    """The feature_id of a run directory."""
    config = RunDirectory(output_dir).config()
    if config is None:
        raise ValueError(f"{output_dir} is not a run directory: it has no config.json.")
    return config["feature_id"]


def is_run_directory(path: str | Path) -> bool:
    """Whether a run was begun there."""
    folder = Path(path).expanduser()
    return (folder / "config.json").is_file() and (folder / "chunks").is_dir()


def in_bytes(number: float) -> str:
    """A number of bytes in words."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _chunk_name(number: int) -> str:
    return f"chunks/{number:05d}.parquet"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _makes_sense(entry: dict[str, Any]) -> bool:
    """Whether a line names a chunk, and the parts of its batches if any, as this module writes them."""
    parts = entry.get("parts", {})
    return (
        _is_count(entry.get("chunk"))
        and isinstance(parts, dict)
        and all(batch.isdecimal() and isinstance(parts[batch], list) for batch in parts)
        and all(_is_count(size) for sizes in parts.values() for size in sizes)
    )


def _digest_of(done: dict[int, dict[str, Any]]) -> str:
    return digest([[number, entry["sha256"]] for number, entry in done.items()])


def _merged_schema(schema: pa.Schema) -> pa.Schema:
    """That of a chunk without the row numbers."""
    huggingface = json.loads(schema.metadata[b"huggingface"])
    huggingface["info"]["features"].pop("row")
    schema = schema.remove(schema.get_field_index("row"))
    return schema.with_metadata({**schema.metadata, b"huggingface": json.dumps(huggingface).encode()})


def _write_without_gradients(file: IO[bytes], table: pa.Table, schema: pa.Schema) -> None:
    width = schema.field("gradient").type.list_size
    with pa.ipc.new_stream(file, schema) as stream:
        for start in range(0, table.num_rows, MERGE_ROWS):
            rows = table.slice(start, MERGE_ROWS).combine_chunks()
            zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows.num_rows * width, np.float32)), width)
            columns = [zeros if name == "gradient" else rows[name].combine_chunks() for name in schema.names]
            stream.write_batch(pa.record_batch(columns, schema=schema))
    file.flush()


def _gradient_addresses(path: Path) -> np.ndarray:
    """Where in an Arrow stream the gradient of each row begins."""
    addresses = [np.zeros(0, np.int64)]
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
        for batch in pa.ipc.open_stream(content):
            column = batch.column("gradient")
            begin = column.values.buffers()[1].address - content.address
            addresses.append(begin + 4 * column.type.list_size * np.arange(len(column)))
    return np.concatenate(addresses)


def _gradients(chunk: Path) -> np.ndarray:
    column = pq.read_table(chunk, columns=["gradient"])["gradient"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1) if len(column) else np.zeros((0, 0), np.float32)
