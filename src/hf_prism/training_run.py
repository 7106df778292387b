"""A training run on disk: what is whole is kept, what is torn is done again, and the Trainer only trains.

    config.json                 what decides the weights; another one is refused
    checkpoints/checkpoint-N/   those of the Trainer; one counts only with its `whole.json`
    log.jsonl                   one line a logged step
    model/                      the student, once training is over
    left_out.jsonl              rows that were skipped or cut, if there are any
    result.json                 the summary; with this file the run is finished
    .lock                       locked by the process that trains here

A run of transformers' Trainer, whatever it trains, does these things here:

    run = TrainingRun(output)
    if run.open(config, may_change=("logging",)): return Student.read(run.path)
    run.report(run.check_space(checkpoint=..., model=..., saves=..., keep=2))
    trainer = SomeTrainer(..., callbacks=[run.recorder(keep=2)])       # class SomeTrainer(Watched, Trainer)
    trainer.watch(rows, name_of_row)                                   # see watching.py
    trainer.train(resume_from_checkpoint=run.newest_checkpoint())
    with run.saving("model") as folder: trainer.save_model(str(folder))
    run.finish(Student(..., **run.summary()), facts)
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transformers import TrainerCallback

from . import files
from .ranks import Team
from .run_config import LOCK, open_run, require_place, whole
from .run_directory import in_bytes
from .watching import check_weights


KIND = "training"
WHOLE = "whole.json"
_LOCKS: dict[Path, IO[bytes]] = {}
Report = Callable[[str], None]


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")


@dataclass(frozen=True)
class Student:
    """A trained student.

    Attributes:
        output: The run directory.
        model: The folder that `from_pretrained` reads.
        base: What it was trained from.
        rows: How many rows it was trained on.
        skipped: How many rows were left out by a policy.
        truncated: How many of `rows` were cut.
        steps: Steps of the optimizer.
        tokens: Tokens of the rows, read once.
        learned_tokens: Those of them that carry loss; for a classifier the number of labels.
        train_loss: Mean over all steps.
        seconds: Time in training, interruptions aside.
    """

    output: Path
    model: Path
    base: str
    rows: int
    skipped: int
    truncated: int
    steps: int
    tokens: int
    learned_tokens: int
    train_loss: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}

    @classmethod
    def read(cls, output: str | Path) -> Student:
        """The student of a finished run, wherever its directory lies now.

        Raises:
            ValueError: The run is not finished.
        """
        run = TrainingRun(output)
        held = files.read_json(run.path / "result.json")
        if held is None:
            raise ValueError(f"{run.path} holds no result.json: the training is not finished")
        known = {field.name: held[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**known, "output": run.path, "model": run.model})


class TrainingRun:
    """The files of one run.

    Args:
        path: Where it is, or is to be.
        team: The processes of the launch; the first of them writes.
        report: Called with lines of text for the user, by the first process only.
    """

    def __init__(self, path: str | Path, team: Team | None = None, report: Report = say) -> None:
        self.path = Path(path).expanduser()
        self.model, self.checkpoints, self.log = (self.path / name for name in ("model", "checkpoints", "log.jsonl"))
        self.team = team or Team()
        self._report = report

    def report(self, text: str) -> None:
        """Tell the user, once for all processes."""
        if self.team.rank == 0:
            self._report(text)

    def open(self, config: Mapping[str, Any], may_change: Iterable[str] = ()) -> bool:
        """Begin a run with this configuration, or go on with it.

        Args:
            config: JSON values.
            may_change: Top-level fields that do not decide the weights.

        Returns:
            Whether the run is finished already.

        Raises:
            ValueError: Another process trains in the directory, or it holds something else, or a run with another
                configuration; the message lists the fields that differ.
        """
        return self.team.agree(lambda: self._open(config, tuple(may_change)))

    def _open(self, config: Mapping[str, Any], may_change: tuple[str, ...]) -> bool:
        require_place(self.path, KIND)
        self._lock()
        if (self.path / "config.json").exists() and not self._is_begun():
            (self.path / "left_out.jsonl").unlink(missing_ok=True)
            files.write_json(self.path / "config.json", whole(config, KIND))
        open_run(self.path, config, KIND, may_change=may_change)
        is_finished = (self.path / "result.json").is_file()
        if is_finished:
            self._unlock()
        return is_finished

    def _lock(self) -> None:
        """Keep other processes out; the system unlocks the file of a process that dies."""
        self._unlock()  # of a run of this process that broke off
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / LOCK).open("ab")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not handed on to workers that are forked
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise ValueError(
                f"{self.path} is in use by another process, which trains there. Wait until it is done, stop it, or name "
                "another directory."
            ) from error
        _LOCKS[self.path.resolve()] = file

    def _unlock(self) -> None:
        if held := _LOCKS.pop(self.path.resolve(), None):
            held.close()

    def _is_begun(self) -> bool:
        """Whether there is anything in the directory that depends on the configuration."""
        idle = {LOCK, "config.json", "left_out.jsonl"}
        return any(
            any(entry.iterdir()) if entry.is_dir() else entry.stat().st_size > 0
            for entry in self.path.iterdir()
            if entry.name not in idle
        )

    def write_lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write a file of JSON lines into the directory, whole or not at all; the first process does."""
        if self.team.rank == 0:
            files.write_atomically(self.path / name, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def newest_checkpoint(self) -> str | None:
        """The newest whole checkpoint, or None. Torn ones, and what was logged after it, are deleted."""
        return self.team.agree(self._newest_checkpoint)

    def _newest_checkpoint(self) -> str | None:
        whole = []
        for folder in self._checkpoints():
            if is_whole(folder):
                whole.append(folder)
            else:
                self.report(f"{folder.name} was not written whole and does not count")
                shutil.rmtree(folder)
        step = _step(whole[-1]) if whole else 0
        kept = [line for line in files.read_lines(self.log) if line["step"] <= step]
        self.write_lines(self.log.name, kept)
        return str(whole[-1]) if whole else None

    def _checkpoints(self) -> list[Path]:
        return sorted(self.checkpoints.glob("checkpoint-*"), key=_step)

    def check_space(self, *, checkpoint: int, model: int, saves: int, keep: int) -> str:
        """Compare what the run will write with what the disk has.

        Args:
            checkpoint: Bytes of one checkpoint.
            model: Bytes of the student.
            saves: How many checkpoints will be written in all.
            keep: How many are kept; one more exists while it is written.

        Returns:
            A line for the preflight.

        Raises:
            ValueError: There is not enough space.
        """
        count = min(saves, keep + 1)
        needed = count * checkpoint + model
        place = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        held = sum(file.stat().st_size for file in self.checkpoints.rglob("*") if file.is_file())
        text = (
            f"{count} checkpoints of {in_bytes(checkpoint)} and the student of {in_bytes(model)}: {in_bytes(needed)}"
        )
        if needed > free + held:
            own = f" and {in_bytes(held)} in checkpoints of this run" if held else ""
            raise ValueError(
                f"not enough space for checkpoints: {place} has {in_bytes(free)} free{own}, the run needs {in_bytes(needed)} "
                f"({text}). Free some, name another output, or save fewer (training: save_total_limit, save_steps)"
            )
        return f"{text}, {in_bytes(free)} free"

    def recorder(self, keep: int) -> TrainerCallback:
        """The callback that marks checkpoints as whole, keeps the newest, logs, and tells the time that is left.

        The Trainer itself must get `save_total_limit=None`: it would delete the last whole one too early.
        """
        return _Recorder(self, keep)

    @contextmanager
    def saving(self, name: str) -> Iterator[Path]:
        """A folder for all processes to save into, which takes its name when it is whole."""
        partial, folder = self.path / f"{name}.partial", self.path / name
        if self.team.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        _barrier()
        yield partial
        _barrier()
        if self.team.rank == 0:
            (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle, of no use to a reader
            _sync(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        _barrier()

    def summary(self) -> dict[str, Any]:
        """Steps, mean loss and seconds, read from the log."""
        lines = list(files.read_lines(self.log))
        done, total = 0, 0.0
        for line in lines:
            total += line["loss"] * (line["step"] - done)
            done = line["step"]
        return {"steps": done, "train_loss": total / done, "seconds": lines[-1]["seconds"]}

    def finish(self, student: Student, facts: Mapping[str, Any] | None = None) -> None:
        """Write result.json: the student's numbers and whatever else is to be known of it."""
        if self.team.rank == 0:
            files.write_json(self.path / "result.json", {**(facts or {}), **student.as_dict()})
            self._unlock()
        _barrier()


class _Recorder(TrainerCallback):
    """See `TrainingRun.recorder`."""

    def __init__(self, run: TrainingRun, keep: int) -> None:
        self.run, self.keep = run, max(1, keep)
        self.before: dict[str, Any] = {}
        self.began, self.first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        check_weights(model, state.global_step)
        self.before = (list(files.read_lines(self.run.log)) or [{}])[-1]
        self.began, self.first = time.monotonic(), state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        return self._boundary(state, control, model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        return self._boundary(state, control, model)

    def _boundary(self, state: Any, control: Any, model: Any) -> Any:
        """What is logged ends where a checkpoint does, so that a resumed run logs the same numbers.

        The last step saves no checkpoint, since the student itself is saved next. Weights that are saved are finite.
        """
        if control.should_save or state.global_step >= state.max_steps:
            check_weights(model, state.global_step)
        if state.global_step >= state.max_steps:
            control.should_save, control.should_log = False, True
        elif control.should_save:
            control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs or self.run.team.rank:
            return
        line = {"step": state.global_step, **{k: v for k, v in logs.items() if isinstance(v, (int, float, str))}}
        elapsed = time.monotonic() - self.began
        line["seconds"] = round(self.before.get("seconds", 0.0) + elapsed, 3)
        if "num_tokens" in line:  # the Trainer counts from where this process began
            line["num_tokens"] = int(line["num_tokens"] + self.before.get("num_tokens", 0))
        files.append_lines(self.run.log, line)
        pace = elapsed / max(1, state.global_step - self.first)
        left = pace * (state.max_steps - state.global_step)
        self.run.report(
            f"step {state.global_step:,} of {state.max_steps:,}: loss {float(logs['loss']):.4f}, {pace:.2f} s a step, about "
            f"{as_time(left)} left"
        )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        _barrier()  # every process has written its part
        if self.run.team.rank == 0:
            folder = self.run.checkpoints / f"checkpoint-{state.global_step}"
            _sync(folder)
            sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
            files.write_json(folder / WHOLE, sizes)
            for old in [entry for entry in self.run._checkpoints() if is_whole(entry)][: -self.keep]:
                (old / WHOLE).unlink()
                shutil.rmtree(old)


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, by their names."""
    return {name: importlib.metadata.version(name) for name in packages}


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is there as it was written."""
    try:
        sizes = files.read_json(checkpoint / WHOLE)
    except ValueError:
        return False
    return sizes is not None and all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items()
    )


def as_time(seconds: float) -> str:
    """``2 h 05 min``."""
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02d} s"


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != WHOLE)


def _sync(folder: Path) -> None:
    """Flush a folder's files to the disk."""
    for file in _files(folder):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _barrier() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
