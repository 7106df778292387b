"""Files that survive a crash: written whole or not at all, and line logs that a torn line does not spoil."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """Sixteen hex digits that identify a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no file.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete the directory, or choose another.") from error


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Append one JSON line and flush it. A line torn by a crash is closed first, so that it spoils no other."""
    torn = path.exists() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    with path.open("a") as file:
        file.write("\n" * torn + json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, without a torn line: what it announced is done again."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry
