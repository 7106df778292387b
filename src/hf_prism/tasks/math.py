r"""Mathematical problems whose answer stands in `\boxed{}`, checked by math-verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..samples import RowError
from ..verification import MathVerifier, Vote, check_thresholds, final_answer, last_boxed, majority_vote
from .blocks import DELIMITER
from .task import Task, column


class MathTask(Task):
    r"""Problems with one final answer: solved several times, the answer that most solutions box is taken.

    Rows have `prompt` (the problem), `completion` (a solution of the majority, `<think>` included) and `answer`.

    Args:
        min_agreement: Least share of the solutions with an answer that must agree.
        min_votes: Least number of them.
        time_limit: Seconds for one comparison of two answers; what takes longer does not count as equal.

    Example:
        >>> task = MathTask()
        >>> task.vote({"problem": "1 + 1?"}, [r"\boxed{2}", r"It is \boxed{2}.", r"\boxed{3}"]).answer
        '2'
    """

    name = "math"
    sections = ("Problem",)

    def __init__(self, *, min_agreement: float = 0.5, min_votes: int = 1, time_limit: float = 5.0) -> None:
        check_thresholds(min_agreement, min_votes)
        self.min_agreement, self.min_votes = min_agreement, min_votes
        self.verifier = MathVerifier(time_limit=time_limit)

    @property
    def settings(self) -> dict[str, Any]:
        return {"min_agreement": self.min_agreement, "min_votes": self.min_votes}

    def instructions(self, shown: int, wanted: int) -> str:
        return f"""\
Below are {shown} math problems. Write {wanted} new problems in the same spirit, as hard as these or harder.
Each new problem must
- need reasoning of its own: no example with other numbers or other names,
- say everything that is needed to solve it, and ask for one thing,
- have a single answer that is a number or a short expression.
Write the problems only, no solutions. Put a line {DELIMITER} before each and after the last, and begin each with [[Problem]]."""

    def solution_prompt(self, candidate: Mapping[str, str]) -> str:
        return (
            f"{candidate['problem']}\n\nThink step by step, and end with the final answer inside \\boxed{{}}, for example "
            "\\boxed{42}."
        )

    def vote(self, candidate: Mapping[str, str], solutions: Sequence[str | None]) -> Vote:
        answers = [None if solution is None else final_answer(solution) for solution in solutions]
        return majority_vote(answers, self.verifier.verify, min_agreement=self.min_agreement, min_votes=self.min_votes)

    def row(self, candidate: Mapping[str, str], solution: str, answer: str) -> dict[str, str]:
        return {"prompt": candidate["problem"], "completion": solution.strip(), "answer": answer}

    def seed_row(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
        prompt = column(row, ["prompt", "problem", "question"], where)
        completion = column(row, ["completion", "solution"], where)
        if "answer" in row:
            answer = column(row, ["answer"], where)
        elif (found := final_answer(completion, or_number="####" in completion)) is not None:
            answer = found
        else:
            raise RowError(
                f"{where}: no answer: there is no column 'answer', and the solution has neither \\boxed{{}} nor ####. Seeds "
                "need answers that can be checked; add a column 'answer', or drop the row."
            )
        return {"prompt": prompt, "completion": completion, "answer": last_boxed(answer) or answer}

    def candidate(self, row: Mapping[str, str]) -> dict[str, str]:
        return {"problem": row["problem"] if "problem" in row else row["prompt"]}

    def check(self) -> None:
        self.verifier.verify("\\frac{1}{2}", "\\frac{2}{4}")  # imports math-verify, or says how to install it

    def close(self) -> None:
        self.verifier.close()
