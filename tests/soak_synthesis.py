"""Kill synthesis runs at random moments, resume them, and compare what they come to with an uninterrupted run.

    python tests/soak_synthesis.py [--kills 25] [--seed 0]

Part of `make soak`. Exit status 1 if a pool differs, a logged request is sent again, or more than the one request under way
is repeated.
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
from collections import Counter
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from helpers import save_tiny_model
from processes import finish
from synthesis_runs import sent_seeds, start, whole

from hf_prism import files


PACE = 0.005  # seconds an answer, so that generating and solving last as long as the other stages


def stage_of(place: Path) -> str:
    """What a run that was killed was at."""
    rounds = sorted((place / "rounds").glob("[0-9]*")) if (place / "rounds").exists() else []
    if not rounds:
        return "start"
    done = [name for name in ("clusters", "prompts", "parsed", "verified", "candidates", "accepted") if (rounds[-1] / f"{name}.parquet").exists()]  # fmt: skip
    return f"round {int(rounds[-1].name)}, after {done[-1] if done else 'nothing'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, base = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="soak-"))
    model = str(save_tiny_model(base / "proxy"))
    began = time.monotonic()
    assert finish(start(base / "whole", model, base / "whole.sent", pace=PACE)) == [0]
    duration, expected = time.monotonic() - began, whole(base / "whole")
    print(f"an uninterrupted run takes {duration:.1f} s", flush=True)
    kills = number = 0
    while kills < options.kills:
        number += 1
        place, sent = base / f"run-{number}", base / f"run-{number}.sent"
        own = 0
        while True:
            logged = Counter(line["seed"] for line in files.read_lines(place / "requests.jsonl"))
            before = len(sent_seeds(sent))
            process = start(place, model, sent, pace=PACE)
            process.join(draw.uniform(0, 0.6 * duration) if kills < options.kills else 600)
            alive = process.is_alive()
            if alive:
                os.kill(process.pid, signal.SIGKILL)
            statuses = finish(process)
            if statuses not in ([0], [-signal.SIGKILL]):
                raise SystemExit(f"run {number} ended with {statuses}")
            repeated = set(sent_seeds(sent)[before:]) & set(logged)
            if repeated:
                raise SystemExit(f"run {number} sent {len(repeated)} logged requests again")
            if not alive:
                break
            kills, own = kills + 1, own + 1
            print(f"kill {kills}: run {number}, {stage_of(place)}", flush=True)
        if whole(place) != expected:
            raise SystemExit(f"run {number} came to another pool after {own} kills: {place}")
        times = Counter(sent_seeds(sent))
        if sum(times.values()) - len(times) > own:
            raise SystemExit(f"run {number} repeated {sum(times.values()) - len(times)} requests after {own} kills")
    print(f"{kills} kills, {number} runs: every pool equals the uninterrupted one; no logged request was sent again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
