"""Three small datasets of equal size and rising diversity, for `hf-prism demo`."""

from __future__ import annotations

from typing import Any

from .tasks.procedural import generate


NUM_ROWS = 200


def datasets_of_rising_diversity(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return word problems that vary in numbers only, in numbers and words, and in the reasoning itself.

    The problems are procedural: a simulation of what a generator might write (PAPER, Diverse-Reason and -Persona).

    Example:
        >>> {name: len(rows) for name, rows in datasets_of_rising_diversity().items()}
        {'other numbers': 200, 'other words': 200, 'other reasoning': 200}
    """
    one_kind = {"skeletons": ["story/+-"], "seed": seed}
    return {
        "other numbers": generate(NUM_ROWS, **one_kind, names=["Ann", "Ben", "Tom"], objects=["apples"], wordings=1),
        "other words": generate(NUM_ROWS, **one_kind),
        "other reasoning": generate(NUM_ROWS, seed=seed),
    }
