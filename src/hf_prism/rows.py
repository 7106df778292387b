"""Rows in: from a Hub id, a file or a folder to a `datasets.Dataset`, and a stable id for every row (no torch).

Local files are read into memory as they are now, without a cache, so an edit is always seen. Hub data sets go
through `datasets.load_dataset` and saved data sets through `load_from_disk`; both are memory-mapped.
Row numbers in messages count from 0, as in ``dataset[17]``; line numbers of a file count from 1.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import replacing
from .origin import Origin, origin_of
from .samples import RowError, RowFormat


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class RowIds:
    """The ids of a data set, in row order.

    Attributes:
        ids: one id a row, all different.
        num_repeats: rows whose content an earlier row already had (0 with an id column).
        column: the user's id column, or None where ids come from the content.
    """

    ids: list[str]
    num_repeats: int
    column: str | None


def load_rows(
    data: str | Path | Dataset | Sequence[dict[str, Any]],
    *,
    split: str | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> Dataset:
    """Load a data set from wherever it is.

    Args:
        data: a Hub id (``user/name``, or ``user/name:config``), a .jsonl, .json, .parquet, .csv or .tsv file, a folder
            written by ``Dataset.save_to_disk``, a folder of Parquet files, a run directory (its ``chunks/``), or rows
            already in memory. All cells of a CSV file are text.
        split: needed where the data has several splits; by default the only one, else ``train``.
        max_samples: keep this many rows, in their order: those with the smallest hash of (seed, row number). The
            choice is the same everywhere, and the rows for 100 are among the rows for 1000.
        seed: of that choice.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: nothing there, nothing in it, an unknown split, a broken file; the message says which.

    Example:
        >>> load_rows([{"prompt": "1+1?", "completion": "2"}]).column_names
        ['prompt', 'completion']
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples is {max_samples}; it must be at least 1")
    dataset = _load(data, split, revision)
    if len(dataset) == 0:
        raise ValueError(f"{_name(data)} holds no rows")
    if max_samples is None or max_samples >= len(dataset):
        return dataset
    by_hash = sorted(
        range(len(dataset)), key=lambda i: hashlib.blake2b(f"{seed}:{i}".encode(), digest_size=8).digest()
    )
    return dataset.select(sorted(by_hash[:max_samples]))


def row_ids(dataset: Dataset, row_format: RowFormat | None = None) -> RowIds:
    """Give every row its id, and check every row on the way.

    The id is the user's column ``id`` (or the one mapped to it); else the blake2b hash of the row's content, to which
    the second, third, ... row of the same content adds ``-1``, ``-2``, ...

    Raises:
        RowError: an id that is null, not text or number, or used twice; any row that `RowFormat.sample` refuses.

    Example:
        >>> rows = load_rows([{"text": "a"}, {"text": "b"}, {"text": "a"}])
        >>> row_ids(rows).num_repeats
        1
    """
    row_format = row_format or RowFormat()
    column = row_format.id_column(dataset.column_names)
    ids = None if column is None else _user_ids(list(dataset.with_format(None)[column]), column)
    contents: Counter[str] = Counter()
    hashed = []
    for i, row in enumerate(dataset.with_format(None)):
        sample = row_format.sample(dict(row), describe(i, ids[i] if ids else None))  # type: ignore[arg-type]
        if ids is None:
            digest = hashlib.blake2b(sample.canonical.encode(), digest_size=16).hexdigest()
            hashed.append(f"{digest}-{contents[digest]}" if contents[digest] else digest)
            contents[digest] += 1
    if ids is not None:
        return RowIds(ids, 0, column)
    return RowIds(hashed, len(hashed) - len(contents), None)


def matching_rows(ids: Sequence[Any], dataset: Dataset, row_format: RowFormat | None = None) -> list[int]:
    """Where in a data set the rows with these ids stand: joins features to the rows they were made from.

    Args:
        ids: as in the column `id` of features.
        dataset: the rows; their ids are those of `row_ids`.
        row_format: how the featurizer read them.

    Returns:
        A row number for each id, in the order of `ids`.

    Raises:
        ValueError: ids that no row has: the data has changed since, or it is read in another way.
        RowError: as `row_ids`.

    Example:
        >>> rows = load_rows([{"id": "a", "text": "x"}, {"id": "b", "text": "y"}])
        >>> matching_rows(["b"], rows)
        [1]
    """
    named = row_ids(dataset, row_format)
    places = {name: i for i, name in enumerate(named.ids)}
    gone = [name for name in map(str, ids) if name not in places]
    if gone:
        how = f"their column {named.column!r}" if named.column else "their content, so that an edited row has another"
        raise ValueError(
            f"{len(gone):,} of {len(ids):,} ids are not among the {len(places):,} rows of the data, first {gone[0]!r}. The "
            f"data has changed since it was featurized, or is not the data that was. Its ids come from {how}; give the "
            "same data, columns and templates as then, or featurize again"
        )
    return [places[str(name)] for name in ids]


