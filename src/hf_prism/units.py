"""What stands beside the digits of an answer: the base, the unit, degrees, percent."""

from __future__ import annotations

import re
from fractions import Fraction

from .answers import number


BASES = {
    name: str(i) for i, name in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)
}


def one_base(gold: list[str], answer: list[str]) -> tuple[list[str], list[str]] | None:
    """Numerals such as `52_8` as their digits; None where two bases differ. A numeral without one is in that of the other."""
    sides = [[_numeral(part) for part in side] for side in (gold, answer)]
    bases = [{found[1] for found in side if found} for side in sides]
    if bases[0] and bases[1] and bases[0] != bases[1]:
        return None
    left, right = (
        [found[0] if found else part for found, part in zip(side, parts, strict=True)]
        for side, parts in zip(sides, (gold, answer), strict=True)
    )
    return left, right


def _numeral(text: str) -> tuple[str, str] | None:
    """The digits and the base of `52_8`."""
    found = re.fullmatch(r"\(?(?=[A-Z ]*\d)([\dA-Z ]+)\)?_\{?\s*(?:\\text\{)?\s*(?:base\s*)?(\d+|[a-z]+)\s*\}*", text)
    if found is None:
        return None
    base = BASES.get(found[2], found[2])
    return (found[1].replace(" ", ""), base) if base.isdigit() else None


def degrees(text: str, other: str) -> str:
    """Degrees as parts of pi beside radians and in angle functions; without their sign elsewhere."""
    if r"^\circ" not in text:
        return text
    if (r"\pi" in other and r"^\circ" not in other) or re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", text):
        text = re.sub(
            r"((?<![\d.])(?:\d+(?:\.\d+)?|\.\d+)|\\frac\{\d+\}\{\d+\})\s*\^\\circ", r"\\frac{\1 \\pi}{180}", text
        )
    return text.replace(r"^\circ", "")


SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
NO_UNIT = frozenset("or and not than least most between about approximately to half halves pi".split())
UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, sizes in {
        "length": {
            "mm millimeter millimetre": "0.001", "cm centimeter centimetre": "0.01", "dm": "0.1", "m meter metre": "1",
            "km kilometer kilometre": "1000", "in inch inche": "0.0254", "ft foot feet": "0.3048", "yd yard": "0.9144",
            "mi mile": "1609.344",
        },
        "time": {"s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400", "week": "604800"},
        "months": {"month": "1", "year yr": "12"},
        "money": {"dollar $": "1", "cent ¢": "0.01"},
        "mass": {
            "mg milligram": "0.000001", "g gram": "0.001", "kg kilogram": "1", "oz ounce": "0.028349523125",
            "lb pound": "0.45359237",
        },
        "volume": {"ml milliliter millilitre": "0.000001", "l liter litre": "0.001"},
        "morning": {"am": "1"},
        "afternoon": {"pm": "1"},
    }.items()
    for names, size in sizes.items()
    for name in names.split()
}  # fmt: skip
SPEEDS = {"mph": "mile", "kmh": "km", "kph": "km"}
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def _unit(text: str) -> tuple[dict[str, int], Fraction] | None:
    """The dimensions of a unit such as `km/h` or `square inches`, and its size; None if it is not known."""
    dimensions, size, latest, over, power = {}, Fraction(1), Fraction(1), 1, 1
    token: str
    for token in re.findall(r"[A-Za-z¢$]+|\^\s*\{?\s*\d|\S", text):
        if token in ("/", "per"):
            over = -1
        elif token in POWERS:
            power = POWERS[token]
        elif token[0] == "^":
            if not dimensions or not token[-1].isdigit():
                return None
            last = list(dimensions)[-1]
            more = over * (int(token[-1]) - 1)
            dimensions[last], size = dimensions[last] + more, size * latest**more
        elif token not in "*.{}\\" and token != "cdot":
            name = SPEEDS.get(token) or token
            found = UNITS.get(name) or UNITS.get(name.lower()) or UNITS.get(name.lower().removesuffix("s"))
            if found is None:
                return None
            dimension, latest = found
            cubed = 3 if dimension == "volume" else 1
            dimension = "length" if dimension == "volume" else dimension
            dimensions[dimension] = dimensions.get(dimension, 0) + over * power * cubed
            size, power = size * latest ** (over * power), 1
            if name != token:
                dimensions["time"], size = dimensions.get("time", 0) - 1, size / 3600
    return (dimensions, size) if dimensions else None


