"""Pairs of premise and hypothesis with a label: read from rows, checked, and turned into what an encoder reads.

Nothing is left out or changed in silence: every row is kept or skipped, and the preflight says which and why.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .encoder import THREE, TWO, encode_pairs, label_word
from .files import digest
from .rows import describe
from .samples import RowError, near


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

NAMES = ("premise", "hypothesis", "label", "id")
USUAL = {
    "premise": ("sentence1", "text1", "context", "premises"),
    "hypothesis": ("sentence2", "text2", "statement", "conclusion"),
    "label": ("gold_label", "labels", "answer", "gold"),
}
ENCODED_TOGETHER = 1000


@dataclass
class Pairs:
    """Rows that were read: whole pairs, one label each.

    Attributes:
        premises: One a row.
        hypotheses: One a row.
        labels: One a row, in words.
        where: How messages name each row.
        ids: The user's own, or else hashes of what stands in the rows.
        mapped: How many labels became not_entailment, by what they were.
    """

    premises: list[str]
    hypotheses: list[str]
    labels: list[str]
    where: list[str]
    ids: list[str]
    mapped: Counter[str] = field(default_factory=Counter)

    def digest(self) -> str:
        """Identifies what is learned from."""
        total = hashlib.sha256()
        for cells in zip(self.premises, self.hypotheses, self.labels, strict=True):
            total.update("\0".join((*cells, "")).encode())
        return total.hexdigest()[:16]


@dataclass
class Encoded:
    """Pairs in tokens, as the Trainer gets them.

    Attributes:
        dataset: Columns of the tokenizer and `labels`.
        kept: The row number of each.
        skipped: The row numbers of those left out, all of them too long.
        cut: The row numbers of those whose end was cut.
        lengths: The tokens of each kept one.
        detail: The message on each skipped one.
    """

    dataset: Dataset
    kept: list[int]
    skipped: list[int]
    cut: list[int]
    lengths: np.ndarray
    detail: list[str]

    def left_out(self, pairs: Pairs) -> list[dict[str, Any]]:
        """Every row that is not learned whole, in the form of `Supervision.left_out`."""
        skipped = [
            {"row": i, "id": pairs.ids[i], "reason": "too_long", "detail": detail}
            for i, detail in zip(self.skipped, self.detail, strict=True)
        ]
        return skipped + [{"id": pairs.ids[i], "reason": "truncated"} for i in self.cut]


def read_pairs(
    rows: Dataset, labels: Sequence[str] = THREE, column_mapping: Mapping[str, str | None] | None = None
) -> Pairs:
    """Read and check every row.

    Args:
        rows: See `train_classifier`.
        labels: The labels asked for.
        column_mapping: See `train_classifier`.

    Raises:
        ValueError: A column is missing, or all rows have the same label.
        RowError: A cell that is no text, or a label that is none.
    """
    columns = _columns(rows, column_mapping or {})
    rows = rows.with_format(None)
    names = getattr(rows.features[columns["label"]], "names", None)
    ids = list(rows[columns["id"]]) if "id" in columns else None
    where = [describe(i, str(ids[i]) if ids else None) for i in range(len(rows))]
    texts = {
        part: [_text(cell, part, columns[part], where[i]) for i, cell in enumerate(rows[columns[part]])]
        for part in ("premise", "hypothesis")
    }
    named = list(map(str, ids)) if ids else [digest(cells) for cells in zip(*texts.values(), strict=True)]
    pairs = Pairs(texts["premise"], texts["hypothesis"], [], where, named)
    for i, cell in enumerate(rows[columns["label"]]):
        word = _label(cell, names, columns["label"], where[i])
        if word not in labels and word in THREE and set(labels) == set(TWO):
            pairs.mapped[word] += 1
            word = "not_entailment"
        if word not in labels:
            raise RowError(
                f"{where[i]}: the label is {word!r}, which does not say neutral or contradiction; ask for two labels "
                f"({', '.join(TWO)}), or give data with three"
                if word in TWO
                else f"{where[i]}: the label {word!r} is none of {', '.join(labels)}{near(word, labels)}"
            )
        pairs.labels.append(word)
    if len(set(pairs.labels)) == 1:
        raise ValueError(
            f"all {len(pairs.labels):,} rows are labelled {pairs.labels[0]}: there is nothing to tell apart"
        )
    return pairs


def encode(
    pairs: Pairs, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], limit: int, on_long: str, vocabulary: int
) -> Encoded:
    """Tokenise every pair; what is too long meets its policy.

    Raises:
        RowError: A pair is longer than `limit` and `on_long` is "error", or has a token that the model does not know.
    """
    from datasets import Dataset

    columns: dict[str, list[Any]] = {}
    kept, long, lengths = [], {}, []
    for start in range(0, len(pairs.labels), ENCODED_TOGETHER):
        batch = slice(start, start + ENCODED_TOGETHER)
        encoding = encode_pairs(tokenizer, pairs.premises[batch], pairs.hypotheses[batch])
        for i, ids in enumerate(encoding["input_ids"], start):
            if max(ids) >= vocabulary:
                raise RowError(
                    f"{pairs.where[i]}: a token has the id {max(ids)}, but the model knows {vocabulary} tokens; tokenizer "
                    "and model differ"
                )
            cells: Mapping[str, Any] = {name: column[i - start] for name, column in encoding.items()}
            if len(ids) > limit:
                long[i] = len(ids)
                if on_long != "truncate":
                    continue
                cells = _cut(tokenizer, pairs.premises[i], pairs.hypotheses[i], limit)
            for name, cell in {**cells, "labels": labels.index(pairs.labels[i])}.items():
                columns.setdefault(name, []).append(cell)
            kept.append(i)
            lengths.append(len(cells["input_ids"]))
    if long and on_long == "error":
        first, length = next(iter(long.items()))
        raise RowError(
            f"{pairs.where[first]}: {length:,} tokens, over the limit of {limit:,}; so are {len(long):,} of "
            f"{len(pairs.labels):,} rows. Raise max_length, or say on_long: skip or truncate"
        )
    if not kept:
        raise ValueError(f"every pair is longer than {limit:,} tokens: raise max_length, or say on_long: truncate")
    skipped, cut = (list(long), []) if on_long == "skip" else ([], list(long))
    if len(kept) + len(skipped) != len(pairs.labels):
        raise AssertionError(f"{len(kept)} rows kept and {len(skipped)} skipped of {len(pairs.labels)}")
    detail = [f"{pairs.where[i]}: {long[i]:,} tokens, over the limit of {limit:,}" for i in skipped]
    return Encoded(Dataset.from_dict(columns), kept, skipped, cut, np.array(lengths), detail)


def preflight(
    encoded: Encoded, pairs: Pairs, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], limit: int
) -> str:
    """What the student will learn from, for a person to look at before it does."""
    counts = Counter(pairs.labels[i] for i in encoded.kept)
    total, lengths = len(encoded.kept), encoded.lengths
    quantiles = ", ".join(f"{share} % {np.percentile(lengths, share):,.0f}" for share in (50, 90, 99))
    lines = [
        f"rows: {total:,} kept, {_rows(encoded.skipped, pairs)} skipped and {_rows(encoded.cut, pairs)} cut, for more than "
        f"{limit:,} tokens",
        "labels: "
        + ", ".join(f"{i} = {word} {counts[word]:,} ({counts[word] / total:.1%})" for i, word in enumerate(labels)),
        f"tokens a pair: least {lengths.min():,}, {quantiles}, most {lengths.max():,}; {lengths.sum():,} in all",
        f"one pair as the student reads it: {tokenizer.decode(encoded.dataset[0]['input_ids'])} -> "
        f"{labels[encoded.dataset[0]['labels']]}",
    ]
    if pairs.mapped:
        mapped = ", ".join(f"{count:,} {word}" for word, count in sorted(pairs.mapped.items()))
        lines.insert(2, f"turned into not_entailment: {mapped}")
    lines += [f"no row is labelled {word}: the student will hardly ever say it" for word in labels if not counts[word]]
    return "\n".join(lines)


def _cut(tokenizer: PreTrainedTokenizerBase, premise: str, hypothesis: str, limit: int) -> Mapping[str, Any]:
    """A pair without the end of its longer part."""
    cells = tokenizer(premise, hypothesis, truncation="longest_first", max_length=limit)
    encode_pairs(tokenizer, [premise], [hypothesis])  # or the limit would be saved with the tokenizer
    return cells


def _rows(numbers: Sequence[int], pairs: Pairs) -> str:
    """How many, and which."""
    shown = ", ".join(pairs.where[i] for i in numbers[:5])
    return f"{len(numbers):,}" + (f" ({shown}{', ...' if len(numbers) > 5 else ''})" if numbers else "")


def _columns(rows: Dataset, mapping: Mapping[str, str | None]) -> dict[str, str]:
    """The column of each name."""
    held = rows.column_names
    for name in mapping:
        if name not in NAMES:
            raise ValueError(
                f"column_mapping has no name {name!r}; the names are {', '.join(NAMES)}{near(name, NAMES)}"
            )
    columns = {name: mapping.get(name) or name for name in NAMES}
    if "id" in mapping and not mapping["id"] or "id" not in mapping and "id" not in held:
        del columns["id"]
    missing = {name: column for name, column in columns.items() if column not in held}
    if missing:
        usual = {name: next((c for c in USUAL.get(name, ()) if c in held), None) for name in missing}
        fix = ", ".join(f"{name}: {column or '...'}" for name, column in usual.items())
        raise ValueError(
            f"the data has no column {', '.join(map(repr, missing.values()))}{near(next(iter(missing.values())), held)}; columns "
            f"found: {', '.join(held)}. Name them: {{{fix}}} (in a recipe the key columns, in Python column_mapping)"
        )
    return columns


def _text(cell: Any, name: str, column: str, where: str) -> str:
    label = f"{name!r}" if name == column else f"{name!r} (column {column!r})"
    if not isinstance(cell, str):
        kind = "null" if cell is None else f"{cell!r} of type {type(cell).__name__}"
        raise RowError(f"{where}: {label} is {kind}, not text; drop the row or fill the cell")
    if not cell.strip():
        raise RowError(f"{where}: {label} is empty; drop the row or fill the cell")
    return cell


def _label(cell: Any, names: Sequence[str] | None, column: str, where: str) -> str:
    """A label in words, however the data writes it."""
    if names is not None and isinstance(cell, int):
        if not 0 <= cell < len(names):
            raise RowError(
                f"{where}: {column!r} is {cell}, which stands for no label; drop such rows (nobody agreed on one)"
            )
        return label_word(names[cell])
    if isinstance(cell, (bool, int, float)):
        raise RowError(
            f"{where}: {column!r} is the number {cell!r}, and which label that is differs from dataset to dataset. Turn the "
            f"column into words ({', '.join(THREE)}), or into a ClassLabel with their names"
        )
    return label_word(_text(cell, "label", column, where))
