r"""Benchmarks as data: where the items lie, which columns they have, how they are asked, and what a right answer is.

A benchmark is a few lines of the table `BENCHMARKS`. Anything else is a file with the columns `prompt` and `answer`, or
`premise`, `hypothesis` and `label`, and is asked and judged like those.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .files import digest
from .rows import describe, load_rows
from .samples import near
from .tasks.nli import LABELS, TWO_LABELS
from .verification import final_answer, last_boxed


if TYPE_CHECKING:
    from datasets import Dataset

MATH_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""What the Qwen2.5-Math and R1 models are evaluated with."""

NLI_PROMPT = "Premise: {premise}\nHypothesis: {hypothesis}\nDoes the premise entail the hypothesis, contradict it, or is it neutral?"
"""How `NLITask` renders a pair."""

NUMBERED = {0: "entailment", 1: "neutral", 2: "contradiction", -1: None}
"""-1 marks pairs on which the annotators did not agree."""

HANS_LABELS = {0: "entailment", 1: "not_entailment"}
FOLIO_LABELS = {"True": "entailment", "False": "contradiction", "Uncertain": "neutral", "Unknown": "neutral"}
WORDS = {**{label: label for label in LABELS}, "-": None}
FIELDS = {"math": ("problem", "answer"), "nli": ("premise", "hypothesis", "label")}


@dataclass(frozen=True)
class Benchmark:
    """Where the items of a benchmark are, and how they are asked and judged.

    Attributes:
        name: What the command line calls it.
        kind: `"math"`: the last box is compared with the answer by math-verify. `"nli"`: the label is compared.
        source: Hub id, with `:CONFIG` where there are several, or a file.
        split: Of the source.
        columns: By field (`problem` and `answer`, or `premise`, `hypothesis` and `label`), the column it is in.
        labels: By value of the column, the label; rows with another value are an error, with None they are left out.
        or_number: Without a box, the last number counts as the answer.
        answer_in: How the answer stands in its column: `"plain"`, or after `"####"`; a copy in a file may have either.
        tolerance_in: Column with how far from a numerical answer still counts.
        revision: Branch, tag or commit of a Hub id.
        prompt: Format string over the fields.
    """

    name: str
    kind: Literal["math", "nli"]
    source: str
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[Any, str | None] | None = None
    or_number: bool = False
    answer_in: Literal["plain", "####"] = "plain"
    tolerance_in: str = "tolerance"
    revision: str | None = None
    prompt: str = ""

    def __post_init__(self) -> None:
        template = self.prompt or (MATH_PROMPT if self.kind == "math" else NLI_PROMPT)
        object.__setattr__(self, "prompt", template)
        fields = FIELDS[self.kind][:-1]
        if not re.fullmatch(r"[^/\\\0]+", self.name) or self.name in (".", ".."):
            raise ValueError(f"{self.name!r} cannot be the name of a benchmark: a file is called after it.")
        if not isinstance(template, str):
            raise ValueError(f"the prompt must be a text with {{{fields[0]}}}, got {template!r}.")
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(
                f"the prompt {template!r} is no format string: {error}; write {{{{ for a brace"
            ) from error
        asked = [name for _, name, _, _ in parts if name is not None]
        if any(spec or conversion for _, _, spec, conversion in parts):
            raise ValueError(
                f"the prompt {template!r} formats a field; write {{{fields[0]}}} alone, so that nothing is cut."
            )
        if wrong := [name for name in asked if name not in fields]:
            raise ValueError(
                f"the prompt {template!r} asks for {wrong[0]!r}; an item of {self.name} has {', '.join(fields)}."
            )
        if not asked:
            raise ValueError(f"the prompt {template!r} has no {{{fields[0]}}}: every item would be asked alike.")

    @property
    def public_source(self) -> str:
        """The Hub id, or the name of the file: its path would mean nothing elsewhere."""
        return Path(self.source).name if _file(self.source) else self.source


