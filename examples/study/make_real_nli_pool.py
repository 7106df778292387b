# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-prism"]
# ///
"""Writes a pool of real NLI pairs and samples of the real benchmarks, for a study beside the controlled one.

Run as (seconds; reads the files of `--data`, which are not part of this project):

    python examples/study/make_real_nli_pool.py --data ../shared/data --output runs/study/nli_real

A row's `kind` is its source and what its text turns on, as far as words show it: negation, quantifiers, numbers, and so on.
Kinds of fewer than `FEWEST` rows are left out. Pool: SNLI dev, counterfactual SNLI, ConjNLI (adversarial training set), FOLIO
(training set). Benchmarks: HANS (regenerated), SNLI-hard, ConjNLI dev, FOLIO validation, MNLI; none of them is trained on.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from datasets import Dataset

from hf_prism.benchmarks import NLI_PROMPT
from hf_prism.rows import write_parquet


POOL = {"snli": "snli_dev", "cad": "cad_snli_train", "conjnli": "conjnli_adv_train", "folio": "folio_train"}
BENCHMARKS = {
    "in_distribution": "snli_test",
    "hans": "hans_regenerated",
    "snli_hard": "snli_hard",
    "conjnli": "conjnli_dev",
    "folio": "folio_validation",
    "mnli": "mnli_taxinli_dev",
}
TURNS_ON = {  # the first that fits
    "negation": r"\b(?:no|not|never|nobody|nothing|none|n't|without)\b|n't\b",
    "quantifier": r"\b(?:all|every|each|some|any|most|few|many|several|both)\b",
    "number": r"\b(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten)\b",
    "choice": r"\b(?:or|either|neither|but|nor)\b",
    "comparison": r"\b(?:more|less|than|as|same|\w+er than)\b",
    "time": r"\b(?:before|after|while|when|until|since|during)\b",
    "place": r"\b(?:outside|inside|near|under|over|behind|beside|outdoors|indoors)\b",
    "and": r"\band\b",
}
FEWEST = 512
ITEMS = 200


def kind_of(source: str, pair: dict) -> str:
    """Its source, and what the hypothesis turns on, by its words; else the premise. FOLIO is too small to be parted."""
    if source == "folio":
        return source
    for text in (pair["hypothesis"], pair["premise"]):
        for name, pattern in TURNS_ON.items():
            if re.search(pattern, text, re.IGNORECASE):
                return f"{source}/{name}"
    return f"{source}/plain"


def pairs(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def pool(data: Path) -> list[dict]:
    """All pairs of the training files, by their kind."""
    rows = []
    for source, name in POOL.items():
        for pair in pairs(data / f"{name}.jsonl"):
            kept = {key: pair[key] for key in ("premise", "hypothesis", "label")}
            texts = {"prompt": NLI_PROMPT.format(**kept), "completion": pair["label"]}
            rows.append({"id": f"{source}-{pair['id']}", **texts, **kept, "kind": kind_of(source, pair)})
    frequent = {kind for kind, count in Counter(row["kind"] for row in rows).items() if count >= FEWEST}
    return [row for row in rows if row["kind"] in frequent]


def sample(path: Path) -> list[dict]:
    """`ITEMS` pairs, drawn by a hash of their id; those of two labels keep them."""
    drawn = sorted(pairs(path), key=lambda pair: sha256(str(pair["id"]).encode()).digest())[:ITEMS]
    return [{key: pair[key] for key in ("id", "premise", "hypothesis", "label")} for pair in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = pool(args.data)
    write_parquet(Dataset.from_list(rows), args.output / "pool.parquet")
    for kind, count in sorted(Counter(row["kind"] for row in rows).items()):
        print(f"{count:6,} {kind}")
    for name, file in BENCHMARKS.items():
        items = sample(args.data / f"{file}.jsonl")
        text = "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items)
        (args.output / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
