r"""A simulation of a model that writes problems: it has favourites, and imitates the examples it is shown.

No model runs. Kinds of problems, names, objects and wordings follow Zipf's law, as if a model liked some more than
others: the r-th favourite comes with probability proportional to 1/r**skew. What diversity-seeking synthesis does
against such a habit can so be studied with right answers, at no cost, and with the truth known. It is labelled a
simulation wherever its rows appear, and it says nothing about how any real model behaves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from ..files import write_atomically
from ..generation import Request, Response
from ..samples import near
from . import chains
from .blocks import DELIMITER, RULE, read_blocks, write_block
from .families import FAMILIES
from .favourites import FondVoice, ranked, zipf_rank
from .gym import SKELETONS as GYM_SKELETONS
from .gym import problem as gym_problem
from .gym import skeleton_of as gym_skeleton_of
from .gym import version as gym_version
from .lexicon import NAMES, OBJECTS
from .procedural import LONGER_SKELETONS, SKELETONS, numbered, pose
from .recognition import chain_of, skeleton_of
from .styles import KEPT_BACK


SKEW = 1.5
WRITTEN = (
    *SKELETONS,
    *LONGER_SKELETONS,
    *(kind for family in chains.FAMILIES for steps in (2, 3) for kind in chains.skeletons(family, steps)),
    *GYM_SKELETONS,
)
"""What families stand for where no skeletons are named."""

KNOWN = tuple(dict.fromkeys((*WRITTEN, *chains.SKELETONS)))
MOST_LISTED = 60


class SimulatedGenerator:
    """A simulated generator: its responses depend on the messages and the seed of a request alone.

    For every new problem it takes, with probability `imitation`, the skeleton of one of the examples that it is shown
    and knows how to write; else one of its favourites. A persona gives it other favourite names, objects and wordings,
    and leaves the reasoning as it is, which is what the paper found personas to do.

    Every block brings its solution, which is right. At the rate `noise` each, a block lacks its problem, a solution
    lacks its box, and a response is cut off somewhere in its last block.

    Args:
        families: Families of `procedural`, with their longer chains, of `chains`, with two and three operations, and
            of reasoning-gym, such as `"reasoning_gym/gcd"`.
        skew: Exponent of Zipf's law for the kinds of problems; 0 has no favourites.
        surface_skew: The same for names, objects and wordings.
        imitation: Probability that a problem follows an example.
        noise: Rate of each kind of flaw.
        favourite_seed: Draws what the favourites are.
        skeletons: What it writes, in place of all of the families: nothing else, whatever it is shown.

    Attributes:
        name: All of this; the response changes with it.
        skeletons: What it writes, the favourite first.

    Raises:
        ValueError: An unknown family or skeleton or none, a skew below 0, a probability or rate that is none; or
            reasoning-gym is needed and not installed.

    Example:
        >>> generator = SimulatedGenerator(["story", "groups"], skew=1.0)
        >>> generator.name
        'simulation(families=story+groups, skew=1.0, surface_skew=1.5, imitation=0.5, noise=0.02, favourite_seed=0)'
    """

    def __init__(
        self,
        families: Sequence[str] = tuple(FAMILIES),
        *,
        skew: float = SKEW,
        surface_skew: float = SKEW,
        imitation: float = 0.5,
        noise: float = 0.02,
        favourite_seed: int = 0,
        skeletons: Sequence[str] | None = None,
    ) -> None:
        _require_choice("families", families, (*FAMILIES, *chains.FAMILIES, *GYM_SKELETONS))
        _require_number("skew", skew, math.inf)
        _require_number("surface_skew", surface_skew, math.inf)
        _require_number("imitation", imitation, 1)
        _require_number("noise", noise, 1)
        written = _of(families, WRITTEN)
        if skeletons is not None:
            _require_choice("skeletons", skeletons, _of(families, KNOWN), " in these families")
            written = tuple(skeletons)
        self.skew, self.surface_skew = float(skew), float(surface_skew)
        self.imitation, self.noise = float(imitation), float(noise)
        self.taste = str(favourite_seed)
        self.skeletons = ranked(self.taste, written)
        # What reasoning-gym poses may change with its version.
        source = f"reasoning-gym {gym_version()}, " if set(written) & set(GYM_SKELETONS) else ""
        chosen = "" if skeletons is None else f"skeletons={_digest(skeletons)}, "
        self.name = (
            f"simulation({source}families={'+'.join(families)}, {chosen}"
            f"skew={self.skew}, surface_skew={self.surface_skew}, imitation={self.imitation}, noise={self.noise}, "
            f"favourite_seed={favourite_seed})"
        )

    def check(self) -> None:
        """Nothing can be wrong: it needs no model, and what it needs it had when it was made."""

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield the position and the response of each request, in order; tokens are counted as words.

        Raises:
            ValueError: A request that does not ask for problems in the format of `MathTask`.
        """
        for position, request in enumerate(requests):
            yield position, self._response(request)

    def truth(self, request: Request) -> list[dict[str, Any]]:
        """What the response to a request holds: rows of `procedural.generate`, without ids.

        Returns:
            A row for each problem, and its `flaw`: "no_problem", "no_box", "cut_off" or None.
        """
        wanted, shown, persona = _read(request)
        examples = [kind for block in shown if (kind := kind_of(block, self.skeletons))]
        # Numbers and kinds follow the seed and the examples, so that a persona changes the words and nothing else.
        stream = f"{request.seed}/{json.dumps(shown)}"
        taste = f"{self.taste}/{persona or ''}"
        rows = []
        for index in range(wanted):
            plan = Random(f"{stream}/{index}/plan")
            imitates, draws = plan.random() < self.imitation, plan.random()
            favourite = self.skeletons[zipf_rank(draws, len(self.skeletons), self.skew)]
            skeleton = plan.choice(examples) if imitates and examples else favourite
            flaw = next((flaw for flaw in ("no_problem", "no_box") if plan.random() < self.noise), None)
            rows.append({**make(skeleton, f"{stream}/{index}", taste=taste, skew=self.surface_skew), "flaw": flaw})
        if rows and Random(f"{stream}/cut").random() < self.noise:
            rows[-1]["flaw"] = "cut_off"
        return rows

    def close(self) -> None:
        """Nothing is held."""

    def _response(self, request: Request) -> Response:
        rows = self.truth(request)
        blocks = [f"{DELIMITER}\n{write_block(_sections(row))}\n" for row in rows]
        text, reason = "".join(blocks) + DELIMITER, "stop"
        if rows and rows[-1]["flaw"] == "cut_off":
            end = len("".join(blocks)) - Random(f"{request.seed}/{text}").randrange(1, len(blocks[-1]))
            text, reason = text[:end], "length"
        asked = sum(len(message["content"].split()) for message in request.messages)
        return Response(text, reason, prompt_tokens=asked, completion_tokens=len(text.split()))


