"""From rows to what a student learns: every row tokenised and masked, none dropped in silence, the mask shown and checked.

The tokens and the mask are those of the proxy (`ProxyModel.encode_rows`), so that a student learns exactly what the
gradients described. The check decodes what is learned and compares it with the row's own words: it must be the
completion and the end of the turn, and that end must hold a token at which generation can stop.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .proxy import EncodedRow, ProxyModel, Skipped
from .rows import describe, row_ids
from .samples import Sample


if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 256  # rows for one call of the tokenizer
CHECKED = 32  # rows of the sample that is decoded, beside the first and the longest
SHOWN = 600  # characters of one part of the row that is printed


@dataclass(frozen=True)
class LeftOut:
    """A row that a policy left out: its number in the data, its id, ``"too_long"`` or ``"empty"``, and the message."""

    row: int
    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Supervision:
    """What a student learns.

    Attributes:
        dataset: The kept rows, in their order, with the columns ``input_ids``, ``completion_mask`` (0 or 1, as long),
            ``row`` (their number in the data) and ``id``.
        num_rows: How many rows there were: the kept ones and those of `skipped`.
        skipped: The rows that a policy left out.
        truncated: The ids of kept rows whose end was cut off.
        lengths: (kept,) tokens of each row.
        learned: (kept,) those of them that carry loss.
        end_id: The special token that ends a learned turn; None where every row is cut before it.
        has_ids: Whether ids are the user's own.
    """

    dataset: Dataset
    num_rows: int
    skipped: tuple[LeftOut, ...]
    truncated: tuple[str, ...]
    lengths: np.ndarray
    learned: np.ndarray
    end_id: int | None
    has_ids: bool

    def name(self, position: int) -> str:
        """How messages name the row at this position of `dataset`."""
        row = self.dataset[position]
        return describe(row["row"], row["id"] if self.has_ids else None)

    def left_out(self) -> list[dict[str, Any]]:
        """Every row that is not learned whole: what was skipped and why, and what was cut."""
        return [vars(left) for left in self.skipped] + [{"id": name, "reason": "truncated"} for name in self.truncated]


def supervise(rows: Dataset, proxy: ProxyModel) -> Supervision:
    """Tokenise and mask every row, and check a sample of them against the rows' own words.

    Args:
        rows: In any layout that `proxy.row_format` reads.
        proxy: Its tokenizer, template, length limit and policies are used, never its weights.

    Raises:
        RowError: A row that is wrong, or that a policy refuses.
        ValueError: No row is left, no layout fits, or the mask is not that of the completion and its end.

    Example:
        >>> from hf_prism.rows import load_rows
        >>> learned = supervise(load_rows([{"prompt": "1+1?", "completion": "2"}]), ProxyModel("embedded"))
        >>> learned.dataset[0]["completion_mask"][-3:]
        [1, 1, 1]
    """
    ids = row_ids(rows, proxy.row_format)
    names = [describe(i, ids.ids[i] if ids.column else None) for i in range(len(rows))]
    kept: list[int] = []
    learned: list[int] = []
    skipped: list[LeftOut] = []
    truncated: list[int] = []
    tables = []
    for start in range(0, len(rows), BATCH):
        encoded: list[tuple[int, EncodedRow]] = []
        part = [dict(row) for row in _plain(rows, range(start, min(start + BATCH, len(rows))))]
        for i, result in enumerate(proxy.encode_rows(part, names[start : start + BATCH]), start):
            if isinstance(result, Skipped):
                skipped.append(LeftOut(i, ids.ids[i], result.reason, result.detail))
            else:
                encoded.append((i, result))
                if result.truncated:
                    truncated.append(i)
        kept += [i for i, _ in encoded]
        learned += [row.num_tokens for _, row in encoded]
        tables.append(_table(encoded, ids.ids))
    if len(kept) + len(skipped) != len(rows):
        raise RuntimeError(f"{len(rows)} rows came in, {len(kept)} were kept and {len(skipped)} skipped")
    if not kept:
        raise ValueError(f"none of the {len(rows):,} rows is left to learn from; the first: {skipped[0].detail}")
    dataset = _dataset(tables)
    lengths = _lengths(dataset, "input_ids")
    cut = set(truncated)
    end_id = None
    for position in _sample(lengths):
        i = kept[position]
        row = dict(_plain(rows, [i])[0])
        found = check_row(row, dataset[position], proxy, names[i], truncated=i in cut)
        end_id = found if end_id is None else end_id
    return Supervision(
        dataset,
        len(rows),
        tuple(skipped),
        tuple(ids.ids[i] for i in truncated),
        lengths,
        np.array(learned),
        end_id,
        ids.column is not None,
    )


def check_row(
    row: Mapping[str, Any], tokens: Mapping[str, Sequence[int]], proxy: ProxyModel, where: str, *, truncated: bool
) -> int | None:
    """Check that the tokens that are learned decode to the completion and the end of its turn.

    Args:
        row: As it stands in the data.
        tokens: Its ``input_ids`` and ``completion_mask``.
        proxy: That read it.
        where: How messages name the row.
        truncated: Whether its end was cut off; then the end cannot be checked.

    Returns:
        The special token that ends the turn; None for a truncated row.

    Raises:
        ValueError: They decode to something else, or no token of the end can stop generation.
    """
    if truncated:
        return None
    sample = proxy.row_format.sample(row, where)
    rendering = proxy.renderer.render(sample, where)
    start, stop = rendering.turns[-1].start, rendering.last_content_end
    end = rendering.text[stop:]
    ids, spans = tokens["input_ids"], _spans(tokens["completion_mask"])
    learned = [_squeezed(_decode(proxy, ids[a:b])) for a, b in spans]
    before, contents = _words(sample, proxy.assistant_turns)
    # What is learned against what was rendered: all of the turn. The first token may straddle its beginning, and the
    # token at position 0 is learned by nobody.
    turn = _squeezed(rendering.text[start:])
    first = _squeezed(_decode(proxy, ids[spans[-1][0] : spans[-1][0] + 1]))
    zeroth = _squeezed(_decode(proxy, ids[:1])) if spans[-1][0] == 1 and start == 0 else ""
    extra = len(zeroth + learned[-1]) - len(turn)
    is_turn = (zeroth + learned[-1]).endswith(turn) and 0 <= extra <= max(0, len(first) - 1)
    # What was rendered against the row's own words: the completion is in the turn, the prompt before it. A completion may
    # begin in the generation prompt, where that opens its think block.
    body, prompt = _squeezed(rendering.text[start:stop]), _squeezed(rendering.text[:start])
    wanted = _squeezed(contents[-1])
    is_opened = bool(body) and wanted.endswith(body) and prompt.endswith(wanted.removesuffix(body))
    is_completion = (body.endswith(wanted) or is_opened) and _squeezed(before) in prompt
    inner = list(zip(contents[:-1], learned[:-1], strict=False))
    if not (is_turn and is_completion and all(_squeezed(words) in span for words, span in inner)):
        shown = " ... ".join(_decode(proxy, ids[a:b]) for a, b in spans)
        raise ValueError(
            f"{where}: the learned tokens decode to {_shown(shown)}, not to the completion {_shown(contents[-1])} and the end "
            f"of its turn {end!r}; the template or the tokenizer changes the text"
        )
    specials = [token for token in _ids(proxy, end) if token in _special_ids(proxy)]
    if not specials or specials[0] not in ids[slice(*spans[-1])]:
        raise ValueError(
            f"{where}: the completion ends with {end!r}, which holds no special token that is learned: the student would "
            "never stop. End assistant turns with one in the chat template, such as {{ eos_token }}, or pass "
            "chat_template=False, which appends it"
        )
    return specials[0]


def preflight(supervision: Supervision, proxy: ProxyModel) -> str:
    """A masked row in full, how long the rows are, and what becomes of each: text for the user."""
    quantiles = np.percentile(supervision.lengths, [0, 50, 90, 99, 100], method="inverted_cdf").astype(int)
    shortest, median, most, nearly, longest = (f"{length:,}" for length in quantiles)
    total, learned = int(supervision.lengths.sum()), int(supervision.learned.sum())
    lines = [
        f"One row as the student reads it ({supervision.name(0)}); what stands in [[...]] is learned:",
        *(f"  | {line}" for line in show(supervision.dataset[0], proxy).split("\n")),
        f"Rows: {supervision.num_rows:,}, of which {len(supervision.dataset):,} are learned, {len(supervision.truncated):,} of "
        f"them cut at {proxy.max_length:,} tokens{_first(supervision.truncated)}",
    ]
    for reason, count in sorted(Counter(left.reason for left in supervision.skipped).items()):
        named = [left.id for left in supervision.skipped if left.reason == reason]
        lines.append(f"Skipped as {reason.replace('_', ' ')}: {count:,}{_first(named)}")
    lines.append(
        f"Tokens a row: min {shortest}, median {median}, 90 % {most}, 99 % {nearly}, max {longest}; {total:,} in all, "
        f"{learned:,} learned ({learned / total:.0%})"
    )
    return "\n".join(lines)


def show(tokens: Mapping[str, Sequence[int]], proxy: ProxyModel) -> str:
    """A row decoded, each learned part in ``[[...]]``; long parts lose their middle."""
    text, at, ids = "", 0, tokens["input_ids"]
    for start, stop in _spans(tokens["completion_mask"]):
        text += f"{_middle_out(_decode(proxy, ids[at:start]))}[[{_middle_out(_decode(proxy, ids[start:stop]))}]]"
        at = stop
    return text + _middle_out(_decode(proxy, ids[at:]))


def _plain(rows: Dataset, numbers: Sequence[int] | range) -> Dataset:
    return rows.with_format(None).select(numbers)


def _table(encoded: list[tuple[int, EncodedRow]], ids: list[str]) -> Any:
    import pyarrow as pa

    # Position 0 is predicted from nothing, so it is never learned, whatever the row.
    masks = [[0, *map(int, row.completion_mask[1:])] for _, row in encoded]
    return pa.table(
        {
            "input_ids": pa.array([row.input_ids for _, row in encoded], pa.list_(pa.int32())),
            "completion_mask": pa.array(masks, pa.list_(pa.int8())),
            "row": pa.array([i for i, _ in encoded], pa.int64()),
            "id": pa.array([ids[i] for i, _ in encoded], pa.string()),
        }
    )


def _dataset(tables: list[Any]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    return Dataset(pa.concat_tables(tables))


def _lengths(dataset: Dataset, column: str) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.list_value_length(dataset.data.column(column)).to_numpy()  # type: ignore[attr-defined]


def _sample(lengths: np.ndarray) -> list[int]:
    chosen = random.Random(0).sample(range(len(lengths)), min(CHECKED, len(lengths)))
    return sorted({0, int(lengths.argmax()), *chosen})


def _spans(mask: Sequence[int]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff([0, *mask, 0])).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _words(sample: Sample, turns: str) -> tuple[str, list[str]]:
    """What stands before the last completion, and the completions that are learned, in the row's own words."""
    if sample.messages is None:
        before = sample.prompt if isinstance(sample.prompt, str) or not sample.prompt else sample.prompt[-1]["content"]
        return str(before or ""), [sample.texts[1]]
    said = [message["content"] for message in sample.messages if message["role"] == "assistant"]
    before = sample.messages[-2]["content"] if len(sample.messages) > 1 else ""
    return before, said if turns == "all" else said[-1:]


def _decode(proxy: ProxyModel, ids: Sequence[int]) -> str:
    return proxy.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)  # type: ignore[return-value]


def _ids(proxy: ProxyModel, text: str) -> list[int]:
    return proxy.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[return-value]


def _special_ids(proxy: ProxyModel) -> set[int]:
    tokenizer: Any = proxy.tokenizer
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _squeezed(text: str) -> str:
    """Without white space, which templates trim and tokenizers move; and with one spelling of every character."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:80]} ... {text[-40:]}")


def _middle_out(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN * 2 // 3]} ...({len(text) - SHOWN:,} characters)... {text[-SHOWN // 3 :]}"


def _first(ids: Sequence[str], number: int = 5) -> str:
    if not ids:
        return ""
    return f" (ids {', '.join(ids[:number])}{', ...' if len(ids) > number else ''})"
