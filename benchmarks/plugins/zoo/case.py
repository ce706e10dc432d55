"""One model of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten


class Inputs(NamedTuple):
    """What a model is called with."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})


def tensors_of(output: Any) -> list[Tensor]:
    """All floating-point tensors of what a model returns, in order."""
    if hasattr(output, "to_tuple"):  # a transformers ModelOutput
        output = output.to_tuple()
    return [x for x in tree_flatten(output)[0] if isinstance(x, Tensor) and x.is_floating_point()]


def explicit(model: nn.Module) -> None:
    """Let a model spell its attention out, where it has timm's switch for it."""
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            setattr(module, "fused_attn", False)  # noqa: B010  # mypy takes any attribute of a module for a tensor


def as_it_is(model: nn.Module) -> None:
    """For models whose fused calls are counted as they are; the checks write their softmax."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        id: ``library/model``.
        build: makes the model, with random weights; it is redrawn and set to ``eval`` by the checks.
        inputs: makes the inputs; called under a fixed seed.
        outputs: what is compared of that which the model returns.
        explicit: lets the model, in place, take its softmax in the open, so that the weights are seen without
            the library under test; where it cannot, the checks write the softmax themselves.
        heads: number of heads of modules by their names, as patterns, for hosts that fold heads into the batch.
        heads_axis: the axis of the heads in the host's own weights of five and more axes.
        host_made: names of modules whose weights the host makes itself (heads mixed after the softmax), as patterns.
        mixes: False for models without softmax attention over tokens: nothing may be plugged into them.
        left_alone: names of modules that must be skipped with a reason.
        sinks: whether the host's own weights end with those of a sink, which is no key.
        gradients: whether the model can be differentiated.
        gain: what linear layers are redrawn with; larger where attention would be too even.
        quick: whether the usual test run takes it.
    """

    id: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    outputs: Callable[[Any], list[Tensor]] = tensors_of
    explicit: Callable[[nn.Module], None] = explicit
    heads: dict[str, int] = field(default_factory=dict)
    heads_axis: int | None = None
    host_made: tuple[str, ...] = ()
    mixes: bool = True
    left_alone: tuple[str, ...] = ()
    sinks: bool = False
    gradients: bool = True
    gain: float = 1.5
    quick: bool = False


def picture(size: int, batch: int = 2, channels: int = 3) -> Callable[[], Inputs]:
    """Pictures ``[B, C, size, size]``."""
    return lambda: Inputs((torch.randn(batch, channels, size, size),))
