"""Whole solutions: a response is right only if it is the reference solution, every step of it.

A label of two is guessed right half the time, also by a student whose steps are wrong. Where the steps are known, as in a
grammar, they can be asked for: the accuracy of proofs of ProofWriter (Tafjord, Dalvi and Clark 2021, arXiv 2012.13048).
"""

from __future__ import annotations

from pathlib import Path

from .accuracy import Accuracy, accuracy
from .benchmarks import Benchmark
from .rows import describe, load_rows


def reference_solutions(benchmark: Benchmark, column: str) -> dict[str, str]:
    """The solutions of a benchmark that is a file.

    Args:
        benchmark: Whose source is a file.
        column: Of the file.

    Returns:
        By id of the item, as `benchmarks.read` has it.

    Raises:
        ValueError: The benchmark is no file, it has no such column, or a cell has no text.
    """
    if not Path(benchmark.source).is_file():
        raise ValueError(f"{benchmark.source} is no file, so that it has no column {column!r} with solutions.")
    rows = load_rows(benchmark.source)
    if column not in rows.column_names:
        raise ValueError(
            f"{benchmark.source} has no column {column!r} with the solution of each problem; columns found: "
            f"{', '.join(rows.column_names)}."
        )
    found = {}
    ids = rows["id"][:] if "id" in rows.column_names else [None] * len(rows)
    for place, (text, given) in enumerate(zip(rows[column][:], ids, strict=True)):
        name = str(place if given is None else given)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{benchmark.source}, {describe(place, name)}: {column} is {text!r}, not a solution.")
        found[name] = text
    return found


def whole_accuracy(verdicts: Path, solutions: dict[str, str]) -> Accuracy:
    """The share of responses that are the reference solution, white space at the ends of lines and of the whole aside.

    Args:
        verdicts: Parquet file of an evaluation, `verdicts/NAME.parquet`.
        solutions: By id.
    """
    rows = load_rows(verdicts)
    right = [
        _lines(response or "") == _lines(solutions[name])
        for name, response in zip(rows["id"][:], rows["response"][:], strict=True)
    ]
    return accuracy([[float(each)] for each in right])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]
