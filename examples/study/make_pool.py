# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Writes the pool and the benchmarks of a controlled study: problems of known reasoning, in known words, all verified.

Run as (half a minute):

    python examples/study/make_pool.py math --output runs/study/math
    python examples/study/make_pool.py nli --output runs/study/nli

The pool has rows of 40 skeletons of two and three steps in every style, with the columns `skeleton` and `style`; none of
them repeats one and the same operation, which is what the base of the students knows (`train_base.py`). The benchmarks have other styles than the pool:

    in_distribution   skeletons of the pool
    held_out          skeletons of as many steps, none of them in the pool
    longer            four steps
    other_family      two and three steps of the family that the pool has not got
    rephrased         skeletons of the pool in wordings that no row of the pool has

`--replication` makes the pool and the benchmarks of the replication: another split of the skeletons, other styles and
other numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from types import ModuleType

from datasets import Dataset

from hf_prism.rows import write_parquet
from hf_prism.tasks import chains, deductions
from hf_prism.tasks.styles import style


GRAMMARS: dict[str, ModuleType] = {"math": chains, "nli": deductions}
OUTER = {"math": ("events", "people"), "nli": ("claims", "places")}  # the family of the pool, and the other
STEPS = (2, 3)
POOLED, STYLES, ROWS = 40, 16, 640
PROBLEMS = 200
FEWEST_NUMBERS = 100  # that a skeleton of the pool can be posed with: of `///` there are too few for a subset


RULES = frozenset("anoud")  # of deductions: all, none, only, unless, differ


def kinds_of(grammar: ModuleType, family: str, steps: int) -> list[str]:
    """The skeletons that a study is about."""
    every = grammar.skeletons(family, steps)
    return [kind for kind in every if grammar is chains or set(kind.partition("/")[2][1:]) <= RULES]


def is_plain(kind: str) -> bool:
    """Whether a skeleton has one operation, or one rule, only: those the base of the study has been trained on."""
    operations = kind.partition("/")[2]
    return len(set(operations if kind.startswith(chains.FAMILIES) else operations[1:])) == 1


class Split:
    """Which skeletons and styles are for training, and which are for benchmarks."""

    def __init__(self, study: str, seed: int) -> None:
        self.grammar, self.seed = GRAMMARS[study], seed
        family, self.other = OUTER[study]
        kinds = [kind for steps in STEPS for kind in kinds_of(self.grammar, family, steps) if self.is_new(kind)]
        Random(f"{seed}/split").shuffle(kinds)
        self.pooled, self.held_out = kinds[:POOLED], kinds[POOLED:]
        self.longer = [kind for kind in kinds_of(self.grammar, family, 4) if not is_plain(kind)]
        self.elsewhere = [
            kind for steps in STEPS for kind in kinds_of(self.grammar, self.other, steps) if not is_plain(kind)
        ]
        first = 1000 * seed
        self.styles, self.new_styles = range(first, first + STYLES), range(first + STYLES, first + 200)

    def is_new(self, kind: str) -> bool:
        """Whether a skeleton has several operations, and can be posed with many different numbers, or with none."""
        if is_plain(kind) or self.grammar is deductions:
            return not is_plain(kind)
        posed = [self.grammar.pose(kind, Random(number), style(0, Random(0))) for number in range(400)]
        return len({tuple(row["numbers"]) for row in posed}) >= FEWEST_NUMBERS

    def pool(self) -> Iterator[dict]:
        """`ROWS` different problems of every skeleton in every style."""
        for kind in self.pooled:
            for number in self.styles:
                rows = self.problems([kind], [number], "pool")
                yield from (next(rows) for _ in range(ROWS))

    def benchmarks(self) -> dict[str, Sequence[dict]]:
        """By name; no problem of one is in the pool, for the styles are others."""
        kinds = {
            "in_distribution": self.pooled,
            "held_out": self.held_out,
            "longer": self.longer,
            "other_family": self.elsewhere,
            "rephrased": self.pooled,
        }
        found = {}
        for name, each in kinds.items():
            rows = self.problems(each, self.new_styles, name, rephrased=name == "rephrased")
            found[name] = [next(rows) for _ in range(PROBLEMS)]
        return found

    def problems(
        self, kinds: Sequence[str], styles: Sequence[int], stream: str, *, rephrased: bool = False
    ) -> Iterator[dict]:
        """Endless different problems; none is neutral, which no base of this size learns to see (docs/evidence.md)."""
        where, seen = f"{self.seed}/{stream}/{kinds[0]}/{styles[0]}", set()
        for index in range(10**7):
            random = Random(f"{where}/{index}")
            kind, number = random.choice(kinds), random.choice(styles)
            row = self.grammar.pose(kind, random, style(number, random, rephrased=rephrased))
            if row["prompt"] in seen or row.get("label") == "neutral":
                continue
            seen.add(row["prompt"])
            letters = kind.partition("/")[2]
            digest = sha256(f"{row['prompt']}\n{row['completion']}".encode()).hexdigest()[:12]
            columns = {"id": f"{stream}-{digest}", "style": number, "steps": letters, "skills": sorted(set(letters))}
            yield {**{name: value for name, value in row.items() if name != "numbers"}, **columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=GRAMMARS)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--replication", action="store_true", help="other skeletons, styles and numbers")
    args = parser.parse_args()
    split = Split(args.study, 1 if args.replication else 0)
    args.output.mkdir(parents=True, exist_ok=True)
    pool = Dataset.from_list(list(split.pool()))
    write_parquet(pool, args.output / "pool.parquet")
    print(f"{len(pool):,} rows of {len(split.pooled)} skeletons in {STYLES} styles; {len(split.held_out)} held out")
    for name, rows in split.benchmarks().items():
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (args.output / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{len(rows):,} problems of {len({row['skeleton'] for row in rows})} skeletons: {name}.jsonl")


if __name__ == "__main__":
    main()
