"""What the synthesis loop needs to know of a task: how problems are asked for, read, solved and judged.

A new task is a subclass of `Task` that names its sections and writes three texts; `examples/custom_task.py` adds one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..samples import RowError, near
from ..verification import Vote
from .blocks import DELIMITER, read_blocks, write_block


class Task:
    """A kind of problem that a model can be asked to write and to solve.

    A *candidate* is what a generator wrote: its sections by column, such as `{"problem": "..."}`. A *row* is a candidate
    with its solution: the strings `prompt`, `completion`, `answer` and the task's own columns.

    Attributes:
        name: What recipes call it.
        sections: The tags of a block, in order. In lower case they are the columns of a candidate.
        extra_columns: Columns of a row besides prompt, completion and answer.
    """

    name: str
    sections: tuple[str, ...]
    extra_columns: tuple[str, ...] = ()

    # What a task writes itself.

    def instructions(self, shown: int, wanted: int) -> str:
        """The request that stands above `shown` examples and asks for `wanted` new problems."""
        raise NotImplementedError

    def solution_prompt(self, candidate: Mapping[str, str]) -> str:
        """The request for one solution, or one label."""
        raise NotImplementedError

    def vote(self, candidate: Mapping[str, str], solutions: Sequence[str | None]) -> Vote:
        """What most of the solutions say; None stands for one that was cut off or never came."""
        raise NotImplementedError

    def row(self, candidate: Mapping[str, str], solution: str, answer: str) -> dict[str, str]:
        """Render a solved candidate as a row."""
        raise NotImplementedError

    def seed_row(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
        """Read a row of the seeds as a row of this task.

        Raises:
            RowError: A column is missing or empty, or holds no usable answer; `where` says in which row.
        """
        raise NotImplementedError

    def candidate(self, row: Mapping[str, str]) -> dict[str, str]:
        """The sections of a row, by column; of a candidate, the same."""
        return {section.lower(): row[section.lower()] for section in self.sections}

    @property
    def settings(self) -> dict[str, Any]:
        """What of the task decides verdicts, as JSON values."""
        return {}

    def check(self) -> None:
        """Find out before the first request that what the task needs is there."""

    def close(self) -> None:
        """Give back what the task holds, such as processes."""

    # The rest follows from that.

    def generation_messages(
        self, examples: Sequence[Mapping[str, str]], wanted: int, persona: str | None = None
    ) -> list[dict[str, str]]:
        """A few-shot request for new problems, as chat messages."""
        shown = [self.candidate(row) for row in examples]
        blocks = [write_block({section: row[section.lower()] for section in self.sections}) for row in shown]
        head = self.instructions(len(blocks), wanted)
        if persona:
            head += f"\n\nWrite them for this person, and out of their world.\nPersona: {persona}"
        text = "\n".join([head, "", *(f"{DELIMITER}\n{block}" for block in blocks), DELIMITER])
        return [{"role": "user", "content": text}]

    def solution_messages(self, candidate: Mapping[str, str]) -> list[dict[str, str]]:
        """The request for one solution, as chat messages."""
        return [{"role": "user", "content": self.solution_prompt(candidate)}]

    def parse(self, response: str, *, cut: bool = False) -> list[dict[str, str] | None]:
        """The candidates of a response, None for a block that cannot be read.

        A block may bring its own solution, as the column `solution`.
        """
        blocks = read_blocks(response, self.sections, optional=["Solution"], cut=cut)
        return [block and {name.lower(): text for name, text in block.items()} for block in blocks]

    def text(self, candidate: Mapping[str, str]) -> str:
        """The text by which problems are compared: with one another, and with benchmarks."""
        return "\n".join(candidate[section.lower()] for section in self.sections)


def column(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The text in the first of these columns that the row has.

    Raises:
        RowError: none is there, or it holds no text.
    """
    name = next((name for name in names if name in row), None)
    if name is None:
        hint = near(names[0], row)
        raise RowError(f"{where}: no column {' or '.join(map(repr, names))}{hint}; columns found: {', '.join(row)}.")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise RowError(f"{where}: {name!r} is {value!r}; a seed needs text there. Fill it, or drop the row.")
    return str(value)
