"""What a DATA argument of the command stands for: rows, and their gradients, computed if need be."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import column_mapping, refuse, with_newlines
from .origin import Origin, origin_of
from .rows import describe


if TYPE_CHECKING:
    from datasets import Dataset

    from .featurizer import GradientFeaturizer
    from .samples import RowFormat


@dataclass(frozen=True)
class Gradients:
    """Features, and the rows they were made from where these are known.

    Attributes:
        rows: One row for each of the features, in their order.
        directory: Where results go; None where nobody has said it.
        lines: What to tell about them.
    """

    name: str
    features: Dataset
    rows: Dataset | None
    row_format: RowFormat
    directory: Path | None
    proxy: str
    lines: Sequence[str]

    @property
    def ids(self) -> Any:
        return self.features["id"] if "id" in self.features.column_names else None

    @property
    def feature_id(self) -> str | None:
        return origin_of(self.features).feature_id

    def needs_directory(self, options: argparse.Namespace) -> Path:
        if self.directory is None:
            raise ValueError(
                f"{options.data} has no run directory to put the result in: name a place by --output DIR."
            )
        return self.directory

    def column(self, name: str | None, flag: str) -> list[Any] | None:
        """The values of a column of the rows, or of the features, such as `loss`."""
        if name in self.features.column_names and (self.rows is None or name not in self.rows.column_names):
            return column_of(self.features, name, flag)
        if name is not None and self.rows is None:
            raise ValueError(
                f"{flag} {name} is a column of the rows, and {self.name} holds gradients only: give the rows that they were "
                "made from by --source DATA."
            )
        return column_of(self.rows, name, flag)

    def texts(self) -> list[tuple[str, str]] | None:
        """(prompt, completion) of each row, or None where there are none."""
        if self.rows is None:
            return None
        try:
            self.row_format.layout(self.rows.column_names)
        except ValueError:
            if self.row_format != type(self.row_format)():
                raise  # a column or template was named
            return None  # gradients that somebody else made, beside columns of their own
        rows = [dict(row) for row in self.rows.with_format(None)]  # type: ignore[arg-type]
        # A row that was skipped has no gradient, and perhaps no text either.
        skipped = [row.get("gradient", True) is None for row in rows]
        return [
            ("", "") if skip else self.row_format.sample(row, describe(i)).texts
            for i, (row, skip) in enumerate(zip(rows, skipped, strict=True))
        ]


def gradients_of(
    options: argparse.Namespace,
    data: str,
    output: str | None,
    *,
    source: str | None = None,
    check: Callable[[Dataset], object] = lambda rows: None,
    alone: bool = True,
) -> Gradients | None:
    """The gradients of DATA, computed if it holds rows. None for all but the first of the processes of a launch.

    Args:
        options: Of the command.
        data: As typed.
        output: Run directory of what is computed; the place of results where nothing is.
        source: The rows of gradients that come without them.
        check: Called with the rows before anything is computed; raises where they do not do.
        alone: Whether the options are for this DATA only; else those that gradients have no use for are for others.
    """
    from . import hub, runner

    if runner.is_run_directory(data):
        why = "is a run directory, whose rows are featurized already"
        return _ready(options, data, output or data, source, runner.load_features, why if alone else None)
    if hub.holds_features(data):
        why = "holds gradients on the Hub"
        return _ready(options, data, output, source, hub.load_features, why if alone else None)
    if source is not None:
        raise ValueError(f"--source is for gradients; {data} holds the rows themselves. Leave it out.")
    dataset = dataset_of(options, data)
    if "gradient" in dataset.column_names:
        return _with_column(options, data, output, dataset, alone)
    check(dataset)
    _keep_apart(data, output)
    featurizer = featurizer_of(options)
    done = runner.run(dataset, featurizer, output)
    if done.rank:
        return None
    places = {row_id: place for place, row_id in enumerate(done.survey.ids)}
    rows = dataset.select([places[row_id] for row_id in done.features["id"]])
    lines = survey_lines(done, options.model)
    row_format = featurizer.proxy.row_format
    return Gradients(Path(data).stem, done.features, rows, row_format, done.directory, options.model, lines)


def is_ready(data: str) -> bool:
    """Whether DATA holds gradients, so that no proxy is run."""
    from . import hub, runner

    return runner.is_run_directory(data) or hub.holds_features(data)


def _ready(
    options: argparse.Namespace,
    data: str,
    output: str | None,
    source: str | None,
    load: Callable[..., Any],
    why: str | None,
) -> Gradients | None:
    """Gradients that come without their rows."""
    from . import ranks
    from .rows import matching_rows

    if why:
        refuse(options, data, why, rows=source is None, samples=True)
    if not ranks.is_first():
        return None
    features, row_format, rows, column = load(data), row_format_of(options), None, None
    if source is not None:
        rows = dataset_of(options, source)
        column = row_format.id_column(rows.column_names)
        rows = rows.select(matching_rows(features["id"], rows, row_format))
    origin = origin_of(features)
    lines = [f"  gradients                   of feature_id {origin.feature_id or 'unknown'}"]
    if column:
        lines.append(
            f"  rows                        found by the column {column!r}; that their texts are the same is not checked"
        )
    directory = _made(output)
    return Gradients(Path(data).name, features, rows, row_format, directory, _proxy(origin), lines)


def _with_column(
    options: argparse.Namespace, data: str, output: str | None, dataset: Dataset, alone: bool
) -> Gradients | None:
    """Rows that bring their gradients, from an earlier `map` or from elsewhere."""
    from . import ranks

    if alone:
        refuse(options, data, "has a column `gradient`, so that no proxy is run", rows=False)
    if not ranks.is_first():
        return None
    origin = origin_of(dataset)
    told = f"of feature_id {origin.feature_id}" if origin.feature_id else "whose feature_id is unknown"
    lines = [f"  rows read                   the data's own gradient column, {told}; no proxy was run"]
    directory = _made(output)
    return Gradients(Path(data).stem, dataset, dataset, row_format_of(options), directory, _proxy(origin), lines)


def _made(output: str | None) -> Path | None:
    if output is None:
        return None
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--output {output}: a file is in the way ({error.filename}). Name a folder.") from error
    return Path(output)


def _keep_apart(data: str, output: str | None) -> None:
    """A run directory in a folder of data would be read as gradients the next time."""
    here = Path(data).resolve()
    if output is not None and here.is_dir() and here in (Path(output).resolve(), *Path(output).resolve().parents):
        raise ValueError(f"--output {output} lies in the data {data}, which it would change. Name another folder.")


def _proxy(origin: Origin) -> str:
    return str(origin.identity.get("proxy.model", ""))


def column_of(rows: Dataset | None, name: str | None, flag: str) -> list[Any] | None:
    """The values of a column that an option names, None where it names none."""
    if name is None or rows is None:
        return None
    if name not in rows.column_names:
        found = ", ".join(rows.column_names)
        raise ValueError(f"{flag} names a column {name!r} that the rows do not have; columns found: {found}.")
    return list(rows.with_format(None)[name])


def row_format_of(options: argparse.Namespace) -> RowFormat:
    """How the options say that rows are read."""
    from .samples import RowFormat

    return RowFormat(
        column_mapping(options.column),
        with_newlines(options.prompt_template),
        with_newlines(options.completion_template),
    )


def featurizer_of(options: argparse.Namespace) -> GradientFeaturizer:
    """The featurizer that the options ask for."""
    from .featurizer import GradientFeaturizer

    quiet_libraries()
    return GradientFeaturizer(
        options.model,
        revision=options.revision,
        dim=options.dim,
        seed=options.seed,
        dtype=options.dtype,
        max_length=options.max_length,
        column_mapping=column_mapping(options.column),
        prompt_template=with_newlines(options.prompt_template),
        completion_template=with_newlines(options.completion_template),
        chat_template=False if options.no_chat_template else None,
        on_long=options.on_long,
        on_empty=options.on_empty,
        parameters=options.parameters,
        device=options.device,
        assistant_turns=options.assistant_turns,
        trust_remote_code=options.trust_remote_code,
    )


def quiet_libraries() -> None:
    """Keep the progress bars of libraries out of ours."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def dataset_of(options: argparse.Namespace, data: str) -> Dataset:
    """The rows of DATA."""
    from .rows import load_rows

    quiet_libraries()
    return load_rows(data, split=options.split, max_samples=options.max_samples, seed=options.seed)


def survey_lines(done: Any, model: str) -> list[str]:
    """What was found in the rows of a run, for people."""
    found = done.survey
    parts = [
        f"{len(found.skipped):,} skipped" if found.skipped else "",
        f"{len(found.truncated):,} truncated" if found.truncated else "",
        f"{found.num_repeats:,} repeats" if found.num_repeats else "",
    ]
    told = ", ".join(part for part in parts if part) or "none skipped, truncated or repeated"
    return [
        f"  rows read                   {len(found.ids):,} ({told})",
        f"  proxy                       {model}, feature_id {done.feature_id}",
    ]
