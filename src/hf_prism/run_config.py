"""A directory belongs to one run: it is opened with the run's configuration, and any other one is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from . import files


LOCK = ".lock"
"""A file that a process may lock in its directory; it says nothing of the run."""


def whole(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A configuration as it is read back: JSON values, and what kind of run it is."""
    return json.loads(json.dumps({"kind": kind, **config}))


def open_run(
    path: Path, config: Mapping[str, Any], kind: str, *, may_change: Collection[str] = (), hint: str = ""
) -> bool:
    """Begin a run with this configuration in a directory, or go on with it.

    Args:
        path: The directory; made if need be.
        config: What decides the result, as JSON values.
        kind: Of the run, such as `"synthesis"`.
        may_change: Fields that do not decide the result.
        hint: The end of the message about another configuration.

    Returns:
        Whether the run was begun before.

    Raises:
        ValueError: The directory holds something else, or a run with another configuration; the message lists the fields
            that differ.
    """
    config = whole(config, kind)
    held = require_place(path, kind)
    if held is None:
        path.mkdir(parents=True, exist_ok=True)
        files.write_json(path / "config.json", config)
        return False
    fixed, now = ({key: value for key, value in each.items() if key not in may_change} for each in (held, config))
    if fixed != now:
        changed = "; ".join(differences(fixed, now))
        raise ValueError(
            f"{path} holds a run with another configuration. {changed}. Name a new directory, or ask for the same again"
            f"{hint and '; '}{hint}."
        )
    if held != config:
        files.write_json(path / "config.json", config)
    files.sweep(path)
    return True


def require_place(path: Path, kind: str) -> dict[str, Any] | None:
    """The configuration of the run in a directory; None where one may begin.

    Raises:
        ValueError: The directory holds something else.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; a run needs a directory of its own.")
    held = files.read_json(path / "config.json") if path.is_dir() else None
    if held is None:
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        # Another process may be writing config.json just now, or was killed while it did.
        if found := [name for name in names if name != LOCK and not name.startswith(".config.json~")]:
            raise ValueError(
                f"{path} holds something else ({', '.join(found[:4])}) and no config.json of a run: name a new directory."
            )
        return None
    if held.get("kind") != kind:
        theirs = f"a run of the kind {held['kind']!r}" if "kind" in held else "the gradients of a dataset, or a model"
        raise ValueError(f"{path} holds {theirs}, not one of the kind {kind!r}: name another directory.")
    return held


def differences(held: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields that differ, down to the innermost: `sampling.seed: 0 there, 1 now`."""
    told = []
    for name in {**held, **config}:
        there, now = held.get(name), config.get(name)
        if isinstance(there, dict) and isinstance(now, dict):
            told += differences(there, now, f"{prefix}{name}.")
        elif there != now:
            told.append(f"{prefix}{name}: {_shown(there)} there, {_shown(now)} now")
    return told


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
