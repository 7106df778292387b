r"""Problems of reasoning-gym (Apache-2.0) in the form of the procedural ones, for kinds that our own families lack.

The families here answer in a number or a word that is right or wrong as a string, pose a problem in a few
milliseconds, stay under 700 characters, and begin with words of their own, by which `skeleton_of` knows them.
`gsm_symbolic` is left out, though it alone brings worked solutions: at least 38 of its 85 templates resemble test
problems of GSM8K, so a student of it could not be evaluated there.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any


# Each family, and how all of its problems begin.
OPENINGS = {
    "base_conversion": "Your task is to convert a number between two different bases.",
    "binary_alternation": "Given a binary string, return the minimum number of character swaps",
    "chain_sum": "State the final answer to the following arithmetic problem:",
    "color_cube_rotation": "A cube has:\n- a ",
    "count_bits": "How many 1 bits are there in the binary representation of the number",
    "count_primes": "Count how many prime numbers there are between",
    "decimal_arithmetic": "Please solve this problem to a maximum of 12 significant digits",
    "dice": "I have these dice: 1d20,",
    "gcd": "Find the Greatest Common Divisor (GCD) of these numbers:",
    "isomorphic_strings": "Two strings are isomorphic if the characters in one string can be replaced",
    "largest_island": "You are given the following ",
    "lcm": "Find the Least Common Multiple (LCM) of these numbers:",
    "leg_counting": "Your task is to count how many legs there are in total",
    "letter_counting": 'How many times does the letter "',
    "products": "Solve the following multiplication:",
    "ransom_note": "Given two strings representing a ransom note and a magazine,",
    "self_reference": "Given the truthfulness of these statements, please tell me the number of possible solutions",
    "syllogism": "Consider these statements:\n1. ",
}
SKELETONS = tuple(f"reasoning_gym/{family}" for family in OPENINGS)


def problem(family: str, seed: int) -> dict[str, Any]:
    r"""One problem of a family of reasoning-gym: it depends on family, seed and the version of reasoning-gym alone.

    Args:
        family: One of `OPENINGS`.
        seed: Any integer.

    Returns:
        A row of `procedural.generate` without its id: `prompt`, `completion` (the answer in a `\boxed{}`, no steps),
        `answer`, `family` ("reasoning_gym"), `skeleton` ("reasoning_gym/gcd") and no `numbers`.

    Raises:
        ValueError: An unknown family, or reasoning-gym is not installed.

    Example:
        >>> problem("lcm", 3)["answer"]  # doctest: +SKIP
        '2842'
    """
    if family not in OPENINGS:
        raise ValueError(f"unknown family {family!r} of reasoning-gym; known here are {', '.join(OPENINGS)}")
    posed = require().create_dataset(family, size=1, seed=seed)[0]
    return {
        "prompt": posed["question"].strip(),
        "completion": f"The answer is \\boxed{{{posed['answer']}}}.",
        "answer": posed["answer"],
        "family": "reasoning_gym",
        "skeleton": f"reasoning_gym/{family}",
        "numbers": [],
    }


def skeleton_of(prompt: str) -> str | None:
    """The skeleton of a problem of these families, by its first words; None for any other text.

    Example:
        >>> skeleton_of("Solve the following multiplication: 4 * 5. Give only the result.")
        'reasoning_gym/products'
    """
    family = next((family for family, opening in OPENINGS.items() if prompt.startswith(opening)), None)
    return family and f"reasoning_gym/{family}"


def version() -> str:
    """The version of reasoning-gym, on which problems depend.

    Raises:
        ValueError: It is not installed.
    """
    return require() and metadata.version("reasoning-gym")


def require() -> Any:
    """The library, which takes a moment to import.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return import_module("reasoning_gym")
    except ModuleNotFoundError as error:
        raise ValueError('problems of reasoning-gym need it: pip install "hf-prism[gym]"') from error
