"""Natural language inference: does the premise entail the hypothesis, contradict it, or neither?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..samples import RowError, near
from ..verification import Vote, after_thinking, check_thresholds, label_vote, last_boxed
from .blocks import DELIMITER
from .task import Task, column


LABELS = ("entailment", "neutral", "contradiction")
TWO_LABELS = ("entailment", "not_entailment")
NOT_ENTAILED = r"\b(?:not|non|no)[\s_-]*(?:an?\s+)?entail\w*"
SPOKEN = {
    "entails": "entailment",
    "entailed": "entailment",
    "contradicts": "contradiction",
    "contradicted": "contradiction",
}


class NLITask(Task):
    """Pairs of premise and hypothesis: labelled several times, the label of the majority is taken.

    Rows have `premise`, `hypothesis` and `label` for encoders, and the same as `prompt` and `completion` (the label) for
    causal models; `answer` is the label.

    Args:
        min_agreement: Least share of the labels that must agree.
        min_votes: Least number of them.

    Example:
        >>> task = NLITask()
        >>> pair = {"premise": "It rains.", "hypothesis": "The street is wet."}
        >>> task.vote(pair, ["Label: neutral", "neutral", "Label: entailment"]).answer
        'neutral'
    """

    name = "nli"
    sections = ("Premise", "Hypothesis")
    extra_columns = ("premise", "hypothesis", "label")

    def __init__(self, *, min_agreement: float = 0.5, min_votes: int = 1) -> None:
        check_thresholds(min_agreement, min_votes)
        self.min_agreement, self.min_votes = min_agreement, min_votes

    @property
    def settings(self) -> dict[str, Any]:
        return {"min_agreement": self.min_agreement, "min_votes": self.min_votes}

    def instructions(self, shown: int, wanted: int) -> str:
        return f"""\
Below are {shown} pairs of a premise and a hypothesis, for the question whether the premise entails the hypothesis,
contradicts it, or leaves it open. Write {wanted} new pairs in the same spirit, as hard as these or harder. Each new pair must
- need reasoning of its own: no example with other names or words,
- be settled by the premise and common knowledge alone.
Write no labels. Put a line {DELIMITER} before each pair and after the last, and begin its parts with [[Premise]] and with
a line [[Hypothesis]], as below."""

    def solution_prompt(self, candidate: Mapping[str, str]) -> str:
        return (
            f"{_question(candidate)}\n\nReason briefly. Then write a last line with `Label:` and one of these words: "
            f"{', '.join(LABELS)}."
        )

    def vote(self, candidate: Mapping[str, str], solutions: Sequence[str | None]) -> Vote:
        labels = [None if solution is None else label_of(solution) for solution in solutions]
        return label_vote(labels, min_agreement=self.min_agreement, min_votes=self.min_votes)

    def row(self, candidate: Mapping[str, str], solution: str, answer: str) -> dict[str, str]:
        pair = {name: candidate[name] for name in ("premise", "hypothesis")}
        return {"prompt": _question(candidate), "completion": answer, "answer": answer, **pair, "label": answer}

    def seed_row(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
        pair = {name: column(row, [name], where) for name in ("premise", "hypothesis")}
        if isinstance(row.get("label"), int):
            raise RowError(
                f"{where}: 'label' is the number {row['label']!r}, and which label that is differs from dataset to dataset. "
                f"Turn the column into words: {', '.join(LABELS)}."
            )
        label = column(row, ["label"], where).strip().lower()
        if label not in LABELS:
            raise RowError(f"{where}: the label {label!r} is none of {', '.join(LABELS)}{near(label, LABELS)}.")
        return self.row(pair, label, label)


def label_of(text: str, labels: Sequence[str] = LABELS) -> str | None:
    r"""The label that an answer ends with: in its last `\boxed{}`, after its last `Label:`, or as its only one.

    Args:
        text: The answer; what a model thinks before `</think>` does not count.
        labels: Those of inference, or `TWO_LABELS`, to which neutral and contradiction are `not_entailment`.

    Example:
        >>> label_of("It does not follow. Label: **Neutral**."), label_of("neutral or entailment?")
        ('neutral', None)
        >>> label_of("Label: non-entailment", TWO_LABELS)
        'not_entailment'
    """
    answer = after_thinking(text)
    if answer is None:
        return None
    answer = re.sub(r"[*`]|\\(?=_)", "", answer)
    marked = re.findall(r"\b(?:label|answer)\W*(?:is|=)?\W*((?:no[nt]?[\s_-]+(?:an?\s+)?)?\w+)", answer, re.IGNORECASE)
    for part in filter(None, (last_boxed(answer), marked[-1] if marked else None, answer)):
        rest, denials = re.subn(NOT_ENTAILED, " ", part.lower())
        found = {SPOKEN.get(word, word) for word in re.findall(r"[a-z]+", rest)} & set(LABELS)
        if TWO_LABELS[1] in labels:
            found = {label if label == TWO_LABELS[0] else TWO_LABELS[1] for label in found}
            found |= {TWO_LABELS[1]} if denials else set()
        if len(found) == 1:
            return found.pop()
        if denials and not found:
            break  # it says what it is not
    return None


def _question(pair: Mapping[str, str]) -> str:
    return (
        f"Premise: {pair['premise']}\nHypothesis: {pair['hypothesis']}\n"
        "Does the premise entail the hypothesis, contradict it, or is it neutral?"
    )