def _measure(part: str) -> tuple[str, str]:
    """A value and the words for its unit."""
    if money := re.fullmatch(r"([-+]?)\s*\\?\$\s*(.*)", part):
        value, words = _value(money[1] + money[2])
        return value, words or "$"
    return _value(part)


def _value(part: str) -> tuple[str, str]:
    power = r"(?:\s*\^\s*\{?\s*\d\s*\}?)?"
    found = re.fullmatch(
        rf"(.*?[^\s\\(\[{{=+-])\s*((?:\\text\s*\{{[^{{}}]*\}}{power}[\s/.*]*(?:\\cdot)?\s*){{1,6}})", part
    )
    if found:
        value, words = found[1], re.sub(r"\\text\s*\{([^{}]*)\}", r" \1", found[2])
    elif found := re.fullmatch(rf"(.*[\d}})])\s*([A-Za-z]{{2,}}(?:{power}[\s/]+[A-Za-z]+){{0,6}}{power})", part):
        value, words = found[1], found[2]
        bare = number(value) is not None and part[len(value)].isspace()
        if not (bare or _unit(words) or words.split()[0] in SCALES):
            return part, ""
    else:
        return part, ""
    scale, _, rest = words.strip().partition(" ")
    if scale in SCALES:
        return _times(Fraction(SCALES[scale]), value), rest
    return (part, "") if NO_UNIT & set(words.lower().split()) else (value, words)


def one_unit(gold: list[str], answer: list[str]) -> tuple[list[str], list[str]] | None:
    """Values in one unit, where both sides have one; without it, where it is left to the question. None if it cannot be one."""
    sides = [[_measure(part) for part in side] for side in (gold, answer)]
    units = [[_unit(words) for _, words in side] for side in sides]
    of = [{tuple(sorted(each[0].items())) for each in side if each} for side in units]
    if of[0] and of[1]:
        if of[0] != of[1]:
            return None
        for side, found in zip(sides, units, strict=True):
            last = next(each[1] for each in found[::-1] if each) if len(of[0]) == 1 else Fraction(1)  # 3 and 4 cm
            sizes = [each[1] if each else last for each in found]
            side[:] = [(_times(size, value), "") for size, (value, _) in zip(sizes, side, strict=True)]
    return [value for value, _ in sides[0]], [value for value, _ in sides[1]]


def _times(size: Fraction, value: str) -> str:
    if size == 1:
        return value
    known = number(value)
    if known is None:
        return rf"\frac{{{size.numerator}}}{{{size.denominator}}} \cdot ({value})"
    return rf"\frac{{{(size * known).numerator}}}{{{(size * known).denominator}}}"


def percent(gold: list[str], answer: list[str]) -> tuple[list[str], list[str]]:
    """Hundredths for the sign of percent, which a whole number may leave out."""
    sides = [[part.removesuffix(r"\%").strip() for part in side] for side in (gold, answer)]
    signed = [[part.endswith(r"\%") for part in side] for side in (gold, answer)]
    if any(signed[0]) != any(signed[1]) and len(gold) == len(answer):
        values = [[number(part) for part in side] for side in sides]
        with_sign, without = values if any(signed[0]) else values[::-1]
        if all(value is not None and value.denominator == 1 for value in [*with_sign, *without]):
            if with_sign != [100 * value for value in without if value is not None]:
                return sides[0], sides[1]
    left, right = (
        [rf"\frac{{{part}}}{{100}}" if sign else part for part, sign in zip(side, signs, strict=True)]
        for side, signs in zip(sides, signed, strict=True)
    )
    return left, right
