"""The process that compares two answers by math-verify: one JSON line in, one word out.

It is run as a file and imports nothing of this package, so that it starts in half a second and owes nothing to its parent.
It ends with its input, which the system closes when the parent dies.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from typing import Any


LARGEST = 10_000
"""Characters of two answers together that are still compared."""

MEMORY = 4 * 2**30
"""Bytes of address space; what needs more dies, and is undecided."""


def compare(gold: str, answer: str) -> str:
    """`equal`, `different`, or `undecided` where one of them cannot be read."""
    from math_verify import verify
    from math_verify.grader import is_assignment_relation, is_equation

    one, other = _read(gold), _read(answer)
    if one is None or other is None:
        return "undecided"
    if is_equation(other) and not is_equation(one) and not is_assignment_relation(other) and other.free_symbols:
        return "different"  # `2x = 4` does not say 4
    if not verify(one, other, timeout_seconds=None, raise_on_error=False):
        return "different"
    return "different" if _refuted(one, other) else "equal"


def _read(text: str) -> Any:
    """What a text says in SymPy; None if it cannot be read.

    Not by `math_verify.parse`: that takes the last number of a text it cannot read, drops letters as units, and R for r.
    """
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.grader import should_treat_as_complex

    latex = normalize_latex(text, NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="all"))
    config = ConversionConfig(lowercase_symbols=False)
    real = not should_treat_as_complex(latex)
    try:
        return _exact(latex2sympy(latex, is_real=real, normalization_config=None, conversion_config=config))
    except Exception:  # of ANTLR or SymPy: no reading
        return None


def _exact(read: Any) -> Any:
    """With its decimals as the fractions they are, since math-verify would take six digits for the whole number."""
    from sympy import Float, Rational

    if hasattr(read, "_unsorted_args"):
        return read.func(*[_exact(each) for each in read._unsorted_args])
    return read.xreplace({each: Rational(str(each)) for each in read.atoms(Float)})


def _refuted(one: Any, other: Any) -> bool:
    """Whether numbers tell apart what math-verify calls equal: it takes whatever is below 1e-15 for zero."""
    from sympy import Expr, FiniteSet, Float, Interval, MatrixBase, Tuple

    if isinstance(one, Interval) and isinstance(other, Interval):
        return _refuted(one.start, other.start) or _refuted(one.end, other.end)
    if isinstance(one, Tuple | MatrixBase) and isinstance(other, Tuple | MatrixBase):
        return any(_refuted(*pair) for pair in zip(one, other, strict=True))  # type: ignore[arg-type]
    if isinstance(one, FiniteSet) and isinstance(other, FiniteSet):
        return any(
            all(_refuted(each, partner) for partner in partners.args)
            for group, partners in ((one, other), (other, one))
            for each in group.args
            if each not in partners.args
        )
    if not isinstance(one, Expr) or not isinstance(other, Expr):
        return False
    names = sorted({symbol.name for symbol in one.free_symbols | other.free_symbols})  # type: ignore[attr-defined]
    point = {name: Float("0.7315", 30) + Float("0.1937", 30) * i for i, name in enumerate(names)}
    values = [each.subs({s: point[s.name] for s in each.free_symbols}).evalf(30) for each in (one, other)]  # type: ignore[attr-defined]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    apart = (values[0] - values[1]).as_real_imag()
    size = max(abs(values[0]), abs(values[1]))
    # What should be zero and is not quite has a precision of one bit.
    return any(getattr(part, "_prec", 0) > 1 and abs(part) > Float("1e-12") * size for part in apart)


def main() -> None:
    with suppress(ImportError, ValueError, OSError):  # absent on Windows, or less is allowed already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        logging.disable(logging.CRITICAL)
        compare("\\frac{1}{2}", "0.5")  # grammars are built at the first use
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            verdict = compare(*json.loads(line))
        except Exception:  # whatever SymPy raises says that it cannot compare them
            verdict = "undecided"
        print(verdict, flush=True)


if __name__ == "__main__":
    main()
