"""Featurize a whole dataset into a run directory, in chunks that survive a crash, with any number of processes.

The rows are surveyed, then planned: a chunk is a list of batches, the same whoever computes it. Each process computes
whole chunks and commits them to the directory (`run_directory`), alone or beside others (`ranks`). The same dataset and
configuration resume where the last run stopped; anything else is an error that names what differs.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload
from uuid import uuid4

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from . import ranks
from .batches import plan_batches
from .featurizer import GradientFeaturizer
from .files import digest
from .proxy import EncodedRow, Skipped
from .ranks import Pulse, Team
from .rows import describe, load_rows, row_ids
from .run_directory import RunDirectory, feature_id_of, in_bytes
from .run_directory import is_run_directory as is_run_directory
from .run_directory import load_features as load_features


if TYPE_CHECKING:
    from datasets import Dataset

CHUNK_TOKENS = 2**16
"""A chunk, the unit that is committed and resumed, is closed at this many padded tokens."""

ENCODE_ROWS = 1000
"""Rows tokenised at a time."""

ESTIMATE_BATCHES = 20
"""Runs of at least so many batches say beforehand how long they will take."""

ROW_BYTES, CHUNK_BYTES = 40, 8192
"""What a row takes on disk besides its gradient and id, and a chunk besides its rows, rounded up."""


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


@overload
def featurize(
    dataset: Dataset,
    featurizer: GradientFeaturizer,
    output_dir: str | Path,
    *,
    shard: None = None,
    progress: bool = True,
) -> Dataset: ...


@overload
def featurize(
    dataset: Dataset, featurizer: GradientFeaturizer, output_dir: str | Path, *, shard: str, progress: bool = True
) -> Dataset | None: ...


def featurize(
    dataset: Dataset,
    featurizer: GradientFeaturizer,
    output_dir: str | Path,
    *,
    shard: str | None = None,
    progress: bool = True,
) -> Dataset | None:
    """Featurize every row of a dataset into `output_dir`, and return the features in the dataset's order.

    In a script started by torchrun or `accelerate launch`, the processes share the work, and each returns all features.

    Args:
        dataset: Rows in a layout that the featurizer reads.
        featurizer: What to compute.
        output_dir: The run directory; made if missing, resumed if it holds the same run. Several processes, also on
            several machines, may write it if they share the file system.
        shard: "2/4" computes the second of four parts and waits for no other, for schedulers that start independent
            jobs. Any call without it, or the last part, completes the run.
        progress: Show progress bars, the cost and the throughput on standard error.

    Returns:
        A dataset with the columns `id`, `gradient` (dim float32), `gradient_norm`, `loss`, `num_tokens` (and
        `truncated` with `on_long="truncate"`), one row for each row that was not skipped, memory-mapped. None from a
        shard after which other chunks are still missing.

    Raises:
        RowError: A row cannot be used; nothing has been computed yet.
        ValueError: No rows, or rows that stream (use `IterableDataset.map(featurizer)`); the directory holds another
            run, and the message names the fields that differ; a wrong shard.
        OSError: The disk has no room; what was committed is safe.
        RuntimeError: Another process of the launch died; what was committed is safe.

    Example:
        >>> features = featurize(dataset, GradientFeaturizer("embedded"), "runs/gsm8k")
        >>> features.column_names
        ['id', 'gradient', 'gradient_norm', 'loss', 'num_tokens']
    """
    done = run(dataset, featurizer, output_dir, shard=shard, progress=progress)
    return done.features if done.is_complete else None


@dataclass(frozen=True)
class Run:
    """What a call did.

    Attributes:
        directory: The run directory.
        survey: What was found in the rows.
        rank: The number of this process among those of its launch.
        num_rows: Rows that this process featurized.
        num_chunks: Chunks of the whole run.
        num_missing: Chunks that nobody has committed yet; only a shard leaves any.
    """

    directory: Path
    survey: Survey
    rank: int
    num_rows: int
    num_chunks: int
    num_missing: int

    @property
    def is_complete(self) -> bool:
        return self.num_missing == 0

    @cached_property
    def features(self) -> Dataset:
        """The features in the dataset's order."""
        return RunDirectory(self.directory).features() if self.is_complete else load_features(self.directory)

    @property
    def feature_id(self) -> str:
        return feature_id_of(self.directory)


