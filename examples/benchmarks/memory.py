# /// script
# dependencies = ["hf-prism"]
# ///
"""How much memory does featurizing take beyond the model, against a training step on the same rows?

Run as:

    python examples/benchmarks/memory.py                                   # embedded proxy, a batch
    python examples/benchmarks/memory.py --shape 0.5b                      # Qwen2.5-0.5B's shape, random weights
    python examples/benchmarks/memory.py --long 8192 16384 32768           # single long rows
    python examples/benchmarks/memory.py --shape 0.5b --layers 2 --long 8192 32768
    python examples/benchmarks/memory.py --tokens 800 --rounds 1           # a quick look

Every figure comes from a fresh process: the model is loaded and a tiny training step run, which gives the memory
before. Then the contender's first call on two tiny rows ("first call": for the featurizer with its hashes and its check
against autograd, which holds the whole gradient of a row; "kept" is what stays of it, tables and code), and then the
rows once ("GiB more": the peak above the memory before, with what is kept). On a CPU it is resident memory (Linux), on
a GPU what torch allocates. An allocation beyond the budget (--budget, default 90 % of the free memory) is an error, and
reported as one. Rounds are interleaved; long rows are measured once unless --rounds is given.
"""

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import (
    DEVICE,
    Proxy,
    Rows,
    arguments,
    check,
    collate,
    column_mapping,
    describe,
    limit_memory,
    machine,
    number,
    one_line,
    synchronize,
    table,
    train,
    trainable,
    write,
)

from hf_prism.proxy import EncodedRow


TRAINING, CHECKPOINTED, FEATURIZE = "training step", "training step, gradient checkpointing", "featurize"
KEYS = ("model_gib", "before_gib", "first_call_gib", "kept_gib", "extra_gib", "seconds")
PROMPT = 64  # tokens of a long row that are not learned


def long_row(tokens: int, vocabulary: int) -> EncodedRow:
    """A short prompt and a completion as long as a chain of reasoning, of random tokens."""
    ids = torch.randint(3, vocabulary, (tokens,), generator=torch.Generator().manual_seed(tokens)).tolist()
    return EncodedRow(ids, [i >= PROMPT for i in range(tokens)])


def work(options: argparse.Namespace, folder: Path) -> tuple[str, Callable[[], None], Callable[[], None], float]:
    """What is worked on, the contender's work, the same on a tiny batch, and the model's weights in GiB."""
    positions = max(options.long_tokens, 4096) if options.long_tokens else None
    proxy = Proxy(folder, options.shape, options.dtype, options.layers, positions)
    mapping = column_mapping(options)
    featurizer = proxy.featurizer(column_mapping=mapping or None)
    tiny = [long_row(PROMPT + 8, 1000), long_row(PROMPT + 9, 1000)]
    if options.long_tokens:
        encoded = [long_row(options.long_tokens, proxy.model.config.vocab_size)]
        batches, title = [collate(encoded)], proxy.title
    else:
        rows = Rows(featurizer, options.tokens, options.data)
        encoded, batches, title = rows.encoded, rows.batches, f"{proxy.title}; {rows.title}"
    size = sum(parameter.numel() * parameter.element_size() for parameter in proxy.model.parameters()) / 2**30

    def step(batches: list) -> None:
        with trainable(proxy.model):
            train(proxy.model, batches)

    step([collate(tiny)])  # the libraries load what they load at their first use, the same for every contender
    if options.measure == FEATURIZE:
        run, warm_up = (
            (lambda: use(featurizer.featurize_rows(encoded))),
            (lambda: use(featurizer.featurize_rows(tiny))),
        )
        return title, run, warm_up, size
    if options.measure == CHECKPOINTED:
        proxy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        proxy.model.train()
    return title, lambda: step(batches), lambda: step([collate(tiny)]), size


def use(columns: dict) -> None:
    assert all(vector is not None for vector in columns["gradient"])


