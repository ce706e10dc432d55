"""Which modules of a model make attention calls, and which are to be left alone."""

from __future__ import annotations

import inspect
import re
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.plugins.hosts import BLENDS, HEADS_AXES, LEFT_ALONE, NAMED, ONE_HEAD_A_CALL
from mmattn.plugins.site import HEADS

_SDPA = re.compile(r"scaled_dot_product_attention|multi_head_attention_forward|_sdpa\w*\(")
_SOFTMAX = re.compile(r"softmax", re.IGNORECASE)
_PRODUCT = re.compile(r" @ |matmul|einsum|bmm")
_INTERFACE = re.compile(r"ALL_ATTENTION_FUNCTIONS|attention_interface")


class Found(NamedTuple):
    """Modules that call attention, by name, and those that do not do so in a way that can be plugged.

    Attributes:
        calling: name to module.
        skipped: name to reason.
    """

    calling: dict[str, nn.Module]
    skipped: dict[str, str]


def find(model: nn.Module) -> Found:
    """The innermost modules that make attention calls of their own."""
    calling: dict[str, nn.Module] = {}
    skipped: dict[str, str] = {}
    for name, module in model.named_modules():
        kind = class_name(type(module))
        if isinstance(module, MultiHeadAttention):
            skipped[name] = "it is the core already"
        elif kind in LEFT_ALONE:
            skipped[name] = LEFT_ALONE[kind]
        elif "forward" in module.__dict__:
            if calls(type(module)):
                skipped[name] = "its forward was replaced on the instance"
        elif kind in NAMED or calls(type(module)):
            calling[name] = module
    return Found(_innermost(calling, skipped), skipped)


def _innermost(calling: dict[str, nn.Module], skipped: dict[str, str]) -> dict[str, nn.Module]:
    """Modules that hold others with calls lose to these, but for those that are known to call themselves."""
    kept = dict(calling)
    for name, module in calling.items():
        inner = [other for other in calling if other != name and (other.startswith(f"{name}.") or name == "")]
        if not inner or name not in kept:
            continue
        parts = calls(type(module)) == "interface" and all(
            calls(type(calling[x])) == "softmax" for x in inner
        )
        if parts or class_name(type(module)) in NAMED:
            why = "has this as a part" if parts else "only keeps weights here"
            for other in inner:
                kept.pop(other, None)
                skipped[other] = f"{name} calls attention itself and {why}"
        else:
            del kept[name]
    return kept


def class_name(kind: type) -> str:
    """The full name of a class, without what plugging put around it."""
    kind = getattr(kind, "plugged_kind", kind)
    return f"{kind.__module__}.{kind.__qualname__}"


def calls(kind: type) -> str | None:
    """How a class calls attention, by its source: ``"sdpa"``, ``"interface"``, ``"softmax"`` or None."""
    return _calls(getattr(kind, "plugged_kind", kind))


@lru_cache(maxsize=4096)
def _calls(kind: type) -> str | None:
    source = "".join(_sources(kind))
    if _INTERFACE.search(source):
        return "interface"
    if _SDPA.search(source):
        return "sdpa"
    return "softmax" if _SOFTMAX.search(source) and _PRODUCT.search(source) else None


def _sources(kind: type) -> list[str]:
    found: list[str] = []
    handed_on = False  # from one forward to the next one up
    for base in kind.__mro__:
        if base in (nn.Module, object) or base.__module__.startswith("torch.nn.modules.module"):
            break
        if handed_on and "forward" not in vars(base):
            continue
        own = []
        for value in vars(base).values():
            function = (
                inspect.unwrap(getattr(value, "__func__", value))
                if callable(value) or isinstance(value, (staticmethod, classmethod))
                else None
            )
            if inspect.isfunction(function) and function.__name__ not in ("__init__", "reset_parameters"):
                own.append(_source(function))
        found += own
        if "forward" in vars(base):
            handed_on = any("super().forward(" in source for source in own)
            if not handed_on:
                break  # methods further up belong to another forward
    return found


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return " ".join(function.__code__.co_names)


def heads_axis(kind: type) -> int | None:
    """The axis of the heads in calls of more than four axes, where the class is known to have another than 1."""
    return HEADS_AXES.get(class_name(kind))


def what_it_says(module: nn.Module) -> dict[str, Any]:
    """What a module says of its calls, as attributes of a :class:`~mmattn.plugins.site.Site`."""
    groups = getattr(module, "num_key_value_groups", 1)
    sinks = isinstance(getattr(module, "sinks", None), Tensor) and calls(type(module)) == "interface"
    return {
        "num_heads": num_heads(module),
        "heads_axis": heads_axis(type(module)),
        "groups": groups if isinstance(groups, int) else 1,
        "sink_columns": int(sinks),
        "blends": class_name(type(module)) in BLENDS,
    }


#: Names under which modules keep the number of their heads.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "num_attn_heads")


def num_heads(module: nn.Module) -> int | None:
    """The number of heads in a call of a module, as far as it says."""
    if class_name(type(module)) in ONE_HEAD_A_CALL:
        return 1
    known = module.__dict__.get(HEADS)
    if known is not None:  # it lost some, which its configuration does not know
        return int(known.num_heads)
    for name in _HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int):
            return value
    value = getattr(getattr(module, "config", None), "num_attention_heads", None)
    return value if isinstance(value, int) else None
