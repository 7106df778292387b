# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Trains the base of a study: half a million parameters that solve chains of one operation, however long, and no others.

Run as (one core):

    OMP_NUM_THREADS=1 python examples/study/train_base.py math --float32 --minutes 9 --output docs/evidence/bases/math
    OMP_NUM_THREADS=1 python examples/study/train_base.py nli --float32 --minutes 12 --output runs/bases/nli
    OMP_NUM_THREADS=1 python examples/study/train_base.py nli --float32 --minutes 9 --start runs/bases/nli --seed 2 \\
        --output docs/evidence/bases/nli

It has seen every operation or rule, both families, every wording, names and objects of all styles, and up to four steps of
one and the same operation; a third of its rows ask it to repeat random words, from which it learns to copy. What it has not
seen is two different operations in one problem: that is left to the students, who are trained from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from random import Random
from types import ModuleType

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


sys.path.insert(0, str(Path(__file__).parents[1]))

import train_embedded
from make_pool import GRAMMARS, is_plain, kinds_of
from train_embedded import answers, batches, build_model, train, train_tokenizer

from hf_prism.tasks import deductions
from hf_prism.tasks.lexicon import NAMES, OBJECTS
from hf_prism.tasks.styles import style


VOCABULARY, WIDTH, BATCH = 1024, 96, 6
WORDS = (*NAMES, *OBJECTS, *deductions.CLAIMS.words, *deductions.PLACES.words)
PEAK_RATE = 4e-3
REPHRASED = 0.4  # of the problems speak in the wordings that styles keep back
REPEATED = 0.35  # of the rows


def problems(grammar: ModuleType, seed: int) -> Iterator[dict]:
    """Endless problems whose steps are all of one kind; half of them have one step."""
    kinds = [
        [kind for family in grammar.FAMILIES for kind in kinds_of(grammar, family, steps) if is_plain(kind)]
        for steps in (1, 2, 3, 4)
    ]
    for index in count():
        random = Random(f"{seed}/{index}/base")
        voice = style(random.randrange(10**6), random, rephrased=random.random() < REPHRASED)
        steps = random.choice((1, 1, 1, 2, 3, 4))
        row = grammar.pose(random.choice(kinds[steps - 1]), random, voice)
        if row.get("label") != "neutral":
            yield row


def pairs(grammar: ModuleType, seed: int) -> Iterator[tuple[str, str]]:
    """Prompts and completions: problems, and words to repeat. Words that nothing else foretells must be copied."""
    for index, row in enumerate(problems(grammar, seed)):
        yield row["prompt"], row["completion"]
        random = Random(f"{seed}/{index}/repeat")
        if random.random() < REPEATED / (1 - REPEATED):
            text = " ".join(random.choices(WORDS, k=random.randint(6, 16)))
            yield f"Repeat: {text}", text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=GRAMMARS)
    parser.add_argument("--output", type=Path, required=True, help="folder of the model and tokenizer")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--width", type=int, default=WIDTH, help="hidden size")
    parser.add_argument("--start", type=Path, help="go on with a model that is there, on the rows of another seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="without autocast to bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train_embedded.PEAK_RATE = PEAK_RATE
    grammar = GRAMMARS[args.study]
    if args.start:
        tokenizer = AutoTokenizer.from_pretrained(args.start)
        model = AutoModelForCausalLM.from_pretrained(args.start, dtype=torch.float32)
    else:
        texts = (f"{prompt}\n{completion}" for prompt, completion in islice(pairs(grammar, args.seed), 20_000))
        tokenizer = train_tokenizer(texts, VOCABULARY)
        model = build_model(tokenizer, args.seed, args.width)
    train(model, tokenizer, batches(tokenizer, pairs(grammar, args.seed), args.seed, BATCH), args)
    tokenizer.padding_side = "left"
    rows = list(islice(problems(grammar, args.seed + 1), 400))
    right = sum(
        found == row["answer"] for found, row in zip(answers(model.eval(), tokenizer, rows), rows, strict=True)
    )
    print(f"{right / len(rows):.1%} of {len(rows)} new problems of one operation")


if __name__ == "__main__":
    main()
