"""From the parser's many lines to one sentence that says the rule and the value."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from lightning import Trainer

from mmattn import builders
from mmattn.adapters.base import Adapter
from mmattn.training.data import TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task

_UNKNOWN = re.compile(
    r"(?:Option|Key|Group key|Parser key|Unrecognized arguments?:?|unrecognized arguments:)"
    r" ?['\"]?-{0,2}(?P<name>[\w.]+)['\"]?.*?(?:is not accepted|is not expected|not expected|$)"
)
_TYPE = re.compile(r"Expected an? <class '(?P<type>\w+)'>\. Got value: (?P<value>.*)")
_MISSING = re.compile(r"File does not exist: '?(?P<path>[^']+)'?")
_KEY = re.compile(r"Parser key \"(?P<key>[\w.]+)\"")


def one_sentence(message: str) -> str:
    """The part of a message that helps, in one line.

    Example:
        >>> one_sentence("Option 'depht' is not accepted")
        "there is no field 'depht': did you mean 'depth'?"
        >>> one_sentence("Parser key \\"batch_size\\":\\n  Expected a <class 'int'>. Got value: abc")
        'batch_size must be of type int: got abc'
    """
    key = _KEY.search(message)
    missing = _MISSING.search(message)
    if missing:
        return (
            f"{key['key'] if key else 'the path'} must be a file: got {missing['path']}, which does not exist"
        )
    if "not accepted" in message or "not expected" in message or "nrecognized argument" in message:
        unknown = _UNKNOWN.search(message)
        if unknown:
            return _no_such_field(unknown["name"])
    of_type = _TYPE.search(message)
    if of_type and key:
        return f"{key['key']} must be of type {of_type['type']}: got {of_type['value'].strip()}"
    reasons = [reason for reason in _reasons(message) if "NoneType" not in reason]
    if "dot import path string" in message and key:
        value = re.search(r"Given value: (.*)", message)
        name = value[1].strip() if value else "?"
        return f"{key['key']} must name a known class, or one by its import path: got {name}"
    return " ".join((reasons[0] if reasons else message).split())


def _reasons(message: str) -> Iterator[str]:
    """The entries of the list of errors that jsonargparse gives for a union of types."""
    for entry in re.split(r"^\s*- ", message, flags=re.MULTILINE)[1:]:
        yield re.split(r"\n\s*(?:Subtypes|Given value|Errors)", entry)[0].strip()


def _no_such_field(name: str) -> str:
    close = difflib.get_close_matches(name.rsplit(".", 1)[-1], sorted(set(_fields())), n=1)
    hint = f": did you mean {close[0]!r}?" if close else ": see --help for the fields"
    return f"there is no field {name!r}{hint}"


def _fields() -> Iterator[str]:
    """Names of all fields that a configuration may have."""
    parts: list[Callable[..., Any]] = [
        Trainer,
        AdamWCosine,
        *_subclasses(Task),
        *_subclasses(TaskData),
    ]
    parts += [builders.build_encoder, builders.build_decoder, *_subclasses(Adapter)]
    for part in parts:
        yield from (name for name in inspect.signature(part).parameters if name not in ("self", "kwargs"))


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _subclasses(sub)
