"""The answer that a text gives, and what it says where that is plain: a number, or a word."""

from __future__ import annotations

import re
from fractions import Fraction


# ---- the answer of a text --------------------------------------------------------------------------------------------


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces are balanced, None where there is none.

    Braces behind a backslash belong to the content. `\fbox{...}` counts, and so does `\boxed 5`. A box that the text ends
    in the middle of is none.

    Example:
        >>> last_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}")
        '\\frac{1}{2}'
    """
    for found in reversed(list(re.finditer(r"\\(?:boxed|fbox)(?![A-Za-z])\s*", text))):
        if text[found.end() : found.end() + 1] == "{":
            content = _braced(text, found.end())
        else:
            bare = re.match(r"-?[^\s$\\{},.;]+(?:\.\d+)?", text[found.end() :])
            content = bare[0] if bare else None
        if content is not None and content.strip():
            return content.strip()
    return None


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace at `start` and the one that closes it."""
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        if brace[0] == "{":
            depth += 1
        elif brace[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : start + brace.start()]
    return None


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`; None where a `<think>` never ends.

    Example:
        >>> after_thinking("<think>Hm.</think>Yes."), after_thinking("<think>Hm.")
        ('Yes.', None)
    """
    answer = text.rpartition("</think>")[2]
    return None if "<think>" in answer else answer


NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
MARKED = re.compile(
    rf"(?:####|^\s*A\s*:|\b(?:final\s+)?answer\s*(?:is|:|=))[ \t]*:?[ \t]*([^\n]*?{NUMBER}[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)


def final_answer(text: str, *, or_number: bool = False) -> str | None:
    r"""The answer that a text ends with.

    Only what follows the last `</think>` is read; a `<think>` that never ends answers nothing. The last balanced
    `\boxed{}` is the answer, and an empty one is none.

    Args:
        text: A solution.
        or_number: Without a box, take what follows the last `####`, `A:` or `answer is`, if there is a number in it, else
            the last number of the text. For texts of models that were not asked for a box.

    Returns:
        The answer, a number without thousands separators and signs of money; None where there is none.

    Example:
        >>> final_answer(r"<think>\boxed{3}?</think> It is \boxed{4}."), final_answer("She has $1,200.", or_number=True)
        ('4', '1200')
    """
    answer = after_thinking(text)
    if answer is None:
        return None
    if (boxed := last_boxed(answer)) is not None or not or_number:
        return boxed
    marked = MARKED.findall(answer)
    numbers = re.findall(NUMBER, marked[-1] if marked else answer)
    if not numbers:
        return None
    return numbers[0 if marked else -1].replace(",", "").removeprefix("+").rstrip(".")


# ---- what stands there --------------------------------------------------------------------------------------


def plain(text: str) -> str:
    r"""Without what surrounds an answer: white space, dollar signs, `\(...\)`, a full stop.

    Example:
        >>> plain(r" $\frac{1}{2}$. ")
        '\\frac{1}{2}'
    """
    text = text.strip()
    while True:
        before = text
        text = (
            re.sub(r"^\$\$?(.*?)\$?\$$", r"\1", text, flags=re.DOTALL) if text.count("$") - text.count("\\$") else text
        )
        text = re.sub(r"^\\[(\[](.*)\\[)\]]$", r"\1", text, flags=re.DOTALL).strip()
        text = text.rstrip(" .\n") if not text.endswith("\\") else text
        text = re.sub(r"(?<=\d)\s+(?=[a-z](?![a-zA-Z]))", "", text)  # 9 i
        if text == before:
            return text


def number(text: str) -> Fraction | None:
    """The value of a plain decimal number; thousands separators and money are understood, a percentage is not plain.

    Example:
        >>> number("$1,200.50"), number("12%")
        (Fraction(2401, 2), None)
    """
    text = re.sub(r"\\[,;! ]|\{,\}", lambda found: "," if found[0] == "{,}" else "", text)
    text = re.sub(r"^([-+]?)\s*\\?\$\s*", r"\1", text)
    if not re.fullmatch(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,400})(?:\.\d{0,400})?|[-+]?\.\d{1,400}", text):
        return None
    return Fraction(text.replace(",", "").rstrip("."))


def word(text: str) -> str | None:
    r"""A word in lower case, out of `\text{}` and brackets, or the label of a choice; None for anything else.

    Single letters keep their case, and `pi` and such are numbers.

    Example:
        >>> word(r"\text{Even}"), word("(B) the plane"), word("pi")
        ('even', 'B', None)
    """
    quoted = re.fullmatch(r"\\(?:text|textbf|mbox|mathrm|mathbf|textit|operatorname)\{([^{}]*)\}", text.strip())
    text = (quoted[1] if quoted else text).strip()
    if quoted and re.fullmatch(r"[A-Za-z]+(?:[\s-]+[A-Za-z]+)+", text):
        return " ".join(text.lower().split())
    label = re.fullmatch(r"\(([A-Z])\)[.:]?\s+(?!(?:and|or|not)\b)[A-Za-z][A-Za-z '-]*", text)
    match = label or re.fullmatch(r"\(?([A-Za-z]+)[).:]*", text)
    if match is None or match[1].lower() in ("pi", "e", "i", "infinity", "inf", "infty"):
        return None
    return match[1].lower() if len(match[1]) > 1 else match[1]
