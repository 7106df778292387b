"""From a sample to token ids and the completion mask, for any chat template or none.

Rule (DESIGN 2; TRL's prompt-completion rule made strict): the completion is everything that the template writes after
the generation prompt, the end of the turn included, so ``<|im_end|>\\n`` in ChatML. The mask comes from the token
boundary of the rendered prompt, never from searching for a template's words or from ``token == pad``.

Strings become one user and one assistant turn. Without a template prompt and completion are concatenated and EOS is
appended; the tokenizer's own BOS, if it adds one, comes first. ``text`` is rendered the same way, and all of it counts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from .samples import Message, RowError, Sample


VERSION = 1  # of the rule above; part of every proxy's identity, raised when masks or texts change

# Templates such as Llama 3.2's write today's date, which would change every gradient overnight. A macro shadows the
# function they call and always answers with the date that Llama's templates fall back to, 26 July 2024.
DATE_PARTS = {"%d": "26", "%-d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%y": "24", "%Y": "2024", "%A": "Friday"}
DATE_PARTS |= {"%a": "Fri", "%H": "00", "%I": "12", "%p": "AM", "%M": "00", "%S": "00", "%F": "2024-07-26"}
PINNED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{part}', '{value}')" for part, value in DATE_PARTS.items())
    + " }}{%- endmacro -%}"
)


@dataclass(frozen=True)
class Tokens:
    """A tokenised row: the ids, and for each whether it belongs to the completion."""

    input_ids: list[int]
    completion_mask: list[bool]


@dataclass(frozen=True)
class Turn:
    """A part of the rendered text that is learned; ``content_end`` is None where it runs to the end of the text."""

    start: int
    content_end: int | None = None


@dataclass(frozen=True)
class Rendering:
    """The whole row as the model reads it, special tokens written out, and the turns to learn from."""

    text: str
    turns: tuple[Turn, ...]
    last_content_end: int
    with_bos: bool = False
    where: str = field(default="row", compare=False)


class Renderer:
    """Renders and tokenises samples for one tokenizer.

    Args:
        tokenizer: of the proxy.
        chat_template: None for the tokenizer's own (plain concatenation where it has none), False for plain
            concatenation, or a Jinja template.
        assistant_turns: ``"last"`` or ``"all"`` of a conversation's assistant turns are learned.

    Raises:
        ValueError: a chat template that is neither of these.

    Example:
        >>> renderer = Renderer(proxy.tokenizer)  # doctest: +SKIP
        >>> renderer.render(Sample(prompt="1+1?", completion="2")).text  # doctest: +SKIP
        '<|im_start|>user\\n1+1?<|im_end|>\\n<|im_start|>assistant\\n2<|im_end|>\\n'
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | Literal[False] | None = None,
        assistant_turns: Literal["last", "all"] = "last",
    ) -> None:
        self.tokenizer = tokenizer
        self.template = _effective_template(tokenizer, chat_template)
        self.assistant_turns = assistant_turns
        self.adds_bos = tokenizer.bos_token_id is not None and _ids(tokenizer("a"))[:1] == [tokenizer.bos_token_id]

    def render(self, sample: Sample, where: str = "row") -> Rendering:
        """Write a sample out as one text.

        Raises:
            RowError: the template refuses, drops or rewrites a part of the row, or the row needs a template.
        """
        if sample.text is not None:
            return self._plain("", sample.text, where)
        if sample.messages is not None:
            roles = [message["role"] for message in sample.messages]
            turns = [i for i, role in enumerate(roles) if role == "assistant"]
            return self._chat(sample.messages, turns if self.assistant_turns == "all" else turns[-1:], where)
        prompt, completion = sample.prompt, sample.completion
        if self.template is None and isinstance(prompt, str) and isinstance(completion, str):
            return self._plain(prompt, completion, where)
        messages = _as_messages(prompt, "user") + _as_messages(completion, "assistant")
        return self._chat(messages, [len(messages) - 1], where)

    def tokenize(self, renderings: Sequence[Rendering]) -> list[Tokens]:
        """Token ids and completion masks, in one batched call of the tokenizer.

        A token that straddles the start of a completion carries some of its characters and counts as completion.
        """
        if not renderings:
            return []
        texts = [rendering.text for rendering in renderings]
        prefixes = [r.text[: turn.start] for r in renderings for turn in r.turns]
        fast = bool(self.tokenizer.is_fast)
        whole = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
        prefix_ids = iter(_ids(self.tokenizer(prefixes, add_special_tokens=False, verbose=False)))
        rows = []
        for i, rendering in enumerate(renderings):
            ids: list[int] = _ids(whole)[i]
            offsets = whole["offset_mapping"][i] if fast else None  # type: ignore[index]
            mask = _mask(rendering, ids, offsets, [next(prefix_ids) for _ in rendering.turns])
            bos = [self.tokenizer.bos_token_id] if rendering.with_bos else []
            rows.append(Tokens(bos + ids, [False] * len(bos) + mask))  # type: ignore[operator]
        return rows

    def _plain(self, prompt: str, completion: str, where: str) -> Rendering:
        text = prompt + completion
        eos = str(self.tokenizer.eos_token or "")
        with_bos = self.adds_bos and not text.startswith(str(self.tokenizer.bos_token))
        text = text if eos and text.endswith(eos) else text + eos
        return Rendering(text, (Turn(len(prompt)),), len(prompt + completion), with_bos, where)

    def _chat(self, messages: list[Message], learned: list[int], where: str) -> Rendering:
        text = self._apply(messages, where)
        starts = [self._start(text, messages, i, where) for i in learned]
        limits = [*starts[1:], len(text)]
        ends = [
            _content_end(text, start, limit, messages[i]["content"], f"{where}: message {i}")
            for i, start, limit in zip(learned, starts, limits, strict=True)
        ]
        turns = [Turn(start, end) for start, end in zip(starts[:-1], ends[:-1], strict=True)] + [Turn(starts[-1])]
        return Rendering(text, tuple(turns), ends[-1], False, where)

    def _apply(self, messages: list[Message], where: str, generation_prompt: bool = False) -> str:
        if self.template is None:
            raise RowError(
                f"{where}: the row holds messages, but there is no chat template to render them with; pass chat_template= "
                "a Jinja template, or give prompt and completion as text"
            )
        try:
            return self.tokenizer.apply_chat_template(  # type: ignore[return-value]
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=generation_prompt
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise RowError(f"{where}: the chat template refuses the messages (roles {roles}): {error}") from error

    def _start(self, text: str, messages: list[Message], turn: int, where: str) -> int:
        """Where the assistant turn starts in the text: behind the generation prompt."""
        if turn == 0:
            raise RowError(f"{where}: the conversation opens with an assistant turn; put a user message before it")
        prompt = self._apply(messages[:turn], where, generation_prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        # Some generation prompts open a block that a finished turn writes differently (DeepSeek-R1: "<think>\n"). Where
        # only the generation prompt differs, the turn starts behind what both share; with its content, if that follows.
        shared = len(os.path.commonprefix([text, prompt]))
        asked = self._apply(messages[:turn], where)
        if prompt.startswith(asked) and text.startswith(asked):
            content = messages[turn]["content"].strip()
            starts = range(shared, len(asked) - 1, -1)
            return next((start for start in starts if content and text.startswith(content, start)), shared)
        raise RowError(
            f"{where}: the chat template writes what precedes message {turn} differently once that is answered: first "
            f"{prompt[shared:][:60]!r}, then {text[shared:][:60]!r}. Where the completion starts is not certain; pass a "
            "template made for training as chat_template=, or chat_template=False"
        )


def _effective_template(tokenizer: PreTrainedTokenizerBase, given: str | Literal[False] | None) -> str | None:
    if given is False or (given is None and tokenizer.chat_template is None):
        return None
    if not (given is None or (isinstance(given, str) and "{" in given)):
        raise ValueError(f"chat_template is {given!r}; it must be None, False or a Jinja template")
    template = tokenizer.get_chat_template(given)
    return PINNED_DATE + template if "strftime_now" in template else template


def _as_messages(part: str | list[Message] | None, role: str) -> list[Message]:
    return [{"role": role, "content": part}] if isinstance(part, str) else list(part or [])


def _content_end(text: str, start: int, limit: int, content: str, what: str) -> int:
    """Where the content of a turn ends in the text. Templates may trim it and move its line breaks, nothing else.

    Its beginning may lie in the generation prompt, where that ends in "<think>" and so does the content's first line.
    """
    wanted = "".join(content.split())
    if not wanted:
        return start
    for begin in (start, max(0, start - len(content))):
        at = text.find(content.strip(), begin, limit)
        if at >= 0:
            return at + len(content.strip())
        positions = [i for i in range(begin, limit) if not text[i].isspace()]
        at = "".join(text[i] for i in positions).find(wanted)
        if at >= 0:
            return positions[at + len(wanted) - 1] + 1
    raise RowError(
        f"{what}: the chat template drops or rewrites a part of this assistant turn: {content[:80]!r} becomes "
        f"{text[start:limit][:80]!r}. Templates of reasoning models do so with <think> blocks; pass a template made for "
        "training as chat_template=, or chat_template=False"
    )


def _mask(
    rendering: Rendering, ids: list[int], offsets: list[tuple[int, int]] | None, prefix_ids: list[list[int]]
) -> list[bool]:
    mask = [False] * len(ids)
    for turn, prefix in zip(rendering.turns, prefix_ids, strict=True):
        if ids[: len(prefix)] == prefix:
            start = len(prefix)
        else:  # tokens merged across the boundary, or the tokenizer looks ahead
            start = _first(_known(offsets, rendering.where), lambda span, at=turn.start: span[1] > at)
        end = len(ids)
        if turn.content_end is not None:
            end = _turn_end(ids, _known(offsets, rendering.where), turn.content_end, rendering.last_content_end)
        mask[start:end] = [True] * (end - start)
    return mask


def _turn_end(ids: list[int], offsets: list[tuple[int, int]], content_end: int, last_content_end: int) -> int:
    """The end of an inner turn: behind its content, as far as the tokens that end the last turn follow here too.

    What a template appends to the whole conversation (Phi-3: ``<|endoftext|>``) is thereby no part of an inner turn.
    """
    end, last = (_first(offsets, lambda span, at=at: span[0] >= at) for at in (content_end, last_content_end))
    while last < len(ids) and ids[end] == ids[last]:
        end, last = end + 1, last + 1
    return end


def _first(offsets: list[tuple[int, int]], condition: Any) -> int:
    return next((i for i, span in enumerate(offsets) if condition(span)), len(offsets))


def _known(offsets: list[tuple[int, int]] | None, where: str) -> list[tuple[int, int]]:
    if offsets is None:
        raise RowError(f"{where}: the completion's first token needs character offsets; use a fast tokenizer")
    return offsets


def _ids(encoding: Any) -> Any:
    return encoding["input_ids"]