def _math(name: str, source: str, split: str = "test", **more: Any) -> Benchmark:
    columns = {"problem": more.pop("problem", "problem"), "answer": more.pop("answer", "answer")}
    return Benchmark(name, "math", source, split, columns, **more)


def _nli(name: str, source: str, split: str = "test", **more: Any) -> Benchmark:
    names = ("premise", "hypothesis", "label")
    return Benchmark(name, "nli", source, split, {each: more.pop(each, each) for each in names}, **more)


_TABLE: tuple[Benchmark, ...] = (
    _math("math500", "HuggingFaceH4/MATH-500"),
    _math("aime24", "HuggingFaceH4/aime_2024", "train"),
    _math("aime25", "math-ai/aime25"),
    _math("amc23", "math-ai/amc23", problem="question"),
    _math("math2", "veds12/math-squared", "train", problem="question"),
    _math(
        "olympiadbench",
        "Hothan/OlympiadBench:OE_TO_maths_en_COMP",
        "train",
        problem="question",
        answer="final_answer",
        tolerance_in="error",
    ),
    _math("gsm8k", "openai/gsm8k:main", problem="question", answer_in="####", or_number=True),
    _math("gsm8k_platinum", "madrylab/gsm8k-platinum:main", problem="question", answer_in="####", or_number=True),
    _nli("hans", "jhu-cogsci/hans", "validation", labels=HANS_LABELS, revision="refs/convert/parquet"),
    _nli("anli_r1", "facebook/anli", "test_r1", labels=NUMBERED),
    _nli("anli_r2", "facebook/anli", "test_r2", labels=NUMBERED),
    _nli("anli_r3", "facebook/anli", "test_r3", labels=NUMBERED),
    _nli("wanli", "alisawuffles/WANLI", label="gold"),
    _nli("snli", "stanfordnlp/snli", labels=NUMBERED),
    _nli(
        "snli_hard", "au123/snli-hard", premise="sentence1", hypothesis="sentence2", label="gold_label", labels=WORDS
    ),
    _nli("mnli", "nyu-mll/glue:mnli", "validation_matched", labels=NUMBERED),
    _nli("mnli_mismatched", "nyu-mll/glue:mnli", "validation_mismatched", labels=NUMBERED),
    _nli("folio", "tasksource/folio", "validation", premise="premises", hypothesis="conclusion", labels=FOLIO_LABELS),
    _nli("conjnli", "pietrolesci/conj_nli", "dev", labels=NUMBERED),
    _nli("control", "tasksource/ConTRoL-nli", labels=WORDS),
)
BENCHMARKS: dict[str, Benchmark] = {each.name: each for each in _TABLE}


@dataclass(frozen=True)
class Item:
    """A problem or a pair, and what is right.

    Attributes:
        id: Unique in its benchmark.
        fields: `problem`, or `premise` and `hypothesis`.
        gold: The right answer or label.
        tolerance: For numbers, how far from it still counts.
    """

    id: str
    fields: Mapping[str, str]
    gold: str
    tolerance: float | None = None