def _read(request: Request) -> tuple[int, list[str], str | None]:
    """How many problems are wanted, the examples, and the persona."""
    text = next((each["content"] for each in reversed(request.messages) if each["role"] == "user"), "")
    head, *_ = RULE.split(text, maxsplit=1)
    wanted, persona = re.search(r"\bWrite (\d+) new\b", head), re.search(r"^Persona: (.+)$", head, re.MULTILINE)
    if not wanted or "[[Problem]]" not in head:
        raise ValueError(
            "simulation: the request does not ask for problems in the format of MathTask, with 'Write 2 new' and "
            f"[[Problem]]; it begins {text[:80]!r}. A simulation writes problems and nothing else: it cannot be a "
            "solver, and its blocks bring their solutions."
        )
    blocks = read_blocks(text[len(head) :], ["Problem"], optional=["Solution"])
    return int(wanted[1]), [block["Problem"] for block in blocks if block], persona and persona[1].strip()


def _sections(row: dict[str, Any]) -> dict[str, str]:
    prompt, completion = row["prompt"], row["completion"]
    if row["flaw"] == "no_problem":
        prompt = ""
    if row["flaw"] == "no_box":
        completion = completion.replace(f"\\boxed{{{row['answer']}}}", row["answer"])
    return {"Problem": prompt, "Solution": completion}


