r"""Whether two answers are the same, and what most of them say.

Answers are compared by math-verify, in processes of their own: SymPy can run for ever on a short expression, cannot be
stopped from inside, and its timeouts work in the main thread only. A comparison has three outcomes, since a failure to
compare is neither equality nor difference.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from queue import LifoQueue

from .answers import after_thinking as after_thinking
from .answers import final_answer as final_answer
from .answers import last_boxed as last_boxed
from .answers import number, plain, word
from .normal_form import alike
from .worker import LARGEST


STARTS_WITHIN = 60.0
"""Seconds that a worker may take to import math-verify."""


# ---- two answers -----------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    """What comparing two answers came to."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class MathVerifier:
    r"""Compares mathematical answers, in processes that are killed when they take too long.

    Equal texts and plain numbers are compared here; everything else by math-verify in a worker. What it cannot read, takes
    longer than the limit, needs too much memory or is longer than `LARGEST` characters is `UNDECIDED`. May be used from any
    number of threads. Workers end with this process, however it ends.

    Args:
        time_limit: Seconds for one comparison.
        workers: Processes at most; default, one for each core.

    Raises:
        ValueError: a time limit or number of workers that is none.
        ImportError: math-verify is not installed; at the first comparison that needs it.

    Example:
        >>> with MathVerifier() as verifier:
        ...     str(verifier.verify(r"\frac{1}{2}", "0.5"))
        'equal'
    """

    def __init__(self, *, time_limit: float = 5.0, workers: int | None = None) -> None:
        if not 0 < time_limit < float("inf"):
            raise ValueError(f"time_limit must be a number of seconds above 0, got {time_limit!r}.")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers!r}.")
        self.time_limit = time_limit
        self.num_workers = workers or os.cpu_count() or 1
        self._start()

    def _start(self) -> None:
        self._free: LifoQueue[_Worker] = LifoQueue()
        for _ in range(self.num_workers):
            self._free.put(_Worker())

    def verify(self, gold: str, answer: str) -> Verdict:
        """Whether an answer is the right one. The two are not read alike: a set of equations may answer a number.

        Args:
            gold: The right answer, as it stands in a box, with or without dollar signs.
            answer: The answer to judge, likewise.
        """
        gold, answer = plain(gold), plain(answer)
        if not gold or not answer:
            return Verdict.UNDECIDED
        quick = _at_once(gold, answer)
        if quick is not None:
            return quick
        if len(gold) + len(answer) > LARGEST:
            return Verdict.UNDECIDED
        pair = alike(gold, answer)
        if pair is None:
            return Verdict.DIFFERENT
        quick = _at_once(*pair)
        if quick is not None:
            return quick
        worker = self._free.get()
        try:
            return worker.verify(*pair, self.time_limit)
        finally:
            self._free.put(worker)

    def verify_all(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The verdicts of many pairs (gold, answer), on all workers."""
        with ThreadPoolExecutor(self.num_workers) as threads:
            return list(threads.map(lambda pair: self.verify(*pair), pairs))

    def close(self) -> None:
        """End the workers. Another comparison starts new ones."""
        for _ in range(self.num_workers):
            worker = self._free.get()
            worker.stop()
            self._free.put(worker)

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, float | int]:
        return {"time_limit": self.time_limit, "num_workers": self.num_workers}

    def __setstate__(self, state: dict[str, float | int]) -> None:
        self.time_limit, self.num_workers = state["time_limit"], int(state["num_workers"])
        self._start()


class _Worker:
    """A process that answers one question after the other, one JSON line each; started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def verify(self, gold: str, answer: str, time_limit: float) -> Verdict:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            reply = self._ask(json.dumps([gold, answer]), time_limit)
            if reply is None:
                self._kill()
                return Verdict.UNDECIDED
            return Verdict(reply)

    def stop(self) -> None:
        with self._lock:
            self._kill()

    def _start(self) -> None:
        # Not multiprocessing: that would import the caller's main module again, or fork a process that uses CUDA.
        self._process = subprocess.Popen(
            [sys.executable, "-I", os.path.join(os.path.dirname(__file__), "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        ready = self._read(STARTS_WITHIN)
        if ready != "ready":
            self._kill()
            raise ImportError(
                f"answers are compared by math-verify, which cannot be imported here ({ready or 'its process ended'}). "
                "Install it: pip install 'hf-prism[synthesis]'."
            )

    def _ask(self, line: str, time_limit: float) -> str | None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._read(time_limit)

    def _read(self, time_limit: float) -> str | None:
        """The next line of the process, None if it ends or is late."""
        assert self._process is not None and self._process.stdout is not None
        deadline, line = time.monotonic() + time_limit, b""
        descriptor = self._process.stdout.fileno()
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(descriptor, select.POLLIN)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                return None
            part = os.read(descriptor, 65536)
            if not part:
                return None
            line += part
        return line.decode().strip()

    def _kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not sent is not needed
        self._process = None

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self._kill()


BLANKS = r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])|(?<=\s)\s+"
"""White space that parts nothing."""


def _at_once(one: str, other: str) -> Verdict | None:
    """The verdict on what needs no algebra: equal texts, two plain numbers, words; else None."""
    if re.sub(BLANKS, "", one) == re.sub(BLANKS, "", other):
        return Verdict.EQUAL
    for read in (number, word):
        values = read(one), read(other)
        if None not in values:
            # Single letters may be variables that differ from one another, or labels of a choice: different either way.
            return Verdict.EQUAL if values[0] == values[1] else Verdict.DIFFERENT
    return None


# ---- many answers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vote:
    """What several solutions say together.

    Attributes:
        answer: That of the majority, as most of its voters write it; None without one.
        votes: How many say so, or what the largest group has where it is no majority.
        num_valid: How many gave an answer at all.
        agreement: votes / num_valid, 0 where nobody voted.
        winners: Positions of those who voted for the answer, those who write it so first.
        problem: `"no_answer"` where nobody voted, `"no_majority"` where the votes do not suffice, else None.
    """

    answer: str | None
    votes: int
    num_valid: int
    agreement: float
    winners: tuple[int, ...]
    problem: str | None


def check_thresholds(min_agreement: float, min_votes: int) -> None:
    """Make sure that these can be the limits of a vote.

    Raises:
        ValueError: one is out of its range.
    """
    if isinstance(min_agreement, bool) or not isinstance(min_agreement, int | float) or not 0 <= min_agreement <= 1:
        raise ValueError(f"min_agreement must be a number between 0 and 1, got {min_agreement!r}.")
    if isinstance(min_votes, bool) or not isinstance(min_votes, int) or min_votes < 1:
        raise ValueError(f"min_votes must be a whole number of at least 1, got {min_votes!r}.")


def majority_vote(
    answers: Sequence[str | None],
    equal: Callable[[str, str], Verdict],
    *,
    min_agreement: float = 0.5,
    min_votes: int = 1,
) -> Vote:
    """Count equal answers together. None abstains: it is no vote, and not counted among those who voted.

    Answers are equal if a chain of equal ones connects them, so that their order does not matter; `UNDECIDED` connects
    nothing. A majority has more votes than any other answer, at least `min_agreement` of those cast, and `min_votes`.

    Args:
        answers: One a solution.
        equal: Compares two answers, such as `MathVerifier().verify`.
        min_agreement: Between 0 and 1.
        min_votes: At least 1.

    Raises:
        ValueError: a limit out of its range.

    Example:
        >>> same = lambda a, b: Verdict.EQUAL if float(a) == float(b) else Verdict.DIFFERENT
        >>> vote = majority_vote(["2", "2.0", None, "3"], same)
        >>> vote.answer, vote.votes, vote.num_valid, vote.winners
        ('2', 2, 3, (0, 1))
    """
    check_thresholds(min_agreement, min_votes)
    cast = [answer for answer in answers if answer is not None]
    if not cast:
        return Vote(None, 0, 0, 0.0, (), "no_answer")
    group = _groups(sorted(set(cast)), equal)
    sizes = Counter(group[answer] for answer in cast).most_common()
    (winner, votes), others = sizes[0], sizes[1:]
    agreement = votes / len(cast)
    if (others and others[0][1] == votes) or agreement < min_agreement or votes < min_votes:
        return Vote(None, votes, len(cast), agreement, (), "no_majority")
    spelled = Counter(answer for answer in cast if group[answer] == winner)
    answer = min(spelled, key=lambda text: (-spelled[text], len(text), text))
    winners = [i for i, each in enumerate(answers) if each is not None and group[each] == winner]
    winners.sort(key=lambda i: answers[i] != answer)
    return Vote(answer, votes, len(cast), agreement, tuple(winners), None)


def label_vote(labels: Sequence[str | None], *, min_agreement: float = 0.5, min_votes: int = 1) -> Vote:
    """`majority_vote` among labels, which are equal if their texts are.

    Example:
        >>> label_vote(["neutral", "entailment", "neutral", None]).answer
        'neutral'
    """
    return majority_vote(labels, lambda a, b: Verdict.DIFFERENT, min_agreement=min_agreement, min_votes=min_votes)


def _groups(answers: Sequence[str], equal: Callable[[str, str], Verdict]) -> dict[str, str]:
    """A representative of each answer, the same for those that are connected."""
    head = {answer: answer for answer in answers}
    for i, one in enumerate(answers):
        for other in answers[i + 1 :]:
            if head[one] != head[other] and equal(one, other) is Verdict.EQUAL:
                old, new = head[other], head[one]
                head = {answer: new if group == old else group for answer, group in head.items()}
    return head