@dataclass(frozen=True)
class Items:
    """A benchmark that was read.

    Attributes:
        benchmark: With the commit that was read as its revision, for a Hub id.
        items: In the order of the source.
        without_label: Rows that nobody gave a label, left out.
        digest: Of ids, fields and gold: two results compare if it is the same.
    """

    benchmark: Benchmark
    items: tuple[Item, ...]
    without_label: int = 0

    @property
    def digest(self) -> str:
        return digest([[item.id, dict(item.fields), item.gold, item.tolerance] for item in self.items])[:16]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of an NLI benchmark: two, if one of its items is `not_entailment`."""
        two = any(item.gold == TWO_LABELS[1] for item in self.items)
        return TWO_LABELS if two else LABELS

    def prompt(self, item: Item) -> str:
        """How an item is asked."""
        return self.benchmark.prompt.format_map(item.fields)


def find(spec: str, *, prompt: str | None = None) -> Benchmark:
    """A benchmark of the table, or one made of a file.

    Args:
        spec: `NAME`, `NAME@REVISION`, `NAME=FILE` for a copy of it with columns named like its fields, or `FILE`.
        prompt: A format string in place of the benchmark's own.

    Raises:
        ValueError: Nothing of the kind; the message lists the table.

    Example:
        >>> find("gsm8k").source, find("aime24@main").revision
        ('openai/gsm8k:main', 'main')
    """
    name, equals, file = spec.partition("=")
    name, at, revision = name.partition("@")
    if name in BENCHMARKS:
        found = BENCHMARKS[name]
        if equals:
            columns = {each: each for each in FIELDS[found.kind]}
            found = replace(found, source=file, split=None, columns=columns, labels=None, tolerance_in="tolerance")
        elif at:
            found = replace(found, revision=revision)
    elif path := _file(spec):
        found = Benchmark(path.stem, "nli" if "premise" in load_rows(path).column_names else "math", str(path))
    else:
        raise ValueError(
            f"there is no benchmark {spec!r}{near(name, BENCHMARKS)}; there are {', '.join(BENCHMARKS)}. Any JSONL, Parquet "
            "or CSV file with prompt and answer, or premise, hypothesis and label, is one too."
        )
    return replace(found, prompt=prompt) if prompt else found


def read(benchmark: Benchmark, *, max_items: int | None = None, seed: int = 0) -> Items:
    """Read the items of a benchmark.

    Args:
        benchmark: Of the table, or of a file.
        max_items: Take a random subset of as many.
        seed: Of that subset.

    Raises:
        ValueError: The source cannot be read, a column is missing, a cell without text, an unknown label, an id twice.

    Example:
        >>> read(find("data/problems.jsonl")).items[0].gold  # doctest: +SKIP
        '42'
    """
    dataset, commit = _load(benchmark)
    columns = _columns(benchmark, dataset)
    chosen = dataset if max_items is None else load_rows(dataset, max_samples=max_items, seed=seed)
    items: dict[str, Item] = {}
    for i, row in enumerate(chosen.with_format(None)):
        item = _item(benchmark, dict(row), columns, i)  # type: ignore[arg-type]
        if item is None:
            continue
        if item.id in items:
            raise ValueError(
                f"{benchmark.source}: the id {item.id!r} is there twice; make ids unique, or drop the column."
            )
        items[item.id] = item
    if not items:
        raise ValueError(f"{benchmark.source} has no items.")
    golds = {item.gold for item in items.values()}
    if benchmark.kind == "nli" and TWO_LABELS[1] in golds and not golds <= set(TWO_LABELS):
        raise ValueError(
            f"{benchmark.source} has items of two labels and of three ({', '.join(sorted(golds))}): nobody can get all right. "
            "Turn neutral and contradiction into not_entailment, or make two files."
        )
    return Items(replace(benchmark, revision=commit), tuple(items.values()), len(chosen) - len(items))


# ---- reading ---------------------------------------------------------------------------------------------------------


def _file(name: str) -> Path | None:
    """The file of this name, if there is one."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # too long for a name, or ~ of nobody
        return None


def _load(benchmark: Benchmark) -> tuple[Dataset, str | None]:
    """The rows, and the commit that they are of."""
    path = Path(benchmark.source).expanduser()
    if path.exists() or path.suffix:
        return load_rows(str(path)), None
    from datasets import load_dataset
    from huggingface_hub import HfApi

    name, _, config = benchmark.source.partition(":")
    try:
        commit = benchmark.revision
        if not re.fullmatch(r"[0-9a-f]{40}", commit or ""):
            commit = HfApi().dataset_info(name, revision=commit).sha
        rows = load_dataset(name, config or None, split=benchmark.split, revision=commit)
    except Exception as error:  # the layers below raise many types; the reason is passed on
        raise ValueError(
            f"the benchmark {benchmark.name} could not be loaded from the Hub ({benchmark.source}, split {benchmark.split}, "
            f"revision {benchmark.revision or 'main'}): {type(error).__name__}: {str(error).strip()[:400]}. To read a copy: "
            f"{benchmark.name}=FILE, with the columns {', '.join(FIELDS[benchmark.kind])}."
        ) from error
    return rows, commit  # type: ignore[return-value]


