"""A student on the Hub: its files, its numbers and its card, in one commit.

config.json, *.safetensors, tokenizer files    what `from_pretrained` reads
adapter/                                       of a LoRA student, before it was merged
hf_prism.json                                  "kind": "student", the run, and its numbers
README.md                                      the card: YAML merged into the user's, and one block between two markers
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import files, pushing
from .access import files_to_change, patiently
from .cards import with_keys
from .pushing import CARD, ROWS_FILE, TEXTS, Held, read_file
from .student_card import card_keys, student_card


KIND = "student"


def push_student(
    output: str | Path, repo_id: str, *, license: str | None = None, private: bool = False, token: str | None = None
) -> str:
    """Push the student of a finished run, with a card made of the run's files. The same again makes no new commit.

    Args:
        output: The run directory.
        repo_id: `USER/NAME` of the model; made if there is none.
        license: For the card, where that names none yet.
        private: Whether a new repository is private. An existing public one is then refused.
        token: Of the Hub; default, the one logged in with.

    Returns:
        The id of the commit.

    Raises:
        ValueError: The run is not finished; as `check_can_push_student`; the student of another run is there.

    Example:
        >>> push_student("runs/student", "user/student")  # doctest: +SKIP
        '5be02a...'
    """
    folder = Path(output).expanduser()
    result, config = (files.read_json(folder / name) for name in ("result.json", "config.json"))
    if result is None or config is None or not (folder / "model").is_dir():
        raise ValueError(f"{folder} holds no finished training run; give the output of `hf-prism distill`.")
    if "base_name" not in result:
        raise ValueError(
            f"{folder} was trained, but not finished by `hf-prism distill`: give its recipe to that command again."
        )
    run = files.digest(config)
    check_can_push_student(repo_id, run, token)
    facts = {
        **result,
        "name": repo_id.split("/")[1],
    }
    attempt = partial(_attempt, folder, run, facts, license)
    return pushing.push(repo_id, attempt, private=private, token=token, repo_type="model")


def check_can_push_student(repo_id: str, run: str | None = None, token: str | None = None) -> None:
    """Find out, before anything is trained, whether a student can be pushed to a model repository.

    Args:
        repo_id: `USER/NAME`; it need not exist yet.
        run: What identifies the run, if that is known.
        token: Of the Hub.

    Raises:
        ValueError: No token or one that may not write; somebody else's repository; one that holds something else.
    """
    held = files_to_change(repo_id, token, "model")
    _check_not_taken(
        repo_id, held, lambda: patiently(lambda: read_file(repo_id, ROWS_FILE, "main", token, "model")), run
    )


def _check_not_taken(repo_id: str, held: Any, read: Any, run: str | None) -> None:
    others = sorted(name for name in held if not re.fullmatch(TEXTS, name))
    if ROWS_FILE not in held:
        if others:
            raise ValueError(
                f"{repo_id} holds something else ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}), and no "
                f"{ROWS_FILE} of a student. What loads by that name would change. Choose another name."
            )
        return
    try:
        told: Mapping[str, Any] = json.loads(read())
        theirs = told["run"] if told["kind"] == KIND else None
    except (ValueError, KeyError, TypeError):
        theirs = None
    if theirs is None:
        raise ValueError(f"{repo_id} holds something else: by its {ROWS_FILE}, it is no student. Choose another name.")
    if run is not None and theirs != run:
        raise ValueError(
            f"{repo_id} holds the student of another run ({theirs}, and this is {run}). Choose another name, or delete what "
            "is there on the Hub."
        )


def _attempt(folder: Path, run: str, facts: Mapping[str, Any], license: str | None, held: Held) -> str:
    _check_not_taken(held.repo_id, held.files, lambda: held.read(ROWS_FILE), run)
    changes: dict[str, Path | bytes | None] = {
        path.relative_to(folder / "model").as_posix(): path
        for path in sorted((folder / "model").rglob("*"))
        if path.is_file() and path.name not in (CARD, ROWS_FILE)
    }
    adapter = folder / "adapter"
    changes |= {
        f"adapter/{path.name}": path for path in sorted(adapter.glob("*")) if path.is_file() and path.name != CARD
    }
    hidden = ("output", "model", "pushed_to", "commit", "recipe")
    public = {name: value for name, value in facts.items() if name not in hidden}
    changes[ROWS_FILE] = json.dumps({"kind": KIND, "run": run, "result": _public(public)}, indent=2).encode() + b"\n"
    public_facts = _public(facts)
    block = student_card(held.repo_id, public_facts)
    card = with_keys(held.read(CARD), held.repo_id, block, lambda old: card_keys(old, public_facts, license))
    changes[CARD] = card.encode()
    return held.change(changes, "Student trained by hf_prism")


def _public(value: Any) -> Any:
    """The same without the folders of this machine: of a path its last part."""
    if isinstance(value, Mapping):
        return {key: _public(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_public(each) for each in value]
    if (
        isinstance(value, str)
        and value.startswith(("/", "~"))
        and "\n" not in value
        and Path(value).expanduser().exists()
    ):
        return Path(value).name
    return value
