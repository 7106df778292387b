"""The process that compares two answers by math-verify: one JSON line in, one word out.

It is run as a file and imports nothing of this package, so that it starts in half a second and owes nothing to its parent.
It ends with its input, which the system closes when the parent dies.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress


LARGEST = 10_000
"""Characters of two answers together that are still compared."""

MEMORY = 4 * 2**30
"""Bytes of address space; what needs more dies, and is undecided."""


def compare(gold: str, answer: str) -> str:
    """`equal`, `different`, or `undecided` where one of them cannot be read."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    kinds = [LatexExtractionConfig(), ExprExtractionConfig(), StringExtractionConfig()]
    read = []
    for text in (gold, answer):
        found = parse(f"${text}$", extraction_config=kinds, parsing_timeout=None, raise_on_error=False)  # type: ignore[arg-type]
        # The last of what is found is the text itself, which is no reading of it.
        read.append([each for each in found if not isinstance(each, str)] or found)
    if not read[0] or not read[1]:
        return "undecided"
    if verify(read[0], read[1], timeout_seconds=None, raise_on_error=False):
        return "equal"
    return "undecided" if all(isinstance(each, str) for side in read for each in side) else "different"


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
