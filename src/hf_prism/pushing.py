"""What every push to the Hub does: rows become Parquet files that are read back, and one commit changes all or nothing.

A try starts from what the dataset holds, and the Hub refuses it if that has changed meanwhile: then it starts over. So of
several who push at the same time, each builds on what the one before left.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from .access import patiently
from .origin import Origin


if TYPE_CHECKING:
    from datasets import Dataset, Features

SHARD_BYTES = 400_000_000
"""Most bytes of rows in one Parquet file, as Arrow holds them."""

ROW_GROUP = 1000
"""Rows read, written and streamed at a time: 4 MB of gradients at dim = 1024."""

FEATURES_FILE, ROWS_FILE, CARD = "features.json", "hf_prism.json", "README.md"
SHARD = r"data/train-\d{5}-of-\d{5}\.parquet"
ROUND = r"data/round-\d{3}(-\d{5}-of-\d{5})?\.parquet"  # of a synthesis run
TEXTS = r"\.git\w+|LICENSE.*|.*\.md"  # files that a dataset may have before the first push


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a push."""

    file: str
    "its name in the repository"
    rows: int
    sha256: str


@dataclass(frozen=True)
class Held:
    """What a repository holds, as the start of one try to change it."""

    repo_id: str
    commit: str
    files: frozenset[str]
    token: str | None
    repo_type: str = "dataset"

    def read(self, name: str) -> bytes:
        """A small file; empty where there is none."""
        return read_file(self.repo_id, name, self.commit, self.token, self.repo_type) if name in self.files else b""

    def change(self, changes: Mapping[str, Path | bytes | None], title: str) -> str:
        """Commit new contents, None to delete a file. What is there already is not sent; no change makes no commit."""
        # New operations for every try: they remember what the Hub held when they were first sent.
        operations = [
            CommitOperationDelete(name) if content is None else CommitOperationAdd(name, content)
            for name, content in changes.items()
        ]
        api = HfApi(token=self.token)
        return api.create_commit(
            self.repo_id, operations, commit_message=title, repo_type=self.repo_type, parent_commit=self.commit
        ).oid


def push(
    repo_id: str, attempt: Callable[[Held], str], *, private: bool, token: str | None, repo_type: str = "dataset"
) -> str:
    """Make the repository where there is none, and try until the Hub takes the change.

    Args:
        repo_id: `USER/NAME`.
        attempt: One try from what the dataset holds then; returns the commit. It may be called again after it succeeded,
            if the answer was lost.
        private: Whether a new dataset is private. An existing public one is then refused.
        token: Of the Hub.
        repo_type: "dataset" or "model".
    """
    api = HfApi(token=token)
    # Without a wish, the Hub decides: an organisation's datasets may be private by default.
    patiently(lambda: api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True))
    # An old shard that is to be deleted may be gone by then.
    return patiently(lambda: attempt(_held(api, repo_id, private, token, repo_type)), EntryNotFoundError)


def _held(api: HfApi, repo_id: str, private: bool, token: str | None, repo_type: str) -> Held:
    info: Any = api.repo_info(repo_id, repo_type=repo_type)
    assert info.sha is not None  # only a list of repositories leaves it out
    if private and not info.private:
        raise ValueError(
            f"{repo_id} is public, but private was asked for. Make it private in its settings on the Hub, or leave "
            "private out."
        )
    return Held(repo_id, info.sha, frozenset(sibling.rfilename for sibling in info.siblings or []), token, repo_type)


def read_file(repo_id: str, name: str, revision: str, token: str | None, repo_type: str = "dataset") -> bytes:
    """A small file as it is; the downloads of the library would turn a busy Hub into a missing file."""
    url = hf_hub_url(repo_id, name, repo_type=repo_type, revision=revision)
    response = get_session().get(url, headers=build_hf_headers(token=token))
    hf_raise_for_status(response)
    return response.content


