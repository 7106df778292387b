"""A synthesis run on the Hub: the rows that each round accepted, all rounds so far in one commit, and a tag for each state.

    data/round-003.parquet  the rows of round 3, of the seeds in round-000; never changed once pushed
    hf_prism.json           "kind": "synthesis", the run's digest, the rounds with their checksums, what the run is
    g_vendi.png             G-Vendi of the pool, round by round
    README.md               the card: YAML merged into the user's, and one block of text between two markers

Whoever loads the dataset has the pool after the newest round; `revision="round-003"` has it as it was after round 3. A round
that accepted nothing has no file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi

from . import pushing
from .access import files_to_change, patiently
from .cards import merged_card
from .pushing import CARD, ROUND, ROWS_FILE, Held, Shard, check_not_taken, read_file, write_shards
from .run_card import PICTURE, RoundSummary, picture, run_card, state_name


if TYPE_CHECKING:
    from datasets import Dataset, Features

FACTS = ("run", "task", "strategy", "generator", "solver", "proxy", "feature_id", "simulation", "recipe")
MAX_ROUNDS = 999  # what the names of the files have digits for


@dataclass(frozen=True)
class _Round:
    """The rows of a round as they are on the Hub."""

    rows: int
    digest: str  # of the rows themselves: other versions of the libraries write other bytes for the same rows
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class _Run:
    """All of a run that a push brings."""

    facts: Mapping[str, Any]
    features: Features
    rounds: Mapping[int, _Round]
    paths: Mapping[Shard, Path]  # where the files lie now
    summaries: Sequence[RoundSummary]
    picture: bytes
    license: str | None

    @property
    def sizes(self) -> Mapping[int, int]:
        return {number: part.rows for number, part in self.rounds.items()}

    @property
    def num_rows(self) -> int:
        return sum(self.sizes.values())


def push_rounds(
    rounds: Sequence[Dataset | None],
    repo_id: str,
    *,
    summaries: Sequence[RoundSummary],
    facts: Mapping[str, Any],
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Push all rounds of a synthesis run so far, in one commit, and tag it with the newest: `round-003`.

    Rounds that are there already are not sent again, and the same rounds again make no new commit. A push that was cut off
    is repaired by the next one. Who knows fewer rounds than the Hub has, changes nothing.

    Args:
        rounds: The seeds, None to leave them out, then the rows accepted in round 1, 2, ..., all with the same Features.
        repo_id: `USER/NAME` of the dataset; made if there is none.
        summaries: Of the rounds from 1 on, in order; one of number 0, for the seeds, may come first.
        facts: What the run is: `FACTS`. `run` identifies it, `proxy` is the identity of the featurizer, `recipe` YAML.
        license: For the card, where that names none yet.
        private: Whether a new dataset is private. An existing public one is then refused.
        token: Of the Hub; default, the one logged in with.

    Returns:
        The id of the commit that holds the rounds.

    Raises:
        ValueError: As `check_can_push_run`; rounds and summaries that do not belong together; a column that differs from
            round to round, or without a type; a round that differs from what was pushed as that round before.

    Example:
        >>> push_rounds([seeds, first], "user/pool", summaries=[summary], facts=facts)  # doctest: +SKIP
        '5be02a...'
    """
    _check_facts(facts)
    check_can_push_run(repo_id, facts["run"], token)
    parts = {number: rows for number, rows in enumerate(rounds) if rows is not None}
    _check_summaries(rounds, summaries)
    if not any(map(len, parts.values())):
        raise ValueError(f"no rows to push to {repo_id}: none of {len(rounds) - 1} rounds accepted any.")
    features = _common_features({number: rows for number, rows in parts.items() if len(rows)})
    _check_ids(parts)
    with TemporaryDirectory() as folder:
        written, paths = {}, {}
        for number, rows in parts.items():
            written[number], places = _write_round(number, rows, features, Path(folder, str(number)))
            paths |= places
        run = _Run(facts, features, written, paths, summaries, picture(summaries), license)
        return pushing.push(repo_id, partial(_attempt, run), private=private, token=token)


def check_can_push_run(repo_id: str, run_digest: str, token: str | None = None) -> None:
    """Find out, before a model is asked for anything, whether the rounds of a run can be pushed to a dataset.

    Args:
        repo_id: `USER/NAME`; it need not exist yet.
        run_digest: What identifies the run, `facts["run"]` of `push_rounds`.
        token: Of the Hub; default, the one logged in with.

    Raises:
        ValueError: As `hf_prism.hub.check_can_push`; a dataset that holds another run, or anything else.
    """
    held = files_to_change(repo_id, token)
    check_not_taken(repo_id, held, ROWS_FILE, ROUND)
    if ROWS_FILE in held:
        _parse(patiently(lambda: read_file(repo_id, ROWS_FILE, "main", token)), repo_id, run_digest)