def measure(options: argparse.Namespace) -> dict:
    """In a process of its own: memory with the model loaded, peaks above it, and seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        limit_memory(options.budget)
        title, run, warm_up, model = work(options, Path(temporary) / "proxy")
        before = resident()
        reset_peak()
        warm_up()
        first, kept = peak() - before, resident() - before
        reset_peak()
        started = time.perf_counter()
        run()
        synchronize()
        seconds = time.perf_counter() - started
    figures = {
        "model_gib": model,
        "before_gib": before,
        "first_call_gib": first,
        "kept_gib": kept,
        "extra_gib": peak() - before,
    }
    return {"title": title, "seconds": seconds, **figures}


def resident() -> float:
    if DEVICE == "cuda":
        synchronize()
        return torch.cuda.memory_allocated() / 2**30
    ctypes.CDLL(None).malloc_trim(0)  # what the C library kept of freed memory is not in use
    return _status("VmRSS")


def reset_peak() -> None:
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here


def peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else _status("VmHWM")


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, f"/proc/self/status has no {name}"
    return int(found[1]) / 2**20


def in_fresh_process(name: str, long_tokens: int) -> dict:
    """Run this script again for one figure; a process that fails is its error."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", name, "--long-tokens", str(long_tokens)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if last.startswith("{"):
        return json.loads(last)
    return {"error": (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]}


def summary(name: str, tokens: str, figures: list[dict]) -> dict:
    """Medians over the rounds, or the first error."""
    errors = [figure["error"] for figure in figures if "error" in figure]
    entry = {"contender": name, "rows": tokens, "error": errors[0] if errors else None, "measured": figures}
    if not errors:
        entry |= {key: statistics.median(f[key] for f in figures) for key in KEYS}
    return entry


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "tokens of the batch (default as for speed.py)")
    parser.add_argument("--long", type=int, nargs="+", metavar="TOKENS", help="single rows of so many tokens instead")
    parser.add_argument("--budget", type=float, metavar="GIB", help="memory of a process, the model included (CPU)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--long-tokens", type=int, default=0, help=argparse.SUPPRESS)
    parser.set_defaults(rounds=None)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.long else 5)
    check(options)
    if options.measure:
        try:
            print(json.dumps(measure(options)))
        except Exception as error:  # out of memory, mostly: a result of its own
            print(json.dumps({"error": one_line(error)}))
        return
    contenders = [TRAINING, CHECKPOINTED, FEATURIZE] if options.long else [TRAINING, FEATURIZE]
    described, budget = machine(), options.budget or limit_memory(None)
    print(f"{describe(described)}\nBudget of a process: {budget:.1f} GiB\n", flush=True)
    found = []
    for tokens in options.long or [0]:
        figures: dict[str, list[dict]] = {name: [] for name in contenders}
        for turn in range(options.rounds):
            for name in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
                if not any("error" in figure for figure in figures[name]):
                    figures[name].append(in_fresh_process(name, tokens))
        label = f"one row of {tokens:,}" if tokens else "a batch"
        found += [summary(name, label, figures[name]) for name in contenders]
        print(f"{label}: done", flush=True)
    report(options, described, budget, found)


def report(options: argparse.Namespace, described: dict, budget: float, found: list[dict]) -> None:
    titles = {figure["title"] for entry in found for figure in entry["measured"] if "title" in figure}
    reference = {
        entry["rows"]: entry["extra_gib"] for entry in found if entry["contender"] == TRAINING and not entry["error"]
    }
    lines = []
    for entry in found:
        if entry["error"]:
            lines.append([entry["rows"], entry["contender"], *"------", f"did not run: {entry['error']}"])
            continue
        extras = [figure["extra_gib"] for figure in entry["measured"]]
        share = number(entry["extra_gib"] / reference[entry["rows"]]) if entry["rows"] in reference else "-"
        entry["of_training_step"] = (
            entry["extra_gib"] / reference[entry["rows"]] if entry["rows"] in reference else None
        )
        figures = [number(max(0.0, entry[key])) for key in ("before_gib", "first_call_gib", "kept_gib", "extra_gib")]
        figures += [share, number(entry["seconds"])]
        lines.append(
            [entry["rows"], entry["contender"], *figures, f"{number(min(extras))} to {number(max(extras))} GiB"]
        )
    print(f"\nProxy and rows: {'; '.join(sorted(titles))}\nMedians of {options.rounds} interleaved rounds\n")
    print(
        table(
            [
                "rows",
                "contender",
                "GiB before",
                "first call",
                "kept",
                "GiB more",
                "/ training step",
                "seconds",
                "range",
            ],
            lines,
        )
    )
    name = f"memory-{options.shape}-{options.dtype}-{DEVICE}{'-long' if options.long else ''}.json"
    result = {
        "benchmark": "memory",
        "machine": described,
        "budget_gib": budget,
        "titles": sorted(titles),
        "found": found,
    }
    write(options.output or Path("out/benchmarks") / name, result)


if __name__ == "__main__":
    main()