def describe(index: int, row_id: str | None = None) -> str:
    """How messages name a row: ``row 17 (id 'x')``."""
    return f"row {index}" if row_id is None else f"row {index} (id {row_id!r})"


def _user_ids(values: list[Any], column: str) -> list[str]:
    fix = "or identify rows by their content with --column id= (Python: column_mapping={'id': None})"
    first_row: dict[str, int] = {}
    for i, value in enumerate(values):
        if value is None or isinstance(value, bool) or not isinstance(value, (str, int)):
            raise RowError(
                f"row {i}: id column {column!r} holds {value!r}; ids are text or whole numbers. Fill it, {fix}"
            )
        if str(value) in first_row:
            raise RowError(
                f"rows {first_row[str(value)]} and {i} share the id {value!r} (column {column!r}); make ids unique, {fix}"
            )
        first_row[str(value)] = i
    return list(first_row)


def _load(data: Any, split: str | None, revision: str | None = None) -> Dataset:
    from datasets import Dataset, DatasetDict

    if revision is not None and (
        not isinstance(data, str) or Path(data).expanduser().exists() or _looks_like_path(data)
    ):
        raise ValueError(f"revision={revision!r} needs a Hub id, but {_name(data)} is none")
    if isinstance(data, DatasetDict):
        return _pick_split(data, split, "the DatasetDict")
    if isinstance(data, (Dataset, list, tuple)):
        _expect_no_split(split, f"the {type(data).__name__}")
        return data if isinstance(data, Dataset) else _from_rows(list(data), "the list", lambda i: f"row {i}")
    if not isinstance(data, (str, Path)):
        raise ValueError(
            f"cannot read rows from a {type(data).__name__}; give a path, a Hub id, a Dataset or a list of rows"
        )
    path = Path(data).expanduser()
    if path.is_dir():
        return _load_folder(path, split)
    if path.is_file():
        return _load_file(path, split)
    if isinstance(data, Path) or _looks_like_path(data):
        raise ValueError(f"{data} does not exist{_near_files(path)}")
    return _load_hub(data, split, revision)


def _load_file(path: Path, split: str | None) -> Dataset:
    _expect_no_split(split, str(path))
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; known are {', '.join(READERS)}")
    return reader(path)


def _load_folder(path: Path, split: str | None) -> Dataset:
    from datasets import DatasetDict, load_from_disk

    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        loaded = load_from_disk(str(path))
        if isinstance(loaded, DatasetDict):
            return _pick_split(loaded, split, str(path))
        _expect_no_split(split, str(path))
        return loaded
    if (path / "features.arrow").exists():  # a complete run directory
        return _load_file(path / "features.arrow", split)
    if files := sorted(path.glob("*.parquet")):
        _expect_no_split(split, str(path))
        return _read_parquet(*files)
    names = sorted(entry.name for entry in path.iterdir())[:8]
    raise ValueError(
        f"{path} is neither a saved data set nor a folder of Parquet files (it holds: {', '.join(names) or 'nothing'})"
    )


def _load_hub(data: str, split: str | None, revision: str | None) -> Dataset:
    from datasets import load_dataset

    name, _, config = data.partition(":")
    try:
        loaded = load_dataset(name, config or None, revision=revision)
    except Exception as error:  # every layer below has its own types; the reason is passed on, never swallowed
        hint = f". Name a configuration as {name}:CONFIG" if "config" in str(error).lower() else ""
        raise ValueError(
            f"{data!r} is no file or folder here{_near_files(Path(data))}, and it could not be loaded from the Hub: "
            f"{type(error).__name__}: {str(error).strip()[:500]}{hint}"
        ) from error
    return _pick_split(loaded, split, data)  # type: ignore[arg-type]


