"""From the responses to a benchmark to verdicts, and from verdicts to the numbers that are reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .accuracy import accuracy
from .answers import number, plain
from .benchmarks import Item, Items
from .generation import Response
from .tasks.nli import label_of
from .verification import MathVerifier, Verdict, final_answer


if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
"""Of the rules below; part of every result, raised when the same responses get other numbers."""


@dataclass(frozen=True)
class Graded:
    """What became of a response.

    Attributes:
        answer: What it answers; None where no answer was found.
        verdict: `right`; `wrong`; `invalid`, without an answer; `undecided`, an answer that could not be compared. Only
            `right` counts.
    """

    answer: str | None
    verdict: Literal["right", "wrong", "invalid", "undecided"]


def judge(items: Items, item: Item, text: str, verifier: MathVerifier) -> Graded:
    """The answer of a response, and whether it is right.

    Args:
        items: The benchmark.
        item: Of it.
        text: The response.
        verifier: Compares mathematical answers.

    Example:
        >>> from hf_prism.benchmarks import Benchmark, Item, Items
        >>> items = Items(Benchmark("sums", "math", "sums.jsonl"), (Item("1", {"problem": "1 + 1?"}, "2"),))
        >>> judge(items, items.items[0], r"It is \\boxed{2}.", MathVerifier()).verdict
        'right'
    """
    if items.benchmark.kind == "nli":
        label = label_of(text, items.labels)
        return Graded(label, "invalid" if label is None else "right" if label == item.gold else "wrong")
    answer = final_answer(text, or_number=items.benchmark.or_number)
    if answer is None:
        return Graded(None, "invalid")
    found = judge_math(item.gold, answer, item.tolerance, verifier)
    words: dict[Verdict, Any] = {Verdict.EQUAL: "right", Verdict.DIFFERENT: "wrong", Verdict.UNDECIDED: "undecided"}
    return Graded(answer, words[found])


def judge_math(gold: str, answer: str, tolerance: float | None, verifier: MathVerifier) -> Verdict:
    """Whether an answer is right; plain numbers within the tolerance of a benchmark that has one, anything else exactly."""
    if tolerance is not None:
        values = [number(plain(text).rstrip("\\%")) for text in (gold, answer)]
        if values[0] is not None and values[1] is not None:
            return Verdict.EQUAL if abs(values[0] - values[1]) <= Fraction(str(tolerance)) else Verdict.DIFFERENT
    return verifier.verify(gold, answer)


def grade(items: Items, responses: Sequence[Sequence[Response]], verifier: MathVerifier) -> list[list[Graded]]:
    """The verdicts on the responses to each item, in their order.

    Args:
        items: The benchmark.
        responses: For each item, its samples.
        verifier: Compares mathematical answers; all its processes are used.
    """
    with ThreadPoolExecutor(verifier.num_workers) as threads:
        jobs = [
            [threads.submit(judge, items, item, response.text, verifier) for response in samples]
            for item, samples in zip(items.items, responses, strict=True)
        ]
        return [[job.result() for job in samples] for samples in jobs]


def majority(graded: Sequence[Graded], verifier: MathVerifier) -> float:
    """Whether the answer that most samples give is right: 1, 0, or between them where several answers are tied.

    Samples without an answer do not vote. Of tied answers each counts as chosen with equal probability.

    Example:
        >>> votes = [Graded("2", "right"), Graded("2.0", "right"), Graded("3", "wrong"), Graded(None, "invalid")]
        >>> majority(votes, MathVerifier())
        1.0
    """
    right = sum(each.verdict == "right" for each in graded)
    wrong = Counter(each.answer for each in graded if each.answer is not None and each.verdict != "right")
    sizes: dict[str, int] = {}
    for answer, count in sorted(wrong.items(), key=lambda pair: str(pair[0])):
        text = str(answer)
        same = next((head for head in sizes if verifier.verify(head, text) is Verdict.EQUAL), text)
        sizes[same] = sizes.get(same, 0) + count
    largest = max([right, *sizes.values()])
    if right < largest or not right:
        return 0.0
    return 1 / (1 + sum(size == largest for size in sizes.values()))


def summarise(
    items: Items, responses: Sequence[Sequence[Response]], graded: Sequence[Sequence[Graded]], verifier: MathVerifier
) -> dict[str, Any]:
    """The numbers of a benchmark, as JSON values.

    Returns:
        What was asked (`source`, `revision`, `items_digest`, `prompt`); `accuracy` with its errors; `majority` likewise,
        None for a single sample; the shares `invalid`, `undecided` and `truncated`; `errors`, the number of requests that
        were refused; `completion_tokens`, the mean of a response.
    """
    verdicts = [[each.verdict for each in samples] for samples in graded]
    flat = Counter(verdict for samples in verdicts for verdict in samples)
    every = [response for samples in responses for response in samples]
    found = accuracy([[verdict == "right" for verdict in samples] for samples in verdicts])
    voted = None
    if found.samples > 1:
        voted = accuracy([[majority(samples, verifier)] for samples in graded]).as_dict()
    benchmark = items.benchmark
    return {
        "kind": benchmark.kind,
        "source": benchmark.public_source,
        "split": benchmark.split,
        "revision": benchmark.revision,
        "items_digest": items.digest,
        "prompt": benchmark.prompt,
        **found.as_dict(),
        "majority": voted,
        "invalid": flat["invalid"] / len(every),
        "undecided": flat["undecided"] / len(every),
        "truncated": sum(response.finish_reason == "length" for response in every) / len(every),
        "errors": sum(response.error is not None for response in every),
        "completion_tokens": float(np.mean([response.completion_tokens for response in every])),
    }


def verdict_rows(
    items: Items,
    responses: Sequence[Sequence[Response]],
    graded: Sequence[Sequence[Graded]],
    rendered: Sequence[str | None],
) -> Dataset:
    """Everything that was asked, answered and judged, a row a response.

    Args:
        items: The benchmark.
        responses: For each item, its samples.
        graded: Of the same shape.
        rendered: For each item, the text that the model read; None where only a server knows it.
    """
    from datasets import Dataset, Features, Value

    kinds = {
        "id": "string", "sample": "int32", "prompt": "string", "rendered": "string", "response": "string",
        "answer": "string", "gold": "string", "verdict": "string", "finish_reason": "string", "error": "string",
        "completion_tokens": "int32",
    }  # fmt: skip
    rows = [
        _row(items, item, number, rendered[i], response, verdict)
        for i, item in enumerate(items.items)
        for number, (response, verdict) in enumerate(zip(responses[i], graded[i], strict=True))
    ]
    return Dataset.from_list(rows, features=Features({name: Value(kind) for name, kind in kinds.items()}))


def _row(
    items: Items, item: Item, number: int, rendered: str | None, response: Response, graded: Graded
) -> dict[str, Any]:
    return {
        "id": item.id,
        "sample": number,
        "prompt": items.prompt(item),
        "rendered": rendered,
        "response": response.text,
        "answer": graded.answer,
        "gold": item.gold,
        "verdict": graded.verdict,
        "finish_reason": response.finish_reason,
        "error": response.error,
        "completion_tokens": response.completion_tokens,
    }