def kind_of(prompt: str, among: Collection[str] | None = None) -> str | None:
    """The skeleton of a problem, read from its text; None for any other text.

    Args:
        prompt: The text.
        among: The skeletons it may be of. Without them, what reads as a procedural problem and as one of `chains` is
            the procedural one.

    Example:
        >>> text = "Mary has 12 cups. Mary buys 5 more. How many cups does Mary have now?"
        >>> kind_of(text), kind_of(text, chains.SKELETONS)
        ('story/+', 'events/+')
    """
    found = (read(prompt) for read in (skeleton_of, chain_of, gym_skeleton_of))
    return next((kind for kind in found if kind and (among is None or kind in among)), None)


def make(skeleton: str, stream: str, *, taste: str = "", skew: float = 0.0) -> dict[str, Any]:
    """One problem of a kind, all of it drawn from the random stream of this name."""
    if skeleton in GYM_SKELETONS:
        seed = Random(f"{stream}/numbers").randrange(2**31)
        return gym_problem(skeleton.removeprefix("reasoning_gym/"), seed)
    surface, numbers = Random(f"{stream}/surface"), Random(f"{stream}/numbers")
    family, _, _ = skeleton.partition("/")
    if family in chains.FAMILIES:
        # All wordings but those that are kept back for benchmarks.
        voice = FondVoice(surface, NAMES, OBJECTS, -KEPT_BACK, taste, skew)
        return {**chains.pose(skeleton, numbers, voice), "family": family}
    return pose(skeleton, numbers, FondVoice(surface, NAMES, OBJECTS, None, taste, skew))


def skewed_rows(
    num_rows: int,
    *,
    skew: float = SKEW,
    skeletons: Sequence[str] = (*SKELETONS, *LONGER_SKELETONS),
    seed: int = 0,
    favourite_seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows as of `procedural.generate`, of which some kinds are frequent and most are rare, as in collected data.

    Row i depends on the arguments and i alone. Names, objects and wordings are drawn evenly.

    Args:
        num_rows: Number of rows.
        skew: Exponent of Zipf's law; 0 draws all kinds alike.
        skeletons: Kinds to draw from, those of `chains` and of reasoning-gym too.
        seed: Draws the rows.
        favourite_seed: Draws which kinds are frequent; the same seed gives those of a `SimulatedGenerator`.

    Returns:
        The columns of `procedural.generate`, and `level`, an integer: the steps of the solution, one at least.

    Raises:
        ValueError: An unknown skeleton, none or one twice, or a skew below 0.

    Example:
        >>> skewed_rows(1, skeletons=["story/++-"])[0]["level"]
        4
    """
    _require_choice("skeletons", skeletons, KNOWN)
    _require_number("skew", skew, math.inf)
    order = ranked(str(favourite_seed), tuple(skeletons))
    rows = []
    for index in range(num_rows):
        stream = f"{seed}/{index}/skewed"
        problem = make(order[zipf_rank(Random(f"{stream}/plan").random(), len(order), skew)], stream)
        rows.append({**numbered(index, problem), "level": max(1, problem["completion"].count("\n"))})
    return rows


def write_rows(path: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON, one object a line."""
    write_atomically(Path(path), "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())


def _of(families: Sequence[str], skeletons: Sequence[str]) -> tuple[str, ...]:
    """Those skeletons that are of these families; one of reasoning-gym is a family."""
    return tuple(kind for kind in skeletons if kind in families or kind.split("/")[0] in families)


def _digest(skeletons: Sequence[str]) -> str:
    """The same for any order; a list of them would fill every line of a log."""
    return f"{len(skeletons)}:{sha256(' '.join(sorted(skeletons)).encode()).hexdigest()[:12]}"


def _require_choice(name: str, chosen: Sequence[str], known: Sequence[str], where: str = "") -> None:
    if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"simulation: {name} is {chosen!r}; it must be a list that names at least one, each once")
    for one in chosen:
        if one not in known:
            listed = ", ".join(known[:MOST_LISTED]) + ", ..." * (len(known) > MOST_LISTED)
            raise ValueError(
                f"simulation: {name} has an unknown {one!r}{near(str(one), known)}; known{where} are {listed}"
            )


def _require_number(name: str, value: float, largest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest or value == math.inf:
        limit = "0 or more" if largest == math.inf else f"between 0 and {largest}"
        raise ValueError(f"simulation: {name} is {value!r}; it must be a number, {limit}")
