"""Dataclasses to JSON and back, with one clear sentence for whatever does not fit."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def show(value: Any) -> str:
    """``value`` as text short enough for an error sentence."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def require(ok: bool, rule: str, got: Any) -> None:
    """Raise ``ValueError("<rule>: got <value>")`` unless ``ok``."""
    if not ok:
        raise ValueError(f"{rule}: got {show(got)}")


def encode(value: Any) -> Any:
    """``value`` as plain JSON data: dataclasses become objects in field order, tuples become lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, value: Any, where: str) -> Any:
    """JSON data ``value`` as the annotated type ``kind``.

    Args:
        kind: a dataclass, ``str``, ``int``, ``float``, ``bool``, ``list[...]``, ``tuple[...]``,
            ``dict[str, ...]``, ``Literal[...]``, a union of those, or ``Any``.
        value: what ``json.loads`` gave.
        where: how errors call this place, such as ``RunRecord.seed``.

    Raises:
        ValueError: one sentence, the rule and then the value, where ``value`` does not fit.
    """
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _decode_dataclass(typing.cast("type[Any]", kind), value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), value, where)
    if origin is typing.Literal:
        options = typing.get_args(kind)
        require(value in options, f"{where} must be one of {', '.join(map(repr, options))}", value)
        return value
    if origin in (list, tuple, dict):
        return _CONTAINERS[origin](typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    require(
        isinstance(value, kind) and (kind is bool or not isinstance(value, bool)),
        f"{where} must be {_NAMES[kind]}",
        value,
    )
    return value


def _decode_list(args: tuple[Any, ...], value: Any, where: str) -> list[Any]:
    require(isinstance(value, list), f"{where} must be a list", value)
    return [decode(args[0], item, f"{where}[{index}]") for index, item in enumerate(value)]


def _decode_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    require(
        isinstance(value, list) and len(value) == len(args),
        f"{where} must be a list of {len(args)} values",
        value,
    )
    return tuple(
        decode(kind, item, f"{where}[{index}]")
        for index, (kind, item) in enumerate(zip(args, value, strict=True))
    )


def _decode_dict(args: tuple[Any, ...], value: Any, where: str) -> dict[str, Any]:
    require(isinstance(value, dict), f"{where} must be an object", value)
    require(all(isinstance(key, str) for key in value), f"{where} must have text as keys", list(value))
    return {key: decode(args[1], item, f"{where}[{key!r}]") for key, item in value.items()}


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    list: _decode_list,
    tuple: _decode_tuple,
    dict: _decode_dict,
}


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        return decode(options[0], value, where)
    # A union here is always one of several dataclasses; their fields tell them apart.
    require(isinstance(value, dict), f"{where} must be an object", value)
    for option in options:
        if set(value) <= {field.name for field in fields(option)}:
            return decode(option, value, where)
    names = ", ".join(option.__name__ for option in options)
    raise ValueError(f"{where} must have the fields of one of {names}: got {show(sorted(value))}")


def _decode_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    require(isinstance(value, dict), f"{where} must be an object", value)
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    require(not unknown, f"{where} has only the fields {', '.join(hints)}", ", ".join(unknown))
    parts = {name: decode(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**parts)
    except TypeError:
        raise ValueError(
            f"{where} must have every field without a default: got {show(sorted(value))}"
        ) from None


def to_json(value: Any) -> str:
    """Dataclass ``value`` as JSON text (ASCII), one line per innermost list; equal values give equal text.

    Raises:
        ValueError: if ``value`` holds what could not be read back.
    """
    plain = encode(value)
    decode(type(value), plain, type(value).__name__)
    try:
        text = json.dumps(plain, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{type(value).__name__} must hold plain JSON data: {error}") from None
    # Raw line ends never stand inside a JSON string, so only layout is matched here.
    return (
        re.sub(
            r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda match: "[" + re.sub(r"\n\s*", " ", match[1]) + "]", text
        )
        + "\n"
    )


def save(value: Any, path: str | Path) -> Path:
    """Write dataclass ``value`` to ``path`` and give the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(value), encoding="utf-8", newline="\n")
    return path


def load(kind: type[T], path: str | Path) -> T:
    """Read a ``kind`` from the JSON file ``path``.

    Raises:
        ValueError: naming the file, when it is no JSON or does not fit ``kind``.
    """
    try:
        result: T = decode(kind, json.loads(Path(path).read_text(encoding="utf-8")), kind.__name__)
    except ValueError as error:
        raise ValueError(f"{path} must hold a valid {kind.__name__}: {error}") from None
    return result
