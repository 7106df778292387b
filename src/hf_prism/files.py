"""Files that survive a crash: written whole or not at all, and line logs that a torn line does not spoil."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4


ABANDONED = 24 * 3600
"""Seconds after which a temporary file of another machine is no longer anybody's."""


def digest(value: Any) -> str:
    """Sixteen hex digits that identify a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that, flushed to the disk, takes the place of `path` when the block ends.

    Its name is unique across machines, so that any number of processes may write the same file: the last one stays.
    If the block fails, what was there before stays, and nothing else.
    """
    with _temporary(path) as (file, temporary):
        yield file
        _flush(file)
        temporary.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file beside `path`, gone after the block if it is still there under its own name."""
    temporary = path.with_name(f".{path.name}~{socket.gethostname()}~{os.getpid()}~{uuid4().hex[:8]}")
    try:
        with temporary.open("w+b") as file:
            yield file, temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sweep(folder: Path) -> None:
    """Delete the temporary files of processes that were killed: of this machine, or of another one a day ago."""
    for path in folder.glob(".*~*~*~*"):
        match = re.fullmatch(r".*~(.*)~(\d+)~\w+", path.name)
        with suppress(OSError):  # another process sweeps too
            if match and (
                not _is_alive(int(match[2]))
                if match[1] == socket.gethostname()
                else time.time() - path.stat().st_mtime > ABANDONED
            ):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def create_json(path: Path, value: Any) -> bool:
    """Write a JSON file, whole or not at all, unless there is one. Of several processes, one returns True."""
    with _temporary(path) as (file, temporary):
        file.write(json.dumps(value, indent=2).encode())
        _flush(file)
        try:
            os.link(temporary, path)  # unlike a rename, it fails where the file exists
        except FileExistsError:
            return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no file.

    Raises:
        ValueError: The file is damaged, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{path} is damaged ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object.")
    return value


def append_lines(path: Path, *entries: dict[str, Any]) -> None:
    """Append JSON lines and flush them. A line torn by a crash is closed first, so that it spoils no other.

    Only one process may append to a file: on a network file system, two would overwrite each other.
    """
    if not entries:
        return
    torn = path.exists() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    with path.open("a") as file:
        file.write("\n" * torn + "".join(json.dumps(entry) + "\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, without torn or damaged lines: what they announced is done again."""
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
