r"""Two answers written alike.

Algebra compares what is written in one way only. What two people may write differently, and what algebra does not see, is
settled here, on the texts: names, signs, inequalities, units. Every rule is true of any two answers; what a pair leaves
open stays as it is written.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .units import degrees, one_base, one_unit, percent


def alike(gold: str, answer: str) -> tuple[str, str] | None:
    r"""Two answers, each written so that algebra can compare them; None where they differ whatever algebra says.

    Example:
        >>> alike(r"(3, 4]", r"3 < x \le 4")
        ('(3, 4]', '(3, 4]')
        >>> alike("52_8", "52_9") is None
        True
    """
    one, other = _tidy(gold), _tidy(answer)
    one, other = _as_sets(one, other)
    one, other = degrees(one, other), degrees(other, one)
    sides = _unnamed(*([each for part in _parts(text) for each in _both_signs(part)] for text in (one, other)))
    counted = one_base(*sides)
    measured = counted and one_unit(*counted)
    if not measured:
        return None
    left, right = percent(*measured)
    kinds = {
        next((kind for kind in ("()", r"\{\}") if len(_inside(side[0], kind)) > 1), None) for side in (left, right)
    }
    if len(left) == len(right) == 1 and kinds == {"()", r"\{\}"}:
        return None  # a tuple is no set
    if len(left) > 1 and len(right) == 1 and len(_inside(right[0], "()")) == len(left):
        left = [f"({', '.join(left)})"]  # a tuple claims an order
    return ", ".join(left), ", ".join(right)


SIGNS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ",
    "π": r"\pi ", "±": r"\pm ", "°": r"^\circ ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
}  # fmt: skip
WORDS = r"(?<=[\d}a-z])\s*(?:\\text\{\s*(?:WORD)\s*\}|\s(?:WORD)\b)"
SAME = [
    (re.compile(pattern), written)
    for pattern, written in (
        (r"\\(?:left|right)(?![A-Za-z])\s*", ""),
        (r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))", ""),
        (r"\{,\}(?=\d{3}(?!\d))|(?<=\d),\\!\s*(?=\d{3}(?!\d))|\\!\s*", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\text\{\s*\\?¢\s*\}|\\?¢", r"\\text{ cents}"),
        (
            r"\\[dtc]?frac(?![A-Za-z])(?:\s*(\\pi)\s*(\d))?",
            lambda found: rf"\frac{{\pi}}{{{found[2]}}}" if found[1] else r"\frac",
        ),
        (r"\b([ap])\.\s?m\.?", r"\1m"),
        (r"\\(?:mbox|hbox|mathrm|textrm|textnormal|textbf|textit)(?=\s*\{)", r"\\text"),
        (r"\\text\{\s*\\?\$\s*\}", r"\\$"),
        (r"\\(?:leqslant|leqq?|le)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geqslant|geqq?|ge)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(?:neq?)(?![A-Za-z])|!=|\\not\s*=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\text\{\s*,?\s*(and|or)\s*\}", r" \1 "),
        (r"\^\s*\{\s*\\circ\s*\}|\\degree(?![A-Za-z])", r"^\\circ "),
        (WORDS.replace("WORD", "degrees?|deg"), r"^\\circ "),
        (WORDS.replace("WORD", "radians?|rad"), ""),
        (WORDS.replace("WORD", "percent|percentage|pct") + r"|(?<!\\)%", r"\\%"),
        (r"(?<=\d)\^\{?\s*\\text\{\s*(?:st|nd|rd|th)\s*\}\s*\}?|(?<=\d)\\text\{\s*(?:st|nd|rd|th)\s*\}", ""),
    )
]


def _tidy(text: str) -> str:
    """With one sign for each thing, and repeating decimals as fractions."""
    text = re.sub(r"\s+", " ", text)
    for sign, written in SIGNS.items():
        text = text.replace(sign, written)
    for pattern, written in SAME:
        text = pattern.sub(written, text)
    return re.sub(r"(?<!\d)(\d{0,50})\.(\d{0,50})\\(?:overline|bar)\s*\{?(\d{1,50})\}?", _repeating, text).strip()


def _repeating(found: re.Match[str]) -> str:
    whole, first, period = found.groups()
    value = Fraction(
        int(whole + first + period) - int("0" + whole + first), 10 ** len(first) * (10 ** len(period) - 1)
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


# ---- parts -----------------------------------------------------------------------------------------------------------

LIST = r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"


def _split(text: str, separators: str) -> list[str]:
    """What stands between separators outside of all brackets; the separators themselves if they are a group."""
    parts, depth, last = [], 0, 0
    for found in re.finditer(rf"([(\[{{])|([)\]}}])|(?<!\d)\d{{1,3}}(?:,\d{{3}})+(?!\d)|({separators})", text):
        if found[1]:
            depth += 1
        elif found[2]:
            depth -= 1
            if depth < 0:
                return [text]
        elif found[3] and depth == 0:
            parts += [text[last : found.start()].strip(), found[3]]
            last = found.end()
    return [*parts, text[last:].strip()] if depth == 0 else [text]


def _parts(text: str) -> list[str]:
    """The members of a list."""
    return [part for part in _split(text, LIST)[::2] if part] or [text]


def _inside(text: str, brackets: str) -> list[str]:
    """The members between the brackets that hold all of a text, none if they do not."""
    if not text.startswith(brackets[: len(brackets) // 2]) or not text.endswith(brackets[len(brackets) // 2 :]):
        return []
    inner = text[len(brackets) // 2 : -(len(brackets) // 2)]
    depths, depth = [], 0
    for sign in inner:
        depth += (sign in "([{") - (sign in ")]}")
        depths.append(depth)
    return _parts(inner) if min(depths, default=0) >= 0 and depth == 0 else []


def _letters(text: str) -> set[str]:
    r"""The names in a formula: letters, and Greek ones but \pi."""
    found = re.findall(r"\\[A-Za-z]+|[A-Za-z]", re.sub(r"\\text\{[^{}]*\}", "", text))
    return {each for each in found if each not in CONSTANT}


CONSTANT = {
    f"\\{name}" for name in "sqrt frac pi infty cdot times log ln sin cos tan cot sec csc arcsin arccos arctan".split()
}
CONSTANT |= {"e"}


# ---- rules -----------------------------------------------------------------------------------------------------------


def _both_signs(part: str) -> list[str]:
    r"""`1 \pm x` as 1 + x and 1 - x. Two signs that need not go together stay."""
    if r"\pm" not in part and r"\mp" not in part:
        return [part]
    if members := _inside(part, r"\{\}"):
        return [rf"\{{{', '.join(each for member in members for each in _signed(member))}\}}"]
    return _signed(part)


def _signed(part: str) -> list[str]:
    if (
        not re.search(r"\\[pm][pm]", part)
        or len(re.findall(r"\\pm", part)) > 1
        or (r"\pm" not in part and len(re.findall(r"\\mp", part)) > 1)
    ):
        return [part]
    signed = []
    for plus, minus in ("+-", "-+"):
        text = part.replace(r"\pm", plus).replace(r"\mp", minus)
        text = re.sub(r"(^|[({\[,=])\s*\+", r"\1", text).strip()
        members = _inside(text[1:].strip(), "()") if text.startswith("-") else []
        signed.append(f"({', '.join(f'-({each})' for each in members)})" if len(members) > 1 else text)
    return signed


NAME = re.compile(
    r"(?:m?\s*\\angle\s*)?(?:\\?[A-Za-z]|(?:[A-Z]\s*(?:_\{?\d\}?)?\s*){2,4}|\\[a-zA-Z]+|\\text\{[^{}]*\}|\|[A-Z ]+\|)'*"
    r"(?:_(?:\{[^{}]*\}|\w))?'*\s*(?:\([A-Za-z0-9, ]+\))?|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)"
)


def _named(parts: list[str]) -> list[tuple[list[str], str]] | None:
    """The names of each part, `a` and `b` of `a = b = 2`, and its value; None unless all have a name."""
    found = []
    for part in parts:
        *names, value = _split(part, r"(?<![<>!])=")[::2]
        if not names or not NAME.fullmatch(names[0]) or re.search(r"[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])", part):
            return None
        keys = [re.sub(r"[\s{}]|\\text", "", name) for name in names if NAME.fullmatch(name)]
        members = _inside(value, "()")
        if (
            len(keys) == 1
            and len(each := keys[0].strip("()").split(",")) == len(members) > 1
            and keys[0].startswith("(")
        ):
            found += [([key], member) for key, member in zip(each, members, strict=True)]
        else:
            found.append((keys, value))
    return found


def _renamed(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """`f(t) = 2t` and `a_k = 2k` as of x, since the letter means nothing outside; not where no value uses it."""
    used: dict[str, set[str]] = {}
    for key, value in named:
        used.setdefault(key, set()).update(_letters(value))
    done = []
    for key, value in named:
        found = re.fullmatch(r"[A-Za-z](?:\(([A-Za-z])\)|_([A-Za-z]))", key)
        letter = found and (found[1] or found[2])
        if letter and letter in used[key] and ("x" not in used[key] or letter == "x"):
            value = re.sub(r"\\[A-Za-z]+|[A-Za-z]", lambda each, old=letter: "x" if each[0] == old else each[0], value)
            key = key[0] + key[1:].replace(letter, "x")
        done.append((key, value))
    return done


def _unnamed(gold: list[str], answer: list[str]) -> tuple[list[str], list[str]]:
    """Without names that need not be compared; where the same names have values on both sides, these in one order."""
    named = _named(gold), _named(answer)
    if not named[0] and not named[1]:
        return gold, answer
    if not named[0] or not named[1]:
        with_names, without = (named[0] or named[1] or []), (answer if named[0] else gold)
        if any(re.search(r"[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])", part) for part in without):
            return gold, answer
        values = [value for _, value in with_names]
        different = len({key for keys, _ in with_names for key in keys}) == len(values) > 1
        if different and len(without) == 1 and len(_inside(without[0], "()")) == len(values):
            values = [f"({', '.join(values)})"]
        if named[0] and different and len(without) == len(values):
            return [f"({', '.join(values)})"], [f"({', '.join(without)})"]  # unnamed, in the order of the names
        return (values, without) if named[0] else (without, values)
    one, other = (_renamed([(key, value) for keys, value in side for key in keys]) for side in named if side)
    for described, names in ((one, {name for name, _ in other}), (other, {name for name, _ in one})):
        for i, (name, value) in enumerate(described):  # m_{\max} may be called m
            if re.search(r"_\\?[A-Za-z]{3,}$", name) and name.split("_")[0] in names:
                described[i] = (name.split("_")[0], value)
    if dict(one).keys() != dict(other).keys():
        return gold, answer
    if len(dict(one)) == 1:
        return [value for _, value in one], [value for _, value in other]
    if not len(dict(one)) == len(one) == len(other):
        return gold, answer
    return [f"({', '.join(value for _, value in one)})"], [f"({', '.join(dict(other)[name] for name, _ in one)})"]


RELATION = r"\\(?:le|ge|ne)(?![A-Za-z])|[<>=]"


def _as_sets(one: str, other: str) -> tuple[str, str]:
    """Inequalities as the sets they describe, beside a set or an inequality for the same thing."""
    sides = _solutions(one), _solutions(other)
    if sides[0] and sides[1]:
        return (sides[0][1], sides[1][1]) if sides[0][0] == sides[1][0] else (one, other)
    for (found, text), turned in (((sides[0], other), False), ((sides[1], one), True)):
        if found is None or not NAME.fullmatch(found[0]):
            continue  # `2x < 6` does not say what x is
        subject, values = re.fullmatch(r"(?:(.*)\\in(?![A-Za-z]))?(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        if re.match(r"[(\[]|\\\{|\\mathbb", values.strip()) and (not subject or _key(subject) == found[0]):
            return (values.strip(), found[1]) if turned else (found[1], values.strip())
    return one, other


def _key(text: str) -> str:
    return re.sub(r"[\s{}]", "", text)


def _solutions(text: str) -> tuple[str, str] | None:
    """What some inequalities are about, and the set that they describe, None if they are not of this kind."""
    if not re.search(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])", text):
        return None
    union, about = [], set()
    for case in _split(text, r"(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z])")[::2]:
        rays = [
            _ray(each) for each in _split(case, r",|(?<![A-Za-z\\])and(?![A-Za-z])|\\land(?![A-Za-z])")[::2] if each
        ]
        if not rays or None in rays:
            return None
        found = sorted((ray for ray in rays if ray is not None), key=lambda ray: ray[1].startswith(ALL))
        without = [ray[1] for ray in found[1:] if ray[1].startswith(ALL)]
        if len(without) < len(found) - 1:  # a comma between two rays may mean `and` as well as `or`
            return None
        about |= {ray[0] for ray in found}
        union.append(found[0][1] + "".join(each.removeprefix(ALL) for each in without))
    return (about.pop(), r" \cup ".join(union)) if len(about) == 1 else None


ALL = r"(-\infty, \infty)"


def _ray(text: str) -> tuple[str, str] | None:
    r"""`3 < x \le 4` as what it is about, and the interval."""
    pieces = _split(text, RELATION)
    signs = [{r"\le": "<]", r"\ge": ">]", "<": "<)", ">": ">)"}.get(sign, sign) for sign in pieces[1::2]]
    terms = pieces[::2]
    if not all(terms) or len(terms) not in (2, 3):
        return None
    if len(terms) == 3:
        if signs[0][0] != signs[1][0] or signs[0][0] not in "<>" or not _letters(terms[1]):
            return None
        if signs[0][0] == ">":
            terms, signs = terms[::-1], signs[::-1]
        return _key(terms[1]), f"{'[' if signs[0][1] == ']' else '('}{terms[0]}, {terms[2]}{signs[1][1]}"
    if bool(_letters(terms[0])) == bool(_letters(terms[1])):
        return None
    (subject, bound), sign = terms, signs[0]
    if _letters(bound):
        subject, bound = bound, subject
        sign = sign.translate(str.maketrans("<>", "><"))
    closes, opens = (sign[1:] or ")"), "[" if sign[1:] == "]" else "("
    size = re.fullmatch(r"(?:\||\\lvert)([^|]*?)(?:\||\\rvert)", subject)
    if size and sign[0] in "<>":
        inside, outside = (
            f"{opens}-({bound}), {bound}{closes}",
            rf"(-\infty, -({bound}){closes} \cup {opens}{bound}, \infty)",
        )
        return _key(size[1]), inside if sign[0] == "<" else outside
    if sign[0] in "<>":
        return _key(subject), f"(-\\infty, {bound}{closes}" if sign[0] == "<" else f"{opens}{bound}, \\infty)"
    return _key(subject), rf"\{{{bound}\}}" if sign == "=" else rf"{ALL} \setminus \{{{bound}\}}"