# What belongs together.


def _check_facts(facts: Mapping[str, Any]) -> None:
    if missing := [name for name in FACTS if name not in facts]:
        raise ValueError(f"facts lacks {', '.join(missing)}; without it the card cannot say what the run is.")


def _check_summaries(rounds: Sequence[Dataset | None], summaries: Sequence[RoundSummary]) -> None:
    last = len(rounds) - 1
    if not 1 <= last <= MAX_ROUNDS:
        raise ValueError(f"there are {last} rounds after the seeds; from 1 to {MAX_ROUNDS} can be pushed.")
    numbers = [summary.number for summary in summaries]
    if numbers not in ([*range(1, last + 1)], [*range(last + 1)]):
        raise ValueError(f"the summaries are of the rounds {numbers}, but the rows of rounds 1 to {last}.")
    size = 0 if rounds[0] is None else len(rounds[0])
    for summary in summaries:
        rows = rounds[summary.number]
        if summary.number:
            if rows is None:
                raise ValueError(f"round {summary.number} is None; only the seeds can be left out.")
            size += len(rows)
            if len(rows) != summary.accepted:
                raise ValueError(
                    f"round {summary.number} has {len(rows)} rows, but its summary says {summary.accepted} accepted. Was "
                    "a file of the run changed by hand?"
                )
        if rounds[0] is not None and summary.pool_size != size:
            raise ValueError(
                f"after round {summary.number} the pool has {size} rows, but its summary says {summary.pool_size}."
            )


def _common_features(parts: Mapping[int, Dataset]) -> Features:
    """The Features of all rounds, every column with a type."""
    (first, features), *others = ((number, rows.features) for number, rows in parts.items())
    for number, other in others:
        _check_same(features, other, f"the rounds {first} and {number} differ")
    for field in features.arrow_schema:
        if _has_null(field.type):
            raise ValueError(
                f"the column {field.name!r} is {features[field.name]}: with nothing in it, its type is not known, and the "
                "next round may have another. Say which: `rows.cast_column(...)`."
            )
    return features


def _check_same(features: Features, other: Features, problem: str) -> None:
    for name in {**features, **other}:
        if features.get(name) != other.get(name):
            raise ValueError(
                f"{problem} in the column {name!r}: {features.get(name)} and {other.get(name)}. Give all rounds the same: "
                "`rows.cast(features)`."
            )


