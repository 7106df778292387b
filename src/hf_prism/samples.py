"""What one row says: the three layouts of a training row, read and checked (no torch, no datasets).

A row holds ``prompt`` and ``completion`` (text or message lists), or ``messages``, or ``text``, in this order of
preference. Other column names come in by a mapping, anything else (NLI pairs, labels) by format strings.
"""

from __future__ import annotations

import difflib
import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


Message = dict[str, Any]

LAYOUTS = (("prompt", "completion"), ("messages",), ("text",))
NAMES = ("prompt", "completion", "messages", "text", "id")
ROLES = ("system", "developer", "user", "assistant", "tool")

# Column names met in public data sets; they only word the suggestion in an error, nothing is guessed silently.
USUAL_COLUMNS = {
    "prompt": ("question", "problem", "instruction", "query", "input"),
    "completion": ("response", "solution", "generation", "output", "answer"),
    "messages": ("conversation", "conversations", "chat", "dialogue"),
    "text": ("content", "document", "body"),
}


class RowError(ValueError):
    """A row that cannot be used; the message names the row, the field, the value and the fix."""


@dataclass(frozen=True)
class Sample:
    """One checked row: ``prompt`` with ``completion``, or ``messages`` (ending in an assistant turn), or ``text``."""

    prompt: str | list[Message] | None = None
    completion: str | list[Message] | None = None
    messages: list[Message] | None = None
    text: str | None = None

    @property
    def canonical(self) -> str:
        """The same text for the same content, whatever the column names: what content ids are hashed from."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str)

    @property
    def texts(self) -> tuple[str, str]:
        """Prompt and completion as a person reads them; a text without parts is all completion."""
        if self.text is not None:
            return "", self.text
        before, target = self.prompt, self.completion
        if self.messages is not None:
            before, target = self.messages[:-1], self.messages[-1:]
        return _as_text(before), _as_text(target)

    @property
    def target_is_empty(self) -> bool:
        """Whether the text to be learned is empty or white space."""
        target = self.text if self.text is not None else self.completion
        if isinstance(target, str):
            return not target.strip()
        last = (target or self.messages or [{}])[-1]
        return not any(value for key, value in last.items() if key not in ("role", "content")) and not (
            last.get("content", "").strip()
        )


def _as_text(part: str | list[Message] | None) -> str:
    if part is None or isinstance(part, str):
        return part or ""
    if len(part) == 1:
        return part[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in part)


@dataclass(frozen=True)
class RowFormat:
    """How columns become a `Sample`.

    Args:
        column_mapping: ``{name: column}`` for the names prompt, completion, messages, text, id. ``{"id": None}``
            identifies rows by their content.
        prompt_template: a ``str.format`` string over the row's columns that makes the prompt.
        completion_template: the same for the completion.

    Raises:
        ValueError: an unknown name, a broken template, or names of two layouts at once.

    Example:
        >>> nli = RowFormat(prompt_template="Premise: {premise}\\nHypothesis: {hypothesis}", completion_template="{label}")
        >>> nli.sample({"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}).completion
        'entailment'
    """

    column_mapping: Mapping[str, str | None] = field(default_factory=dict)
    prompt_template: str | None = None
    completion_template: str | None = None

    def __post_init__(self) -> None:
        for name in self.column_mapping:
            if name not in NAMES:
                raise ValueError(
                    f"column_mapping has no name {name!r}; the names are {_listed(NAMES)}{near(name, NAMES)}"
                )
        for name, template in self._templates.items():
            if self.column_mapping.get(name):
                raise ValueError(f"{name} is given twice, by {name}_template and by column_mapping; drop one of them")
            _template_columns(name, template)
        if not any(self._asked <= set(layout) for layout in LAYOUTS):
            raise ValueError(
                f"column_mapping and templates name {_listed(sorted(self._asked))}, which belong to different layouts; "
                "a row is prompt + completion, or messages, or text"
            )

    @property
    def _templates(self) -> dict[str, str]:
        given = {"prompt": self.prompt_template, "completion": self.completion_template}
        return {name: template for name, template in given.items() if template is not None}

    @property
    def _asked(self) -> set[str]:
        """The layout names the user spoke of: only a layout that has them all is meant."""
        return {name for name, column in self.column_mapping.items() if name != "id" and column} | set(self._templates)

    def layout(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The layout that these columns hold: ``("prompt", "completion")``, ``("messages",)`` or ``("text",)``.

        Raises:
            ValueError: no layout fits; the message lists the columns and suggests the option that helps.
        """
        columns = list(columns)
        needed = [("column_mapping", column) for column in self.column_mapping.values() if column]
        for name, template in self._templates.items():
            needed += [(f"{name}_template", column) for column in _template_columns(name, template)]
        for origin, column in needed:
            if column not in columns:
                raise ValueError(
                    f"{origin} names a column {column!r} that the data does not have{near(column, columns)}; "
                    f"columns found: {_listed(columns)}"
                )
        for layout in LAYOUTS:
            if self._asked <= set(layout) and all(self._has(name, columns) for name in layout):
                return layout
        raise ValueError(
            f"the rows have neither prompt + completion, nor messages, nor text; columns found: {_listed(columns)}. "
            + _suggestion(columns, self._asked)
        )

    def id_column(self, columns: Iterable[str]) -> str | None:
        """The column that identifies rows, or None where their content does."""
        columns = list(columns)
        if "id" not in self.column_mapping:
            return "id" if "id" in columns else None
        column = self.column_mapping["id"] or None
        if column is not None and column not in columns:
            raise ValueError(
                f"column_mapping gives {column!r} as id, a column that the data does not have{near(column, columns)}; "
                f"columns found: {_listed(columns)}"
            )
        return column

    def sample(self, row: Mapping[str, Any], where: str = "row") -> Sample:
        """Read and check one row.

        Args:
            row: column name to cell.
            where: how errors name the row, such as ``row 17 (id 'x')``.

        Raises:
            RowError: a null or non-text cell, a bad message, a conversation without an assistant turn.
            ValueError: the columns hold no layout, see `layout`.
        """
        layout = self.layout(row)
        cells = {name: self._cell(name, row, where) for name in layout}
        if layout == ("text",):
            return Sample(text=_text(cells["text"], self._label("text"), where))
        if layout == ("messages",):
            return Sample(messages=_conversation(cells["messages"], self._label("messages"), where))
        prompt, completion = (_text_or_messages(cells[name], self._label(name), where) for name in layout)
        if isinstance(completion, list) and [m["role"] for m in completion] != ["assistant"]:
            raise RowError(
                f"{where}: {self._label('completion')} holds the roles {_listed(m['role'] for m in completion)}; it must "
                "be text or exactly one assistant message. Put longer conversations into `messages`"
            )
        return Sample(prompt=prompt, completion=completion)

    def _has(self, name: str, columns: list[str]) -> bool:
        return name in self._templates or self._column(name) in columns

    def _column(self, name: str) -> str:
        return self.column_mapping.get(name) or name

    def _label(self, name: str) -> str:
        column = self._column(name)
        return f"{name!r}" if column == name else f"{name!r} (column {column!r})"

    def _cell(self, name: str, row: Mapping[str, Any], where: str) -> Any:
        if name not in self._templates:
            return row[self._column(name)]
        template = self._templates[name]
        for column in _template_columns(name, template):
            if row[column] is None:
                raise RowError(f"{where}: column {column!r} of {name}_template is null; drop the row or fill the cell")
        try:
            return template.format_map(row)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise RowError(f"{where}: {name}_template {template!r} does not fit the row: {error!r}") from error


def _text(value: Any, label: str, where: str) -> str:
    if value is None:
        raise RowError(f"{where}: {label} is null; drop the row or fill the cell")
    if not isinstance(value, str):
        raise RowError(
            f"{where}: {label} is {_shown(value)} of type {type(value).__name__}, not text; convert the column, or render "
            "it with prompt_template / completion_template (--prompt-template, --completion-template)"
        )
    return value


def _text_or_messages(value: Any, label: str, where: str) -> str | list[Message]:
    return _messages(value, label, where) if isinstance(value, (list, tuple)) else _text(value, label, where)


def _conversation(value: Any, label: str, where: str) -> list[Message]:
    """Checked messages up to the last assistant turn; what follows it cannot change its gradient."""
    if not isinstance(value, (list, tuple)):
        raise RowError(f"{where}: {label} is {_shown(value)}; it must be a list of messages with role and content")
    messages = _messages(value, label, where)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise RowError(
            f"{where}: {label} has no assistant turn to learn from, only the roles {_listed(m['role'] for m in messages)}"
        )
    return messages[: turns[-1] + 1]


def _messages(value: Iterable[Any], label: str, where: str) -> list[Message]:
    messages = [_message(message, f"{label}[{i}]", where) for i, message in enumerate(value)]
    if not messages:
        raise RowError(f"{where}: {label} is an empty list of messages; drop the row")
    return messages


def _message(message: Any, label: str, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise RowError(f"{where}: {label} is {_shown(message)}; a message is a dict with role and content")
    message = {key: value for key, value in message.items() if value is not None}  # Arrow fills absent keys with null
    if {"from", "value"} <= message.keys():
        raise RowError(
            f"{where}: {label} has the keys from/value; rename them to role/content (human -> user, gpt -> assistant)"
        )
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            found = f"{key} {_shown(message[key])}" if key in message else f"no {key}, only {_listed(message)}"
            raise RowError(f"{where}: {label} has {found}; role and content must both be text")
    if message["role"] not in ROLES:
        raise RowError(f"{where}: {label} has the unknown role {message['role']!r}; the roles are {_listed(ROLES)}")
    return message


def _template_columns(name: str, template: str) -> list[str]:
    """The columns a format string reads."""
    try:
        fields = [part for _, part, _, _ in string.Formatter().parse(template) if part is not None]
    except ValueError as error:
        raise ValueError(
            f"{name}_template {template!r} is not a format string: {error}; write {{{{ for a brace"
        ) from error
    columns = [part.split(".")[0].split("[")[0] for part in fields]
    if not all(columns) or any(column.isdigit() for column in columns):
        raise ValueError(f"{name}_template {template!r} has a field without a column name; write {{column}}")
    return columns


def _suggestion(columns: list[str], asked: set[str]) -> str:
    if {"premise", "hypothesis", "label"} <= set(columns) and not asked:
        return (
            "For NLI pass --prompt-template 'Premise: {premise}\\nHypothesis: {hypothesis}' --completion-template '{label}' "
            "(Python: prompt_template=, completion_template=)"
        )
    for layout in LAYOUTS:
        found = {name: _usual(name, columns) for name in layout if name not in columns and name not in asked}
        if asked <= set(layout) and found and all(found.values()):
            flags = " ".join(f"--column {name}={column}" for name, column in found.items())
            return f"Did you mean {flags} (Python: column_mapping={found})?"
    return (
        "Name the columns with --column prompt=... --column completion=... (Python: column_mapping={'prompt': ..., "
        "'completion': ...}) or render them with --prompt-template / --completion-template"
    )


def _usual(name: str, columns: list[str]) -> str | None:
    close = difflib.get_close_matches(name, columns, n=1, cutoff=0.8)
    return next((column for column in USUAL_COLUMNS[name] if column in columns), close[0] if close else None)


def near(name: str, names: Iterable[str]) -> str:
    """What may have been meant by a name, for the end of a sentence; nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _shown(value: Any, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
