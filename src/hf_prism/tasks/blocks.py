"""The delimited format in which examples are shown to a generator and problems are read back from it.

    ---
    [[Problem]]
    A train leaves at ...
    ---

Models are not tidy: they add greetings, number the tags, put them in bold, forget a delimiter, or are cut off. What can be
read without guessing is read; a block in which a section is missing or empty is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..verification import after_thinking


DELIMITER = "---"
RULE = re.compile(r"^[ \t]*(?:-{3,}|\*{3,}|={3,}|_{3,})[ \t\r]*$", re.MULTILINE)


def write_block(sections: Mapping[str, str]) -> str:
    """One block, without the delimiters around it.

    Example:
        >>> print(write_block({"Premise": "It rains.", "Hypothesis": "It is wet."}))
        [[Premise]]
        It rains.
        [[Hypothesis]]
        It is wet.
    """
    return "\n".join(f"[[{name}]]\n{text.strip()}" for name, text in sections.items())


def read_blocks(
    text: str, sections: Sequence[str], *, optional: Sequence[str] = (), cut: bool = False
) -> list[dict[str, str] | None]:
    """Read the blocks of a response.

    Args:
        text: The response. Reasoning up to `</think>` is skipped; one that never ends holds no blocks.
        sections: The tags of a block, all needed; the first one begins it.
        optional: Tags that a block may also have.
        cut: Whether the response was cut off, so that a block at its very end is not whole.

    Returns:
        For each block its sections by name, None where one is missing or empty.

    Example:
        >>> read_blocks("Sure!\\n---\\n[[Problem]]\\nWhat is 2 + 2?\\n---\\n[[Problem]]\\n", ["Problem"])
        [{'Problem': 'What is 2 + 2?'}, None]
    """
    answer = after_thinking(text)
    if answer is None:
        return []
    names = {name.lower(): name for name in [*sections, *optional]}
    # [[Problem]], **[[Problem 2]]**:, 1. [[problem]], ### [[Problem]], at the beginning of a line
    tag = re.compile(
        rf"^[ \t]*(?:\d+[.)])?[ \t]*[#*_>-]*[ \t]*\[\[[ \t]*({'|'.join(map(re.escape, names))})[ \t]*#?\d*[ \t]*:?\]\][*_]*[ \t]*:?[*_]*",
        re.IGNORECASE | re.MULTILINE,
    )
    tags = list(tag.finditer(answer))
    blocks: list[dict[str, str]] = []
    for found, following in zip(tags, [*tags, None][1:], strict=True):
        name = names[found[1].lower()]
        rest = answer[found.end() : following.start() if following else len(answer)]
        content, closed = _until_rule(rest)
        if name == sections[0]:
            blocks.append({})
        if not blocks or name in blocks[-1]:
            continue  # a section without a beginning, or twice
        whole = closed or following is not None or not cut
        blocks[-1][name] = content.strip() if whole else ""
    return [block if all(block.get(name) for name in sections) else None for block in blocks]


def _until_rule(text: str) -> tuple[str, bool]:
    """The text before a delimiter line, and whether there is one."""
    rule = RULE.search(text)
    return (text[: rule.start()], True) if rule else (text, False)
