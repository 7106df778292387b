"""Several processes on one run: who does which part, and how each knows that the others live.

The processes of a launch meet once, before the work. From then on they see each other through files only, so that one
may be hours behind another, and a dead one is noticed without anybody waiting in a collective operation.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any


BEAT = 15.0
"""Seconds between two signs of life."""

SILENCE = 600.0
"""Seconds without one after which a process counts as dead."""

POLL = 1.0
"""Seconds between two looks at the others."""

REPORT = 60.0
"""Seconds between two reports of what is still missing."""

MEETING = timedelta(hours=1)
"""How long processes wait for each other before the work, where they differ by the time of reading the rows."""

DONE = "done"

FIX = "Every committed chunk is safe. Run the same again, with any number of processes: only missing chunks are computed."


@dataclass(frozen=True)
class Team:
    """The processes that a launcher started together, as one of them sees them.

    Attributes:
        rank: The number of this process, from 0.
        world: How many there are.
        device: The torch device of this process; None where nobody launched several.
    """

    rank: int = 0
    world: int = 1
    device: str | None = None

    def agree(self, decide: Callable[[], Any]) -> Any:
        """What rank 0 decides; the only moment at which the processes wait in a collective operation."""
        if self.world == 1:
            return decide()
        import torch.distributed as dist

        # Gloo, also beside NCCL: an agreement needs no memory on a GPU.
        group: Any = dist.new_group(backend="gloo", timeout=MEETING)
        box = [decide() if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0, group=group)
        dist.destroy_process_group(group)
        return box[0]


def join() -> Team:
    """The team that torchrun or `accelerate launch` made this process part of, or a team of one.

    Raises:
        RuntimeError: Accelerate's state was built in a way that hides the other processes.
    """
    world = int(os.environ.get("WORLD_SIZE") or 1)
    if world == 1:
        return Team()
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without cpu=True, processes on a machine without accelerator would each believe to be alone.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    if state.num_processes != world:
        raise RuntimeError(
            f"The launcher started {world} processes (WORLD_SIZE), but Accelerate's state knows {state.num_processes}: "
            "each would do all the work. It was built before, without cpu=True on a machine without GPU; build it as "
            "PartialState(cpu=True), or leave that to hf_prism."
        )
    return Team(state.process_index, state.num_processes, str(state.device))


def is_first() -> bool:
    """Whether this process is the one of its launch that prints and writes; needs no process group."""
    return int(os.environ.get("RANK") or 0) == 0


def leave() -> None:
    """Close what `join` opened; for a program that is about to end."""
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Return "2/4" as (1, 4): the number of the shard counted from 0, and how many there are. None is the whole.

    Raises:
        ValueError: Not of that form, or not between 1/n and n/n.
    """
    if shard is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", shard) if isinstance(shard, str) else None
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ValueError(f"shard {shard!r} must be I/N with I from 1 to N, for example 2/4 for the second of four.")
    return index - 1, count


class Pulse:
    """A file that says of this process that it lives, and in the end how it ended.

    A thread touches the file every few seconds, whatever the process computes. An exception that leaves the block is
    written into it, and so is DONE by `finish`.
    """

    def __init__(self, path: Path):
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Pulse:
        self._path.write_text("")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None:
            with suppress(OSError):
                self._path.write_text(f"{kind.__name__}: {error}")

    def finish(self) -> None:
        """Let those that wait for this process go."""
        self._path.write_text(DONE)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(OSError):  # a full or absent disk is the work's to report
                os.utime(self._path)


def is_done(status: Path) -> bool:
    """Whether the process behind this file called `Pulse.finish`."""
    return _read(status) == DONE


def wait(
    awaited: Callable[[], Collection[int]],
    status: Mapping[int, Path],
    report: Callable[[], None] | None = None,
) -> None:
    """Wait for other ranks, as long as they live.

    Args:
        awaited: The ranks that are still to be waited for; none ends the wait.
        status: The file of each rank's `Pulse`.
        report: Called every minute.

    Raises:
        RuntimeError: An awaited rank failed, or has not been heard of for `SILENCE` seconds.
    """
    # Compared with our own clock only: those of other machines, and of their file server, may differ from it.
    heard: dict[int, tuple[int | None, float]] = {}
    reported = time.monotonic()
    while ranks := awaited():
        now = time.monotonic()
        for rank in ranks:
            if (text := _read(status[rank])) not in ("", DONE):
                raise RuntimeError(f"Rank {rank} failed with {text}\n{FIX}")
            beat = _last_beat(status[rank])
            if rank not in heard or heard[rank][0] != beat:
                heard[rank] = (beat, now)
            elif now - heard[rank][1] > SILENCE:
                raise RuntimeError(
                    f"Rank {rank} has given no sign of life for {SILENCE / 60:.0f} minutes: it died, or it does not see "
                    f"this file system (its file would be {status[rank]}). {FIX}"
                )
        if report and now - reported > REPORT:
            report()
            reported = now
        time.sleep(POLL)


def _read(status: Path) -> str:
    try:
        return status.read_text()
    except OSError:
        return ""


def _last_beat(status: Path) -> int | None:
    try:
        return status.stat().st_mtime_ns
    except OSError:
        return None