def _columns(benchmark: Benchmark, dataset: Dataset) -> dict[str, str]:
    """By field, the column that holds it; a file may call the problem `prompt`, as training rows do."""
    found = {}
    for name in FIELDS[benchmark.kind]:
        column = benchmark.columns.get(name, name)
        if name == "problem" and column not in dataset.column_names and "prompt" in dataset.column_names:
            column = "prompt"
        if column not in dataset.column_names:
            raise ValueError(
                f"the benchmark {benchmark.name} ({benchmark.source}) has no column {column!r}"
                f"{near(column, dataset.column_names)}; columns found: {', '.join(dataset.column_names)}. Rename it, or read a "
                f"copy with the columns {', '.join(FIELDS[benchmark.kind])}: {benchmark.name}=FILE."
            )
        found[name] = column
    return found


def _item(benchmark: Benchmark, row: dict[str, Any], columns: Mapping[str, str], i: int) -> Item | None:
    name = str(row["id"]) if row.get("id") is not None else str(i)
    where = f"{benchmark.source}, {describe(i, name)}"
    *fields, target = FIELDS[benchmark.kind]
    texts = {each: _text(row[columns[each]], columns[each], where) for each in fields}
    if benchmark.kind == "nli":
        label = _label(benchmark, row[columns[target]], columns[target], where)
        return None if label is None else Item(name, texts, label)
    gold = _gold(benchmark, row[columns[target]], columns[target], where)
    unit = str(row.get("unit") or "").strip(" $")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9/^ ]*", unit):  # of OlympiadBench: 45 seconds are no 45 minutes
        gold = rf"{gold} \text{{ {unit} }}"
    return Item(name, texts, gold, _tolerance(row.get(benchmark.tolerance_in), benchmark.tolerance_in, where))


def _text(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {column} is {value!r}, not a text; fill it, or drop the row.")
    return value


def _gold(benchmark: Benchmark, value: Any, column: str, where: str) -> str:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = ", ".join(_without_dollars(each) for each in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {column} is {value}, which answers nothing; fill it, or drop the row.")
        value = str(int(value)) if value == int(value) else repr(value)
    text = _text(value, column, where)
    if benchmark.answer_in == "####":
        if "####" in text and (found := final_answer(text, or_number=True)) is not None:
            return found
        if _file(benchmark.source) is None or "####" in text:
            raise ValueError(f"{where}: {column} has no number after ####: {text[-80:]!r}.")
    return last_boxed(text) or _without_dollars(text)


def _without_dollars(text: str) -> str:
    r"""`$1$, $2$` and `1$,$2` as `1, 2`; a sign of money, `\$`, stays."""
    return re.sub(r"(?<!\\)\$", "", text).strip()


def _tolerance(value: Any, column: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < math.inf:
        raise ValueError(
            f"{where}: {column} is {value!r}; a tolerance is one number at or above 0. Mend it, or drop the row."
        )
    return found


def _label(benchmark: Benchmark, value: Any, column: str, where: str) -> str | None:
    if benchmark.labels is not None:
        if value not in benchmark.labels:
            raise ValueError(
                f"{where}: {column} is {value!r}; the labels are {', '.join(map(repr, benchmark.labels))}."
            )
        return benchmark.labels[value]
    text = str(value).strip().lower()
    text = {"not entailment": TWO_LABELS[1], "non-entailment": TWO_LABELS[1]}.get(text, text)
    if text not in (*LABELS, TWO_LABELS[1]):
        raise ValueError(
            f"{where}: {column} is {value!r}; labels are {', '.join(LABELS)}, or entailment and not_entailment, in words."
        )
    return text


def names_of(specs: Sequence[Benchmark]) -> list[str]:
    """The names of benchmarks, all different.

    Raises:
        ValueError: One is there twice.
    """
    names = [each.name for each in specs]
    if len(set(names)) < len(names):
        raise ValueError(f"the benchmark {max(names, key=names.count)!r} is named twice; results go by name.")
    return names