def _has_null(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or any(_has_null(kind.field(i).type) for i in range(kind.num_fields))


def _check_ids(parts: Mapping[int, Dataset]) -> None:
    """Rows are joined to their gradients by id, so no two of a pool have the same."""
    seen: dict[Any, int] = {}
    for number, rows in parts.items():
        for name in rows.with_format(None)["id"][:] if "id" in rows.column_names else ():
            if name in seen:
                raise ValueError(f"the id {name!r} of round {number} is that of a row of round {seen[name]} too.")
            seen[name] = number


# The files.


def _write_round(number: int, rows: Dataset, features: Features, folder: Path) -> tuple[_Round, Mapping[Shard, Path]]:
    """Write the rows of a round, and read them back. Without rows there is no file: some readers fail at an empty one."""
    if len(rows) == 0:
        return _Round(0, _digest([]), ()), {}
    folder.mkdir()
    shards = write_shards(rows, features, folder, partial(_file_name, number))
    digest = _digest(pushing.tables(rows, features.arrow_schema))
    if digest != _digest(_read_back(shards)):
        raise OSError(
            f"the rows of round {number} that were written are not those that were given. Nothing was pushed."
        )
    return _Round(len(rows), digest, tuple(shards.values())), {shard: path for path, shard in shards.items()}


def _file_name(number: int, i: int, n: int) -> str:
    return f"data/round-{number:03d}{f'-{i:05d}-of-{n:05d}' if n > 1 else ''}.parquet"


def _read_back(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        yield from pq.ParquetFile(path).iter_batches(pushing.ROW_GROUP)


def _digest(tables: Iterable[pa.Table | pa.RecordBatch]) -> str:
    """Identifies the rows, however they are cut into tables."""
    total = hashlib.sha256()
    for row in itertools.chain.from_iterable(part.to_pylist() for part in tables):
        total.update(repr(row).encode(errors="surrogatepass") + b"\n")
    return total.hexdigest()[:16]


# The commit.


def _attempt(run: _Run, held: Held) -> str:
    """One try: the files that are missing, our JSON file, our part of the card; then the tag."""
    check_not_taken(held.repo_id, held.files, ROWS_FILE, ROUND)
    newest = max(run.rounds)
    before: Mapping[int, _Round] = {}
    states = {newest}
    if ROWS_FILE in held.files:
        before, earlier, features = _parse(held.read(ROWS_FILE), held.repo_id, run.facts["run"])
        states |= earlier
        _check_same(features, run.features, f"the rounds on {held.repo_id} and those here differ")
        _check_unchanged(held.repo_id, before, run.rounds)
        # An earlier push may have died between its commit and its tag; after the next commit nobody would find it.
        _tag(held, max(before), held.commit)
        if max(before) > newest:
            return held.commit
    rounds = {number: _kept(before.get(number), ours, held.files) for number, ours in run.rounds.items()}
    shards = [shard for part in rounds.values() for shard in part.shards]
    changes: dict[str, Path | bytes | None] = {shard.file: run.paths[shard] for shard in shards if shard in run.paths}
    changes[ROWS_FILE] = _manifest(run, rounds, sorted(states))
    changes[PICTURE] = run.picture
    changes[CARD] = merged_card(
        held.read(CARD),
        held.repo_id,
        block=run_card(held.repo_id, run.facts, run.summaries, run.sizes, list(run.features), sorted(states)),
        tags=("hf_prism", "synthetic"),
        num_rows=run.num_rows,
        data_files="data/round-*",
        license=run.license,
    ).encode()
    files = {shard.file for shard in shards}
    changes |= dict.fromkeys(sorted(name for name in held.files - files if re.fullmatch(ROUND, name)))
    commit = held.change(changes, f"Round {newest}: {run.num_rows:,} rows by hf_prism")
    _tag(held, newest, commit)
    return commit


def _tag(held: Held, number: int, commit: str) -> None:
    """Name a state, unless that name is taken: who loaded it must find the same rows again."""
    HfApi(token=held.token).create_tag(
        held.repo_id, tag=state_name(number), revision=commit, repo_type="dataset", exist_ok=True
    )


def _kept(theirs: _Round | None, ours: _Round, files: frozenset[str]) -> _Round:
    """The files of a round: those on the Hub, if they are there, even if ours have other bytes."""
    return theirs if theirs and files.issuperset(shard.file for shard in theirs.shards) else ours


def _check_unchanged(repo_id: str, before: Mapping[int, _Round], now: Mapping[int, _Round]) -> None:
    common = min(max(before, default=-1), max(now))
    for number in sorted(number for number in {*before, *now} if number <= common):
        told, given = (
            f"{part.rows:,} rows with the digest {part.digest}" if part else "none"
            for part in (before.get(number), now.get(number))
        )
        if told != given:
            raise ValueError(
                f"round {number} of this run is on {repo_id} already, and differs: {told} there, {given} here. A round does "
                "not change once it was pushed, for somebody may have loaded it. Choose another name."
            )


def _manifest(run: _Run, rounds: Mapping[int, _Round], states: Sequence[int]) -> bytes:
    summaries = {summary.number: asdict(summary) for summary in run.summaries}
    content = {
        "kind": "synthesis",
        "run": run.facts["run"],
        "rows": run.num_rows,
        "states": list(states),
        "features": run.features.to_dict(),
        "rounds": [
            {"number": number, **asdict(part), "summary": summaries.get(number)} for number, part in rounds.items()
        ],
        "facts": dict(run.facts),
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def _parse(content: bytes, repo_id: str, run: str) -> tuple[Mapping[int, _Round], set[int], Features]:
    """What an earlier push of this run said: its rounds by number, those that have a tag, and the Features."""
    from datasets import Features

    try:
        told = json.loads(content)
        theirs = told["run"] if told["kind"] == "synthesis" else None
    except (ValueError, KeyError, TypeError):
        theirs = None
    if theirs is None:
        raise ValueError(
            f"{repo_id} holds something else: by its {ROWS_FILE}, it is no synthesis run. Choose another name."
        )
    if theirs != run:
        raise ValueError(
            f"{repo_id} holds the run {theirs}, and this is the run {run}. Rounds of two runs would be one pool. Choose "
            "another name, or go on in the directory of that run."
        )
    try:
        rounds = {
            part["number"]: _Round(part["rows"], part["digest"], tuple(Shard(**shard) for shard in part["shards"]))
            for part in told["rounds"]
        }
        if not rounds:
            raise ValueError("it has no rounds")
        return rounds, set(told["states"]), Features.from_dict(told["features"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the {ROWS_FILE} of {repo_id} cannot be read ({error!r}). Was it changed by hand? Restore it from an earlier "
            "commit, or choose another name."
        ) from error