def run(
    dataset: Dataset,
    featurizer: GradientFeaturizer,
    output_dir: str | Path | None = None,
    *,
    shard: str | None = None,
    progress: bool = True,
) -> Run:
    """`featurize`, with a directory of its own for every configuration where `output_dir` is None.

    That directory lies in the Hugging Face cache and is named by what it holds, so the same call finds it again.
    """
    part, parts = ranks.parse_shard(shard)
    team = ranks.join()
    if shard is not None and team.world > 1:
        raise ValueError(
            f"shard {shard!r} is for jobs that know nothing of each other, but a launcher started {team.world} processes, "
            "which share the work by themselves. Leave the shard out, or start without torchrun or accelerate launch."
        )
    if team.device and featurizer.device is None:
        featurizer.device = team.device
    progress = progress and team.rank == 0
    dataset = load_rows(dataset)
    found = survey(dataset, featurizer, progress=progress)
    directory = RunDirectory(output_dir if output_dir is not None else _cache_directory(featurizer, found))
    config = {**featurizer.identity, "rows": len(found.ids), "dataset": found.digest}
    directory.check_same_run(config)

    def look() -> tuple[str, list[int], bool]:
        if (directory.path / "chunks").is_dir() and directory.config() is None:
            _plan(featurizer, found, directory, config, 0)  # whoever lost config.json has not lost the chunks
        return _launch(), sorted(directory.committed()), directory.is_finished()

    # Processes look at the directory at different moments: what one of them saw decides for all.
    launch, done, finished = team.agree(look)
    if finished:
        return Run(directory.path, found, team.rank, 0, len(done), 0)
    me = team.rank if shard is None else part
    directory.open(f"{launch}-{me:05d}")
    with Pulse(directory.status) as pulse:
        chunks = _plan(featurizer, found, directory, config, len(done))
        todo = sorted(set(range(len(chunks))) - set(done))
        # Shards start at different times, so that only the whole plan tells them apart.
        owners = {number: (i % team.world if shard is None else number % parts) for i, number in enumerate(todo)}
        work = _Work(dataset, featurizer, found, directory, chunks, owners, me)
        work.begin(parts if shard else team.world, progress)
        started = time.perf_counter()
        work.compute(progress)
        if team.world > 1:
            _meet(directory, launch, team, pulse, work.report if progress else None)
        num_missing = 0
        if team.rank == 0:
            mine_only = shard is not None
            work.tell_throughput(time.perf_counter() - started, work.mine if mine_only else work.owners, progress)
            num_missing = len(work.missing())
            if not num_missing or not mine_only:
                directory.finish()
        pulse.finish()
    return Run(directory.path, found, team.rank, work.num_rows(work.mine), len(chunks), num_missing)


def _meet(directory: RunDirectory, launch: str, team: Team, pulse: Pulse, report: Callable[[], None] | None) -> None:
    """Rank 0 waits for the others to compute, and they for it to merge. Nobody waits in a collective operation."""
    if team.rank:
        pulse.finish()
    others = {rank: directory.status_of(f"{launch}-{rank:05d}") for rank in range(team.world) if rank != team.rank}
    awaited = [0] if team.rank else list(others)
    ranks.wait(lambda: [rank for rank in awaited if not ranks.is_done(others[rank])], others, report)


