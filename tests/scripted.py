"""Models written down in a test: what they answer depends on the request alone, as that of a seeded model does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from hf_prism.generation import Request, Response


KINDS = {
    "sum": ("Ann has {a} apples and gets {b} more. How many apples has she now?", lambda a, b: a + b),
    "rest": ("Of {a} birds on a wire, {b} fly away; how many stay?", lambda a, b: a - b),
    "rows": ("A hall has {a} rows of {b} chairs. Count the chairs.", lambda a, b: a * b),
    "share": ("{a} coins are shared by {b} friends. What is left over?", lambda a, b: a % b),
    "twice": ("Double {a}, then add {b}. What number is it?", lambda a, b: 2 * a + b),
    "legs": ("In a yard are {a} dogs and {b} hens. How many legs is that?", lambda a, b: 4 * a + 2 * b),
}


def problem_of(kind: str, a: int, b: int) -> tuple[str, int]:
    template, value = KINDS[kind]
    return template.format(a=a, b=b), value(a, b)


def seeds(count: int = 12) -> list[dict[str, Any]]:
    """Seeds of two kinds mostly, as real pools are."""
    rows = []
    for i in range(count):
        kind = ["sum", "sum", "sum", "rest"][i % 4]
        prompt, answer = problem_of(kind, 20 + i, 3 + i % 7)
        rows.append({"id": f"seed-{i}", "prompt": prompt, "completion": f"It is \\boxed{{{answer}}}.", "answer": str(answer)})  # fmt: skip
    return rows


class Scripted:
    """A model whose answers a function gives.

    Args:
        name: Of the model.
        answer: From a request to the text of the response, or to a response.
        sent: A file in which every request that is really sent leaves a line; for counting across processes.
        pace: Seconds that an answer takes.
    """

    def __init__(
        self, name: str, answer: Callable[[Request], str | Response], sent: Path | None = None, pace: float = 0.0
    ) -> None:
        self.name, self.answer, self.sent, self.pace = name, answer, sent, pace
        self.requests: list[Request] = []

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        for i, request in enumerate(requests):
            self.requests.append(request)
            if self.sent:
                with self.sent.open("a") as file:
                    file.write(json.dumps([self.name, request.seed]) + "\n")
            time.sleep(self.pace)
            answer = self.answer(request)
            yield i, answer if isinstance(answer, Response) else Response(answer, "stop", 10, 5)


def write_problems(request: Request) -> str:
    """Two problems of the kinds above, now and then something that cannot be read."""
    draw = Random(request.seed)
    if draw.random() < 0.05:
        return "I am sorry, I cannot do that."
    blocks = []
    for _ in range(2):
        kind = draw.choices(list(KINDS), weights=[8, 4, 2, 2, 1, 1])[0]
        blocks.append(f"---\n[[Problem]]\n{problem_of(kind, draw.randint(20, 90), draw.randint(2, 19))[0]}")
    return "Here they are.\n" + "\n".join(blocks) + "\n---"


def true_answer(text: str) -> int:
    for template, value in KINDS.values():
        pattern = re.escape(template).replace(r"\{a\}", r"(\d+)").replace(r"\{b\}", r"(\d+)")
        if found := re.search(pattern, text):
            return value(*map(int, found.groups()))
    raise AssertionError(text)


def solve(request: Request) -> str:
    """The right answer most of the time, a wrong one, or none."""
    draw = Random(request.seed)
    answer = true_answer(request.messages[-1]["content"])
    luck = draw.random()
    if luck < 0.1:
        return "I do not know."
    if luck < 0.2:
        answer += draw.randint(1, 3)
    return f"<think>Let me see.</think>It is \\boxed{{{answer}}}."


def writer(sent: Path | None = None, pace: float = 0.0) -> Scripted:
    return Scripted("scripted-writer", write_problems, sent, pace)


def solver(sent: Path | None = None, pace: float = 0.0) -> Scripted:
    return Scripted("scripted-solver", solve, sent, pace)
