"""Procedural word problems with worked solutions: exact answers, any number of rows, no network.

A row has three independent ingredients, each with its own stream of random numbers:

- the *skeleton*: which family, and which chain of reasoning steps within it (`seed`);
- the *numbers*, or the facts, that fill the skeleton (`number_seed`);
- the *surface*: names, objects and the wording of every sentence (`surface_seed`).

So one can be varied while the others stay, which is what a controlled study of diversity needs. No answer names a
person or an object: it depends on skeleton and numbers alone, whatever the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Any

from .families import CLOSING, FAMILIES, LONGER, Voice
from .lexicon import NAMES, OBJECTS


SKELETONS = tuple(f"{family}/{skeleton}" for family, (_, skeletons) in FAMILIES.items() for skeleton in skeletons)
LONGER_SKELETONS = tuple(f"{family}/{skeleton}" for family, skeletons in LONGER.items() for skeleton in skeletons)
"""Chains of three and more steps: drawn only where they are asked for."""


def generate(
    num_rows: int,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    skeletons: Sequence[str] | None = None,
    names: Sequence[str] = NAMES,
    objects: Sequence[str] = OBJECTS,
    wordings: int | None = None,
    largest: int = 60,
    seed: int = 0,
    number_seed: int | None = None,
    surface_seed: int | None = None,
) -> list[dict[str, Any]]:
    """Generates word problems with worked solutions.

    Row i depends on the arguments and i alone, on any machine: a longer call begins with the rows of a shorter one.

    Args:
        num_rows: number of rows.
        families: families to draw from, evenly; all by default.
        skeletons: skeletons to draw from within these families, such as `"story/+-"`, of `SKELETONS` (all by default)
            and `LONGER_SKELETONS`.
        names: people's names, at least three.
        objects: countable things, in the plural.
        wordings: how many wordings of each sentence to use, at least one; all by default.
        largest: largest number to begin a problem with, at least 15; products and sums go beyond it.
        seed: draws family and skeleton, and stands in for the other two seeds where they are not given.
        number_seed: draws the numbers or facts.
        surface_seed: draws names, objects and wordings.

    Returns:
        Rows with the strings `id`, `prompt`, `completion` (ends in one `\\boxed{answer}`), `answer`, `family` and
        `skeleton`, and `numbers`, the integers that fill the skeleton (empty for entailment).

    Raises:
        ValueError: an unknown family or skeleton or none at all, fewer than three names, no object, no wording, too
            small a `largest`.

    Example:
        >>> row = generate(1, skeletons=["story/+"], seed=3)[0]
        >>> print(row["prompt"], row["completion"], sep="\\n")
    """
    chosen = _choose(families, skeletons)
    if not chosen:
        raise ValueError(f"generate: no skeleton to draw from, got families={families!r}, skeletons={skeletons!r}")
    if len(set(names)) < 3 or not objects or largest < 15 or (wordings is not None and wordings < 1):
        raise ValueError(
            "generate: needs three different names, an object, a wording and largest >= 15; got "
            f"{len(set(names))} names, {len(objects)} objects, wordings={wordings}, largest={largest}"
        )
    number_seed = seed if number_seed is None else number_seed
    surface_seed = seed if surface_seed is None else surface_seed
    rows = []
    for index in range(num_rows):
        plan, draw = Random(f"{seed}/{index}/skeleton"), Random(f"{number_seed}/{index}/numbers")
        voice = Voice(Random(f"{surface_seed}/{index}/surface"), names, objects, wordings)
        family = plan.choice(list(chosen))
        rows.append(numbered(index, pose(plan.choice(chosen[family]), draw, voice, largest)))
    return rows


def _choose(families: Sequence[str], skeletons: Sequence[str] | None) -> dict[str, list[str]]:
    for family in families:
        if family not in FAMILIES:
            raise ValueError(f"generate: unknown family {family!r}; families are {', '.join(FAMILIES)}")
    chosen = {family: [f"{family}/{skeleton}" for skeleton in FAMILIES[family][1]] for family in families}
    if skeletons is None:
        return chosen
    for family in chosen:
        chosen[family] += [f"{family}/{skeleton}" for skeleton in LONGER.get(family, ())]
    known = [skeleton for each in chosen.values() for skeleton in each]
    for skeleton in skeletons:
        if skeleton not in known:
            raise ValueError(f"generate: unknown skeleton {skeleton!r}; skeletons of these families are {known}")
    kept = {family: [skeleton for skeleton in each if skeleton in skeletons] for family, each in chosen.items()}
    return {family: each for family, each in kept.items() if each}


def pose(skeleton: str, draw: Random, voice: Voice, largest: int = 60) -> dict[str, Any]:
    """One problem of a kind: a row of `generate` without its id.

    Args:
        skeleton: one of `SKELETONS` or `LONGER_SKELETONS`.
        draw: draws the numbers or facts.
        voice: draws names, objects and wordings.
        largest: largest number to begin with.
    """
    family, _, name = skeleton.partition("/")
    problem = FAMILIES[family][0](name, draw, largest, voice)
    return {
        "prompt": problem.prompt,
        "completion": "\n".join([*problem.steps, voice.say(CLOSING, answer=problem.answer)]),
        "answer": problem.answer,
        "family": family,
        "skeleton": skeleton,
        "numbers": list(problem.numbers),
    }


def numbered(index: int, problem: dict[str, Any]) -> dict[str, Any]:
    """The problem with an id: its place, and a digest of its text."""
    digest = sha256(f"{problem['prompt']}\n{problem['completion']}".encode()).hexdigest()[:12]
    return {"id": f"procedural-{index}-{digest}", **problem}