def _launch() -> str:
    """A name that no other launch has."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}"


def _cache_directory(featurizer: GradientFeaturizer, found: Survey) -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_prism" / "runs" / digest([featurizer.identity, found.digest])


def _plan(
    featurizer: GradientFeaturizer, found: Survey, directory: RunDirectory, config: dict[str, Any], num_done: int
) -> list[list[list[int]]]:
    """The chunks, checked against the stored plan, or stored. Loads the model, unless all chunks are there."""
    stored = directory.config()
    if stored is not None and num_done == stored["chunks"]:
        return [[]] * num_done
    chunks = plan_chunks(found.lengths, one_by_one=featurizer.one_by_one)
    config = {**config, "feature_id": featurizer.feature_id, "chunks": len(chunks), "plan": digest(chunks)}
    directory.check_same_run(config)
    if stored is None:
        directory.write_config(config)
    return chunks


@dataclass(frozen=True)
class _Work:
    """What a launch is to compute, and which part of it is this process's.

    Attributes:
        chunks: The whole plan: chunk, batch, row number.
        owners: By the number of each chunk that is not there yet, the process that computes it.
        me: The number of this process.
    """

    dataset: Dataset
    featurizer: GradientFeaturizer
    survey: Survey
    directory: RunDirectory
    chunks: list[list[list[int]]]
    owners: dict[int, int]
    me: int

    @property
    def mine(self) -> list[int]:
        return [number for number, owner in self.owners.items() if owner == self.me]

    def num_rows(self, numbers: Iterable[int]) -> int:
        return sum(len(batch) for number in numbers for batch in self.chunks[number])

    def num_tokens(self, numbers: Iterable[int], *, padded: bool = False) -> int:
        lengths = self.survey.lengths
        batches = [batch for number in numbers for batch in self.chunks[number]]
        return sum(_padded(batch, lengths) if padded else sum(lengths[row] for row in batch) for batch in batches)

    def begin(self, num_workers: int, progress: bool) -> None:
        """Log what was found in the rows, check the disk, and tell the cost."""
        if self.me == 0:
            self._log_survey()
        self.directory.require_space(self._disk_bytes())
        there = len(self.chunks) - len(self.owners)
        told = f"{there} of {len(self.chunks)} chunks are there already" if there else ""
        if progress and self.owners:
            tqdm.write(
                f"{self.num_rows(self.owners):,} rows to featurize, {self.num_tokens(self.owners):,} tokens, "
                f"{self.num_tokens(self.owners, padded=True):,} tokens with padding, {self._duration(num_workers)}, "
                f"{in_bytes(self._disk_bytes())} on disk at {self.directory.path}" + (f" ({told})" if told else ""),
                file=sys.stderr,
            )

    def _log_survey(self) -> None:
        found = self.survey
        truncated = [found.ids[row] for row in found.truncated]
        start = {"event": "start", "rows": len(found.ids), "repeats": found.num_repeats, "truncated": truncated}
        known = {event.get("id") for event in self.directory.events() if event.get("event") == "skipped"}
        skipped = [self._skipped(row, skip) for row, skip in found.skipped.items() if found.ids[row] not in known]
        self.directory.log(start, *skipped)

    def _skipped(self, row: int, skip: Skipped) -> dict[str, Any]:
        return {"event": "skipped", "id": self.survey.ids[row], "reason": skip.reason, "detail": skip.detail}

    def _disk_bytes(self) -> int:
        """What the missing chunks will take, and the merged file."""
        row = 4 * self.featurizer.dim + ROW_BYTES
        ids = sum(len(name.encode()) for name in self.survey.ids)
        return row * (self.num_rows(self.owners) + len(self.survey.ids)) + 2 * ids + CHUNK_BYTES * len(self.owners)

    def _duration(self, num_workers: int) -> str:
        """How long the chunks will take, in words; measured on a batch of middling length, after a warm-up."""
        batches = [batch for number in self.owners for batch in self.chunks[number]]
        if len(batches) < ESTIMATE_BATCHES:
            return "a moment"
        middle = batches[len(batches) // 2]
        encoded = self._encoded(middle)
        self.featurizer.featurize_batches([encoded])
        started = time.perf_counter()
        self.featurizer.featurize_batches([encoded])
        rate = (time.perf_counter() - started) / _padded(middle, self.survey.lengths)
        minutes = rate * self.num_tokens(self.owners, padded=True) / 60 / num_workers
        told = f"about {minutes:.0f} minutes" if minutes >= 1.5 else f"about {60 * minutes:.0f} seconds"
        return told + (f" for {num_workers} processes" if num_workers > 1 else "")

    def compute(self, progress: bool) -> None:
        """Featurize and commit this process's chunks, one by one."""
        recorded = self.directory.parts()
        total = self.num_tokens(self.mine, padded=True)
        with tqdm(total=total, desc="Featurizing", unit=" tokens", unit_scale=True, disable=not progress) as bar:
            for number in self.mine:
                self.directory.log({"event": "begin", "chunk": number})
                started = time.perf_counter()
                table, divided = self._featurize(number, recorded.get(number), bar)
                self.directory.commit(number, table, divided)
                self.directory.log(
                    {
                        "event": "chunk",
                        "chunk": number,
                        "rows": table.num_rows,
                        "tokens": self.num_tokens([number]),
                        "seconds": round(time.perf_counter() - started, 3),
                    }
                )

    def _featurize(
        self, number: int, recorded: dict[int, list[int]] | None, bar: tqdm
    ) -> tuple[pa.Table, dict[int, list[int]]]:
        """The features of a chunk, and the parts of those batches that memory did not hold at once.

        A chunk that was computed before is divided as it was then, which gives the same bytes again.
        """
        columns: dict[str, list[Any]] = {"row": [], "id": []} | {name: [] for name in self.featurizer.features}
        batches = self.chunks[number]
        parts = None if recorded is None else {i: recorded.get(i, [len(batch)]) for i, batch in enumerate(batches)}
        found, divided = self.featurizer.featurize_batches(self._told(batches, bar), parts)
        if divided != (recorded or {}):
            self.directory.log({"event": "divided", "chunk": number, "parts": divided})
        for batch, results in zip(batches, found, strict=True):
            for row, values in zip(batch, results, strict=True):
                if isinstance(values, Skipped):
                    self.directory.log(self._skipped(row, values))
                    continue
                cells = {"row": row, "id": self.survey.ids[row], **values}
                for name, column in columns.items():
                    column.append(cells[name])
        return _table(columns, self.featurizer), divided

    def _told(self, batches: list[list[int]], bar: tqdm) -> Iterator[list[EncodedRow]]:
        """The rows of each batch, tokenised when asked for."""
        for batch in batches:
            yield self._encoded(batch)
            bar.update(_padded(batch, self.survey.lengths))

    def _encoded(self, batch: list[int]) -> list[EncodedRow]:
        encoded = _encode(self.dataset, self.featurizer, self.survey.ids, batch)
        return [row for row in encoded if isinstance(row, EncodedRow)]

    def tell_throughput(self, seconds: float, numbers: Collection[int], progress: bool) -> None:
        """Log, and print, what `numbers` took."""
        rows, tokens = self.num_rows(numbers), self.num_tokens(numbers)
        self.directory.log({"event": "end", "rows": rows, "tokens": tokens, "seconds": round(seconds, 3)})
        if progress and numbers:
            tqdm.write(
                f"{rows:,} rows, {tokens:,} tokens in {seconds:,.1f} seconds: {rows / seconds:,.1f} rows/s, "
                f"{tokens / seconds:,.0f} tokens/s",
                file=sys.stderr,
            )

    def missing(self) -> list[int]:
        """The chunks that nobody has committed yet."""
        there = self.directory.committed()
        return [number for number in range(len(self.chunks)) if number not in there]

    def report(self) -> None:
        """Tell which chunks are awaited from whom."""
        awaited: dict[int, list[int]] = {}
        for number in self.missing():
            awaited.setdefault(self.owners.get(number, self.me), []).append(number)
        told = "; ".join(f"rank {rank}: {_listed(numbers)}" for rank, numbers in sorted(awaited.items()))
        tqdm.write(f"Waiting for {sum(map(len, awaited.values()))} chunks of {told or 'nobody'}", file=sys.stderr)


def _listed(numbers: list[int], limit: int = 8) -> str:
    return ", ".join(map(str, numbers[:limit])) + (f" and {len(numbers) - limit} more" if len(numbers) > limit else "")


def _padded(batch: Sequence[int], lengths: Sequence[int]) -> int:
    return len(batch) * max(lengths[row] for row in batch)


def _table(columns: dict[str, list[Any]], featurizer: GradientFeaturizer) -> pa.Table:
    from datasets import Features, Value

    features = Features({"row": Value("int64"), "id": Value("string"), **featurizer.features})
    schema = features.arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), **featurizer.origin.metadata()})
    flat = np.concatenate(columns.pop("gradient") or [np.zeros(0, np.float32)])
    arrays = {"gradient": pa.FixedSizeListArray.from_arrays(pa.array(flat), featurizer.dim)}
    arrays |= {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    return pa.table([arrays[name] for name in schema.names], schema=schema)
