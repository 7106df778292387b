"""Benchmarks as tasks of lm-eval, which ask the same prompts and judge by the same rules, so that the numbers are the same.

hf-prism evaluate --model MODEL --benchmarks math500 --output DIR --lm-eval tasks
lm_eval --model hf --model_args pretrained=MODEL --include_path tasks --tasks prism_math500 --apply_chat_template
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .benchmarks import Benchmark, Item, Items, names_of, read
from .files import write_atomically
from .grading import judge
from .verification import MathVerifier


FUNCTIONS = "prism_functions"
IMPORT = f'"""Judges as `hf-prism evaluate` does."""\n\nfrom {__name__} import process_results as process_results\n'


def write_tasks(benchmarks: Sequence[Benchmark], folder: str | Path, max_tokens: int) -> list[Path]:
    """Write a task file and the items of each benchmark.

    Args:
        benchmarks: What `hf_prism.benchmarks.find` gives.
        folder: Where they go, for `--include_path` of lm-eval.
        max_tokens: The longest answer.

    Returns:
        The task files; the task of `math500` is called `prism_math500`.

    Raises:
        ValueError: A benchmark cannot be read.

    Example:
        >>> from hf_prism.benchmarks import find
        >>> write_tasks([find("problems.jsonl")], "tasks", max_tokens=256)  # doctest: +SKIP
        [PosixPath('tasks/prism_problems.yaml')]
    """
    place = Path(folder).expanduser().resolve()
    names = names_of(benchmarks)
    read_ones = [read(benchmark) for benchmark in benchmarks]
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / f"{FUNCTIONS}.py", IMPORT.encode())
    written = []
    for name, items in zip(names, read_ones, strict=True):
        data = place / f"prism_{name}.jsonl"
        lines = [json.dumps(_row(items, item), ensure_ascii=False) for item in items.items]
        write_atomically(data, ("\n".join(lines) + "\n").encode(errors="surrogatepass"))
        written.append(place / f"prism_{name}.yaml")
        # A tag of lm-eval's own YAML; the safe writer knows none.
        text = yaml.safe_dump(_task(name, data, max_tokens), sort_keys=False, allow_unicode=True)
        text += f"process_results: !function {FUNCTIONS}.process_results\n"
        write_atomically(written[-1], text.encode())
    return written


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The verdict on a response, for lm-eval.

    Args:
        doc: A row of the items that `write_tasks` wrote.
        results: The response.
    """
    labels = tuple(Item(str(i), {}, label) for i, label in enumerate(doc["labels"]))
    item = Item(str(doc["id"]), {}, doc["gold"], doc["tolerance"])
    benchmark = Benchmark(doc["benchmark"], doc["kind"], "lm-eval", or_number=doc["or_number"])
    graded = judge(Items(benchmark, labels or (item,)), item, results[0], _verifier())
    return {"accuracy": float(graded.verdict == "right"), "invalid": float(graded.verdict == "invalid")}


@cache
def _verifier() -> MathVerifier:
    return MathVerifier()


def _row(items: Items, item: Item) -> dict[str, Any]:
    is_pairs = items.benchmark.kind == "nli"
    return {
        "id": item.id,
        "prompt": items.prompt(item),
        "gold": item.gold,
        "tolerance": item.tolerance,
        "benchmark": items.benchmark.name,
        "kind": items.benchmark.kind,
        "or_number": items.benchmark.or_number,
        "labels": list(items.labels) if is_pairs else [],
    }


def _task(name: str, data: Path, max_tokens: int) -> dict[str, Any]:
    return {
        "task": f"prism_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{gold}}",
        "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": max_tokens},
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": name == "accuracy"}
            for name in ("accuracy", "invalid")
        ],
        "metadata": {"version": 1.0},
    }
