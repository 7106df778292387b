"""Kill runs at random moments, resume them, and compare what they leave with an uninterrupted run: `make soak`.

    python tests/soak.py [--kills 20] [--seed 0] [--output DIR]

A directory is worked on by one process, two ranks or two shards, drawn anew for every attempt, until it is complete; then
the next one is begun. A killed rank takes its launch with it, as launchers do; the other shard goes on. Exit status 1 if
anything was lost, doubled or different, or if a process lost more than the chunk it was at.
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import transformers
from processes import checksums, events, finish, leftovers, recomputed, start, start_ranks

from hf_prism.run_directory import RunDirectory, load_features
from hf_prism.tasks.procedural import generate


NUM_ROWS, SIZES = 400, (1500, 512)  # some fifteen chunks of three or four batches, a few seconds
TEAMS = {
    "1 process": lambda output, rows: [start("embedded", output, rows, sizes=SIZES)],
    "2 ranks": lambda output, rows: start_ranks("embedded", output, 2, rows, sizes=SIZES),
    "2 shards": lambda output, rows: [start("embedded", output, rows, sizes=SIZES, shard=f"{i}/2") for i in (1, 2)],
}


def attempt(team: str, output: Path, rows: list[dict[str, Any]], moment: float, victim: int) -> bool:
    """Start a team and kill one of it after `moment` seconds. Returns whether there was anybody to kill."""
    processes = TEAMS[team](output, rows)
    deadline = time.monotonic() + moment
    while time.monotonic() < deadline and any(process.is_alive() for process in processes):
        time.sleep(0.002)
    killed = processes[victim % len(processes)]
    hit = killed.is_alive()
    if hit:
        os.kill(killed.pid, signal.SIGKILL)
    for process in processes:
        if hit and team == "2 ranks":
            process.terminate()
    statuses = finish(*processes, timeout=600)
    expected = {0, -signal.SIGKILL, -signal.SIGTERM} if hit else {0}
    if not set(statuses) <= expected:
        raise SystemExit(f"{team} ended with {statuses}")
    return hit


def progress(output: Path) -> tuple[int, int]:
    """The chunks that count, and the most that any process began without committing them."""
    config = RunDirectory(output).config()
    return (len(RunDirectory(output).committed()) if config else 0), max(recomputed(output).values(), default=0)


def main() -> int:
    options = _options()
    transformers.utils.logging.disable_progress_bar()
    draw = random.Random(options.seed)
    base = Path(options.output or tempfile.mkdtemp(prefix="soak-"))
    rows = [
        {name: row[name] for name in ("id", "prompt", "completion")} for row in generate(NUM_ROWS, seed=options.seed)
    ]
    began = time.monotonic()
    assert finish(start("embedded", base / "whole", rows, sizes=SIZES)) == [0]
    duration, whole = time.monotonic() - began, checksums(base / "whole")
    num_chunks = len(RunDirectory(base / "whole").committed())
    print(
        f"{NUM_ROWS} rows, {num_chunks} chunks, {duration:.1f} s without interruption; seed {options.seed}; {base}\n"
    )
    print(f"{'kill':>4}  {'run':>3}  {'team':<9}  {'victim':>6}  {'moment':>7}  {'committed':>9}  {'lost chunks':>11}")
    kills, run, wrong = 0, 0, []
    while kills < options.kills or run == 0 or not (base / str(run) / "features.json").exists():
        run += run == 0 or (base / str(run) / "features.json").exists()
        output, team = base / str(run), draw.choice(list(TEAMS))
        moment, victim = (draw.uniform(0, 0.7 * duration), draw.randrange(2)) if kills < options.kills else (1e9, 0)
        hit = attempt(team, output, rows, moment, victim)
        committed, lost = progress(output)
        kills += hit
        shown = (f"{kills:>4}", f"{moment:>5.2f} s") if hit else (f"{'-':>4}", f"{'end':>7}")
        print(f"{shown[0]}  {run:>3}  {team:<9}  {victim if hit else '':>6}  {shown[1]}  {committed:>9}  {lost:>11}")
        if lost > 1:
            wrong.append(f"run {run}: a process lost {lost} chunks")
        if (output / "features.json").exists():
            wrong += [f"run {run}: {problem}" for problem in problems(output, whole, rows)]
    begun = sum(len(events(base / str(number), "begin")) for number in range(1, run + 1))
    print(
        f"\n{kills} kills over {run} runs, {time.monotonic() - began:.0f} s. Chunks begun {begun}, needed "
        f"{run * num_chunks}: {begun - run * num_chunks} begun twice or more, at most one a killed process."
    )
    print("\n".join(wrong) or "Every merged file, chunk and manifest equals the uninterrupted run's, byte for byte.")
    return 1 if wrong else 0


def problems(output: Path, whole: dict[str, str], rows: list[dict[str, Any]]) -> list[str]:
    """What differs from the uninterrupted run."""
    found = checksums(output)
    different = [f"{name} differs" for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)]
    if load_features(output)["id"][:] != [row["id"] for row in rows]:
        different.append("the rows are not those of the dataset, each once and in order")
    return different + [f"{path} is left over" for path in leftovers(output)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", metavar="DIR", help="where the runs go; default: a temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
