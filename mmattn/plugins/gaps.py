"""Tensors with gaps: parameters of which some heads are gone, in modules that still count on all of them.

Many hosts give the heads' results the width of the model again and could not run with fewer heads. There the
parameters keep the remaining heads alone, and whoever reads them sees zeros in place of the others.
"""

from __future__ import annotations

import copyreg
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.plugins import classes

#: Where a module keeps, by parameter: the axis with gaps, and its stretches of places that remain or are gone.
GAPS = "_mmattn_gaps"

#: Classes whose forward is ``F.linear`` of the parameters.
_LINEAR = ("torch.nn.modules.linear.Linear", "torch.nn.modules.linear.NonDynamicallyQuantizableLinear")


class _Kind(type):
    """Class of the classes made here, which pickles them by what they are made of."""


def put_gaps(owner: nn.Module, name: str, dim: int, rest: Sequence[int], size: int) -> None:
    """Let a tensor that keeps ``rest`` of an axis of length ``size`` read as the whole, zeros elsewhere.

    Args:
        owner: the module that has the tensor.
        name: of the parameter.
        dim: the axis.
        rest: which of the places 0 to ``size - 1`` the tensor has, in order.
        size: the length of the axis before.
    """
    gaps = dict(owner.__dict__.get(GAPS, {}))
    gaps[name] = (dim, _stretches(set(rest), size))
    owner.__dict__[GAPS] = gaps
    kind = with_gaps(_plain(classes.host_class(owner)), tuple(sorted(gaps)))  # type: ignore[arg-type]  # hashable
    if classes.is_plugged(type(owner)):
        how = type(owner).plugged_how  # type: ignore[attr-defined]
        kind = classes.plugged(kind, *how)  # type: ignore[arg-type]  # a type is hashable
    owner.__class__ = kind


@functools.cache
def with_gaps(kind: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The subclass whose tensors of these names read as if whole."""
    body: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "gap_names": names,
        **{name: property(functools.partial(_whole, name=name)) for name in names},
    }
    if f"{kind.__module__}.{kind.__qualname__}" in _LINEAR:
        body["forward"] = _linear
    return _Kind(kind.__name__, (kind,), body)  # type: ignore[return-value]  # a class of modules, by its base


def _plain(kind: type[nn.Module]) -> type[nn.Module]:
    return kind.__mro__[1] if "gap_names" in vars(kind) else kind


def _stretches(rest: set[int], size: int) -> tuple[tuple[bool, int], ...]:
    """How many places in a row remain or are gone, in order."""
    runs = itertools.groupby(range(size), key=lambda place: place in rest)
    return tuple((left, len(list(places))) for left, places in runs)


def _filled(part: Tensor, dim: int, stretches: tuple[tuple[bool, int], ...]) -> Tensor:
    """Zeros where places are gone; pieces in a row are far faster to copy than places one by one."""
    pieces, begin = [], 0
    for left, length in stretches:
        if left:
            pieces.append(part.narrow(dim, begin, length))
            begin += length
        else:
            shape = list(part.shape)
            shape[dim] = length
            pieces.append(part.new_zeros(shape))
    return torch.cat(pieces, dim)


def _whole(owner: nn.Module, name: str) -> Tensor | None:
    part = owner._parameters[name]
    return None if part is None else _filled(part, *owner.__dict__[GAPS][name])


def _linear(self: nn.Module, x: Tensor) -> Tensor:
    """A linear layer that computes with the remaining features only."""
    weight, bias = self._parameters["weight"], self._parameters["bias"]
    assert weight is not None
    dim, stretches = self.__dict__[GAPS]["weight"]
    if dim == 0:
        return _filled(F.linear(x, weight, bias), -1, stretches)
    pieces = x.split([length for _, length in stretches], -1)
    return F.linear(
        torch.cat([x for x, (left, _) in zip(pieces, stretches, strict=True) if left], -1), weight, bias
    )


def _reduced(kind: type[nn.Module]) -> Any:
    if "gap_names" in vars(kind):
        return with_gaps, (_plain(kind), kind.gap_names)  # type: ignore[attr-defined]
    return kind.__qualname__


copyreg.pickle(_Kind, _reduced)  # type: ignore[arg-type]  # typed for functions that make instances
