"""Whether a value from a YAML file is of the kind that a type annotation asks for; only what is plainly wrong is refused.

YAML reads `1e-5` as text, `no` as false and an empty value as null. A library that is handed such a value fails late, and
far from the key that was mistyped.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from .samples import near


SHOWN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "keys and values",
}
LEAST = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0}
LISTS = (list, tuple, set, frozenset)


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that its annotation does not allow.

    Args:
        name: How the message names it, such as `training: learning_rate`.
        value: As YAML reads it.
        hint: The annotation: a type, a union, a Literal. What is unknown here allows everything but a bare number.

    Raises:
        ValueError: The message names the value and what it must be.

    Example:
        >>> check_kind("learning_rate", "1e-5", float)
        Traceback (most recent call last):
        ValueError: learning_rate is '1e-5', which is text; it must be a number. YAML reads 1e-5 as text; write 1.0e-5
    """
    kinds = _kinds(hint)
    if not _is_allowed(value, kinds):
        allowed = [SHOWN[kind] for kind in SHOWN if kind in kinds and not (kind is int and float in kinds)]
        wanted = " or ".join(allowed + ["null"] * (None in kinds and bool(allowed))) or "something else"
        raise ValueError(f"{name} is {value!r}, {_told(value)}; it must be {wanted}{_hint(value, kinds)}")
    if value == -math.inf or value != value:
        raise ValueError(f"{name} is {value!r}; it must be a number that is finite")
    inner = [each.__args__[0] for each in _alternatives(hint) if typing.get_origin(each) is list]
    if isinstance(value, list) and len(inner) == 1:
        for i, each in enumerate(value):
            check_kind(f"{name}[{i}]", each, inner[0])


def check_keywords(given: Mapping[str, Any] | None, config_class: type, owned: Mapping[str, str]) -> dict[str, Any]:
    """The user's keywords of a Trainer's configuration.

    Args:
        given: By name.
        config_class: The dataclass that takes them, such as SFTConfig.
        owned: The names that the caller sets itself, and how the user sets them: ``{"output_dir": "output"}``.

    Raises:
        ValueError: An unknown keyword, one of `owned`, or a value that cannot be: text for a number, a batch of no rows.
    """
    check_kind("training", given, dict[str, Any] | None)
    given = dict(given or {})
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    hints = typing.get_type_hints(config_class)
    for name, value in given.items():
        if name in owned:
            raise ValueError(f"training: {name} is not set here; {owned[name]}")
        if name not in fields:
            raise ValueError(
                f"training: {name!r} is no keyword of {config_class.__name__}"
                f"{near(str(name), [each for each in fields if each not in owned])}"
            )
        if value is not None or fields[name].default is not None:
            check_kind(f"training: {name}", value, hints[name])
        if value == math.inf and name != "max_grad_norm":  # where it means that gradients are not clipped
            raise ValueError(f"training: {name} is {value!r}; it must be a number that is finite")
        if name in LEAST and isinstance(value, (int, float)) and value < LEAST[name]:
            raise ValueError(f"training: {name} is {value!r}; it must be at least {LEAST[name]}")
    if given.get("num_train_epochs", 1) <= 0 and given.get("max_steps", -1) <= 0:
        raise ValueError(
            f"training: num_train_epochs is {given['num_train_epochs']!r} and max_steps is not given, so that there would be "
            "no step; one of them must be above 0"
        )
    return given


def _alternatives(hint: Any) -> list[Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [each for part in typing.get_args(hint) for each in _alternatives(part)]
    return _alternatives(typing.get_args(hint)[0]) if origin is typing.Annotated else [hint]


def _kinds(hint: Any) -> set[Any]:
    """Which of bool, int, float, str, list, dict and None an annotation allows; Any for what is unknown."""
    found: set[Any] = set()
    for each in _alternatives(hint):
        origin = typing.get_origin(each) or each
        if origin is typing.Literal:
            found |= {None if value is None else type(value) for value in typing.get_args(each)}
        elif each is None or each is type(None):
            found.add(None)
        elif origin in (bool, int, float, str, dict):
            found.add(origin)
        elif origin in LISTS:
            found.add(list)
        elif isinstance(origin, type) and issubclass(origin, (Enum, Path)):
            found.add(str)
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            found.add(dict)
        else:
            found.add(object if each in (Any, object) else Any)
    return found


def _is_allowed(value: Any, kinds: set[Any]) -> bool:
    if object in kinds:
        return True
    if value is None:
        return None in kinds
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return bool(kinds & {int, float}) or (bool in kinds and value in (0, 1))
    if isinstance(value, float):
        return float in kinds
    if isinstance(value, (str, Path, Enum)):
        return bool(kinds & {str, Any})
    if isinstance(value, LISTS):
        return bool(kinds & {list, Any})
    if isinstance(value, Mapping):
        return bool(kinds & {dict, Any})
    return True


def _told(value: Any) -> str:
    if value is None:
        return "which is nothing (null)"
    if isinstance(value, bool):
        return "which is neither text nor a number"
    kind = next((each for each in SHOWN if isinstance(value, each)), type(value))
    return f"which is {SHOWN.get(kind, kind.__name__)}"


def _hint(value: Any, kinds: set[Any]) -> str:
    if isinstance(value, str) and kinds & {int, float}:
        try:
            number = float(value)
        except ValueError:
            return ""
        if any(sign in value for sign in "eE") and float in kinds:
            return f". YAML reads {value} as text; write {_for_yaml(number, value)}"
        return f". Write it without quotes: {value}"
    if isinstance(value, bool) and str in kinds:
        return f". YAML reads {'yes, on' if value else 'no, off'} as {str(value).lower()}; write it in quotes"
    return ""


def _for_yaml(number: float, text: str) -> str:
    """A number as YAML reads it: with a point and a signed exponent."""
    mantissa, _, exponent = text.lower().partition("e")
    if not math.isfinite(number) or not mantissa or not exponent:
        return text
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{exponent if exponent[0] in '+-' else f'+{exponent}'}"