def _pick_split(splits: Mapping[Any, Any], split: str | None, name: str) -> Dataset:
    wanted = split or (next(iter(splits)) if len(splits) == 1 else "train")
    if wanted not in splits:
        problem = f"has no split {wanted!r}" if split else "has several splits and none is called train"
        raise ValueError(f"{name} {problem}; choose with --split (split=) one of: {', '.join(map(str, splits))}")
    return splits[wanted]


def _expect_no_split(split: str | None, name: str) -> None:
    if split not in (None, "train"):
        raise ValueError(f"{name} has no splits, so none is called {split!r}; leave the split out")


def _read_jsonl(path: Path) -> Dataset:
    rows, lines = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_parse(line, f"{path}, line {number}"))
                lines.append(number)
    return _from_rows(rows, str(path), lambda i: f"line {lines[i]}")


def _read_json(path: Path) -> Dataset:
    content = _parse(path.read_bytes(), str(path))
    if not isinstance(content, list):
        kind = type(content).__name__
        raise ValueError(
            f"{path} holds one JSON {kind}, not a list of objects; objects one a line belong in a .jsonl file"
        )
    return _from_rows(content, str(path), lambda i: f"item {i}")


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        shown = text.strip()[:60].decode(errors="replace")
        raise ValueError(f"{where} is not JSON: {error.msg} at column {error.colno}: {shown!r}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: {error}; convert the file") from error


def _from_rows(rows: list[Any], name: str, place: Callable[[int], str]) -> Dataset:
    """Columns from row dicts; unlike `Dataset.from_list`, of all rows and with the place of a value that does not fit."""
    import pyarrow as pa
    from datasets import Dataset

    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(
                f"{name}, {place(i)} is a JSON {type(row).__name__}; every row must be an object of columns"
            )
    columns = {}
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column) for row in rows]
        try:
            columns[column] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            raise ValueError(_mixed_types(values, column, name, place, error)) from error
    return Dataset(pa.table(columns))


def _mixed_types(values: list[Any], column: str, name: str, place: Callable[[int], str], error: Exception) -> str:
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        if value is not None:
            first.setdefault(type(value).__name__, i)
    seen = ", ".join(f"{kind} at {place(i)}" for kind, i in first.items())
    return f"{name}: the values of column {column!r} have no common type ({seen}): {error}. Make them alike or drop the column"


def _read_parquet(*paths: Path) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, Features, concatenate_datasets

    parts = []
    for path in paths:
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
        part = Dataset(table.cast(Features.from_arrow_schema(table.schema).arrow_schema))
        parts.append(Origin.from_metadata(table.schema.metadata).stamp(part))
        if parts[-1].column_names != parts[0].column_names:
            raise ValueError(
                f"{path} has the columns {parts[-1].column_names}, but {paths[0]} has {parts[0].column_names}"
            )
    return concatenate_datasets(parts)


def write_parquet(rows: Dataset, path: Path) -> None:
    """Write rows to a Parquet file, whole or not at all, with their Features, and their origin if they are gradients."""
    import pyarrow.parquet as pq

    table: Any = rows.with_format("arrow")[:]
    schema = rows.features.arrow_schema
    metadata = {**(schema.metadata or {}), **origin_of(rows).metadata()}
    with replacing(path) as file:
        pq.write_table(table.cast(schema).replace_schema_metadata(metadata), file)


def _read_csv(path: Path) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset
    from pyarrow import csv

    parse = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    try:
        with csv.open_csv(path, parse_options=parse) as reader:
            names = reader.schema.names
        # Typed columns would turn the answer 007 into 7 and the word "null" into nothing.
        text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        return Dataset(csv.read_csv(path, parse_options=parse, convert_options=text))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable CSV file: {error}") from error


def read_arrow(path: Path) -> Dataset:
    """An Arrow stream file, memory-mapped, with its origin if it has one; it may hold no rows."""
    import pyarrow as pa
    from datasets import Dataset

    try:
        with pa.memory_map(str(path)) as source:
            origin = Origin.from_metadata(pa.ipc.open_stream(source).schema.metadata)
        return origin.stamp(Dataset.from_file(str(path)))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable Arrow file: {error}") from error


READERS: dict[str, Callable[[Path], Dataset]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": read_arrow,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}


def _looks_like_path(data: str) -> bool:
    return data.startswith((".", "/", "~")) or data.count("/") > 1 or Path(data).suffix.lower() in READERS


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor does the folder {path.parent})" if _looks_like_path(str(path)) else ""
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _name(data: Any) -> str:
    return str(data) if isinstance(data, (str, Path)) else f"the {type(data).__name__}"