def check_not_taken(repo_id: str, held: Collection[str], manifest: str, data: str = SHARD) -> None:
    """Make sure that a dataset holds nothing, or what an earlier push of this kind left.

    Args:
        repo_id: `USER/NAME`, for the error.
        held: Its files.
        manifest: The JSON file of this kind.
        data: The pattern of the Parquet files of this kind, `SHARD` or `ROUND`.
    """
    others = sorted(name for name in held if not re.fullmatch(TEXTS, name))
    if manifest in held:
        others = [name for name in others if re.fullmatch(ROUND if data == SHARD else SHARD, name)]
    if others:
        missing = f"no {manifest} of an earlier push" if manifest not in held else "nothing of this kind"
        raise ValueError(
            f"{repo_id} holds something else ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}), and "
            f"{missing}. What loads by that name would change. Choose another name."
        )


# Parquet.


def write_shards(
    rows: Dataset,
    features: Features,
    folder: Path,
    name: Callable[[int, int], str] = "data/train-{:05d}-of-{:05d}.parquet".format,
    *,
    origin: Origin = Origin(),  # noqa: B008  # frozen
    **options: Any,
) -> dict[Path, Shard]:
    """Write rows as Parquet files with these Features, check them, and name them for the Hub.

    Args:
        rows: At least one.
        features: The columns as they are to be.
        folder: An empty one, for the files.
        name: In the repository, of file i of n.
        origin: Of gradients, for the metadata.
        options: Of the Parquet writer.
    """
    schema = features.arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), **origin.metadata()})
    paths: list[Path] = []
    for group in _by_size(tables(rows, schema)):
        paths.append(folder / f"{len(paths)}.parquet")
        with pq.ParquetWriter(paths[-1], schema, write_page_index=True, **options) as writer:
            for table in group:
                writer.write_table(table)
    _check_shards(paths, schema, rows)
    shards = {}
    for i, path in enumerate(paths):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        shards[path] = Shard(name(i, len(paths)), pq.read_metadata(path).num_rows, sha256)
    return shards


def tables(rows: Dataset, schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows, some at a time. A file that a row refers to becomes part of it: its path would mean nothing elsewhere."""
    from datasets.table import embed_table_storage, table_cast

    for table in rows.with_format("arrow").iter(ROW_GROUP):
        yield embed_table_storage(table_cast(table, schema)).replace_schema_metadata(schema.metadata)  # type: ignore[arg-type]


def _by_size(tables: Iterator[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """Groups of consecutive tables, each of SHARD_BYTES at most unless one table alone has more."""
    number = size = 0

    def shard_of(table: pa.Table) -> int:
        nonlocal number, size
        size += table.nbytes
        if size > max(SHARD_BYTES, table.nbytes):
            number, size = number + 1, table.nbytes
        return number

    for _, group in itertools.groupby(tables, key=shard_of):
        yield group


def _check_shards(paths: Sequence[Path], schema: pa.Schema, rows: Dataset) -> None:
    """Read back what was written: the number of rows, the Features and the feature_id, and the ids."""
    files = [pq.ParquetFile(path) for path in paths]
    written = sum(file.metadata.num_rows for file in files)
    if written != len(rows) or any(file.schema_arrow.metadata != schema.metadata for file in files):
        raise OSError(f"{written} of {len(rows)} rows were written, or with other Features. Nothing was pushed.")
    if "id" in schema.names and pa.types.is_string(schema.field("id").type):
        read = itertools.chain.from_iterable(
            batch.column("id").to_pylist() for file in files for batch in file.iter_batches(columns=["id"])
        )
        ids = (name for batch in rows.select_columns(["id"]).with_format(None).iter(ROW_GROUP) for name in batch["id"])  # type: ignore[call-overload]
        if any(one != other for one, other in zip(read, ids, strict=True)):
            raise OSError("the ids that were written are not those of the rows. Nothing was pushed.")
