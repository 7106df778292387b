"""Reading a YAML file of settings: every key known, every value of its kind, and errors that say where.

What every recipe shares, whatever it is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from .rows import load_rows
from .samples import near


if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Settings:
    """A recipe, with every key known and every needed one there; what is known and needed a subclass says.

    Attributes:
        content: The keys and values.
        folder: Where the file lies.
    """

    content: Mapping[str, Any]
    folder: Path

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Read a recipe.

        Args:
            path: Of the YAML file.
            changes: Values by key, in place of those in the file; `a.b` is the key b in the section a.

        Raises:
            ValueError: No file, broken YAML, an unknown key, a needed one missing.

        Example:
            >>> from hf_prism.student_recipe import StudentRecipe
            >>> StudentRecipe.load("examples/recipes/sft_embedded.yaml").content["base"]  # doctest: +SKIP
            'embedded'
        """
        recipe = cls(*read_settings(path, changes))
        recipe.check(str(path))
        return recipe

    def check(self, where: str) -> None:
        """Every key is known, every needed one is there, and the kinds of values fit; nothing is loaded.

        Raises:
            ValueError: The message names key and place.
        """
        raise NotImplementedError

    def section(self, key: str) -> dict[str, Any]:
        """A section of the recipe, empty where there is none."""
        return section(self.content, key)

    def place(self, name: Any) -> str:
        """A file or folder as the recipe names it: where the command runs, else beside the recipe; else a Hub id."""
        beside = self.folder / str(name)
        return str(beside) if not Path(str(name)).expanduser().exists() and beside.exists() else str(name)


def read_settings(path: str | Path, changes: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], Path]:
    """The keys and values of a YAML file, and the folder where it lies.

    Args:
        path: Of the file.
        changes: Values by key, in place of those in the file; `a.b` is the key b in the section a.

    Raises:
        ValueError: No file, broken YAML, or YAML without keys.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"the recipe {path} does not exist.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the recipe {path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"the recipe {path} must be keys and values, got {type(content).__name__}.")
    for key, value in (changes or {}).items():
        put(content, key, value)
    return content, file.resolve().parent


def section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A section of a recipe, empty where there is none."""
    value = content.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"the recipe's {key} must be keys and values, got {value!r}.")
    return dict(value or {})


def read_rows(source: str, content: Mapping[str, Any], max_samples: int | None) -> Dataset:
    """The rows that a recipe names, with the columns renamed as its `columns` says: `{prompt: question}`."""
    rows = load_rows(
        source,
        split=content.get("split"),
        max_samples=max_samples,
        seed=content.get("seed", 0),
        revision=content.get("revision"),
    )
    columns = section(content, "columns")
    for name, column in columns.items():
        if column not in rows.column_names:
            raise ValueError(
                f"the recipe's columns name {column!r} for {name!r}, a column that {source} does not have"
                f"{near(str(column), rows.column_names)}; columns found: {', '.join(rows.column_names)}."
            )
    # All at once: `completion: answer` also says that there is no column `answer` any more.
    kept = {column: column for column in rows.column_names if column not in {*columns, *columns.values()}}
    return rows.select_columns([*kept, *columns.values()]).rename_columns(
        {column: name for name, column in columns.items()}
    )


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs of a command line; values are read as YAML.

    Example:
        >>> parse_changes(["target_size=500", "generator.model=embedded"])
        {'target_size': 500, 'generator.model': 'embedded'}
    """
    changes = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ValueError(f"--set {pair!r} must be KEY=VALUE, for example --set generator.model=MODEL.")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {pair!r}: the value is no YAML: {error}") from error
    return changes


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; `a.b` is the key b in the section a."""
    *sections, last = key.split(".")
    for name in sections:
        if not isinstance(content.setdefault(name, {}), dict):
            content[name] = {"name": content[name]} if name == "task" else {}
        content = content[name]
    content[last] = value


def name_only(value: Any) -> Any:
    """The last part of a path on this machine; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        is_path = value.startswith(("/", "~", ".")) or Path(value).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a name, or ~ of nobody
        is_path = False
    return Path(value).name if is_path else value


def keywords_of(made: Callable[..., Any]) -> list[str]:
    """The names of the arguments of a class or function."""
    return [name for name in inspect.signature(made).parameters if name != "self"]


def require_known(given: Iterable[Any], known: Sequence[str], where: str) -> None:
    """Every key is one of the known; else the error names the nearest."""
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{near(str(key), known)}; keys are {', '.join(known)}.")


def require_number(value: Any, name: str, where: str) -> float:
    """The value, if it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = " YAML reads 1e9 as text; write 1.0e+9." if isinstance(value, str) else ""
        raise ValueError(f"{where}: {name} must be a number, got {value!r}.{hint}")
    return value


def require_positive(value: Any, name: str, where: str) -> None:
    """The value is a number above 0."""
    if require_number(value, name, where) <= 0:
        raise ValueError(f"{where}: {name} must be above 0, got {value!r}.")


def require_whole(value: Any, name: str, where: str) -> None:
    """The value is a whole number above 0."""
    require_positive(value, name, where)
    if value != int(value):
        raise ValueError(f"{where}: {name} must be a whole number, got {value!r}.")


def require_list(value: Any, name: str) -> list[Any]:
    """The value, if it is a list."""
    if not isinstance(value, list):
        raise ValueError(f"the recipe's {name} must be a list, got {value!r}.")
    return value
