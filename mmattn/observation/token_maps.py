"""Which token of the input stands in which place of an attention call, found out by running the model.

Windows, their shifts, padding and merging are code of the host. Rather than repeating that code, this module asks
it: with all attention results set to zero, each place of a call depends on the tokens that were brought there and
on nothing else, so that gradients, once with plain and once with numbered cotangents, lead back to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmattn.tokens import TokenBatch

#: Numbers of places are split into digits of this base, small enough for the precision of float32.
_BASE = 1024
#: How far from a whole number a decoded digit may lie.
_TOLERANCE = 0.05


class Places(NamedTuple):
    """Where the tokens of a tensor went.

    Attributes:
        channels: the axes of the tensor that hold features; its other axes, flattened, count its tokens.
        slots: ``[P]``: the place that each token went to, -1 = none.
    """

    channels: tuple[int, ...]
    slots: Tensor


#: Stands for the places of tokens that were mixed: an output place depends on part of a token, or a token on two.
MIXED = Places((), torch.empty(0))


def places(
    output: Tensor,
    channels: tuple[int, ...],
    inputs: Sequence[Tensor],
    known: Mapping[int, tuple[int, ...]] | None = None,
) -> list[Places | None]:
    """For each input, where in an output its tokens went; None where they did not go there at all.

    Several tokens may have gone to one place, as in patch merging. Where one token went to several places, or
    neighbours were mixed as by an overlapping convolution, this is :data:`MIXED`.

    Args:
        output: its axes other than the channels, flattened, count its places.
        channels: axes of features.
        inputs: tensors that the output may have been made of.
        known: axes of features of some inputs, by their identity; of others it is found out.
    """
    shape = [1 if i in channels else size for i, size in enumerate(output.shape)]
    count = math.prod(shape)
    draw = torch.Generator().manual_seed(0)
    # numbered in no order, so that sums over neighbours are not the number of the one between them
    numbers = torch.randperm(count, generator=draw)
    weights = torch.randn(output.shape, generator=draw, dtype=torch.float64).to(output)
    cotangents = [
        weights,
        *(weights * (1 + digit).view(shape).to(output) for digit in (numbers // _BASE, numbers % _BASE)),
    ]
    found = [
        torch.autograd.grad(output, inputs, cotangent, retain_graph=True, allow_unused=True)
        for cotangent in cotangents
    ]
    back = torch.empty_like(numbers).scatter_(0, numbers, torch.arange(count))
    by_input = zip(inputs, zip(*found, strict=True), strict=True)
    return [_decoded(of_one, back, (known or {}).get(id(x))) for x, of_one in by_input]


def tokens_of(x: Tensor, channels: tuple[int, ...]) -> Tensor:
    """``[P, C]``: the tokens of a tensor, with their features."""
    axes = [i for i in range(x.ndim) if i not in channels]
    return x.permute(*axes, *channels).flatten(len(axes)).flatten(0, -2)


def _decoded(
    gradients: tuple[Tensor | None, ...], back: Tensor, known: tuple[int, ...] | None
) -> Places | None:
    given = [g for g in gradients if g is not None]
    if len(given) < 3:
        return None
    last = given[0].ndim - 1
    for channels in [known] if known else [(last,), (1,)] if last > 1 else [(last,)]:
        plain, *numbered = (tokens_of(g, channels).double().cpu() for g in given)
        norm = plain.square().sum(-1)
        reached = norm > 0
        if not reached.any():
            return None
        digits = []
        for one in numbered:
            ratio = (one * plain).sum(-1)[reached] / norm[reached]
            rest = (one[reached] - ratio[:, None] * plain[reached]).square().sum(-1) / norm[reached]
            if (ratio - ratio.round()).abs().max() > _TOLERANCE or rest.max().sqrt() > _TOLERANCE:
                break
            digits.append(ratio.round().long() - 1)
        else:
            numbers = digits[0] * _BASE + digits[1]
            if int(numbers.min()) < 0 or int(numbers.max()) >= len(back):
                continue
            slots = torch.full(norm.shape, -1)
            slots[reached] = back[numbers]
            return Places(channels, slots)
    return MIXED


@dataclass(eq=False)
class Entry:
    """A module that is running: what went in, and how many attention calls there had been before."""

    name: str
    tensors: list[Entered]
    calls_before: int


@dataclass(eq=False)
class Entered:
    """A tensor that entered a module: which, and the lengths of packed tokens."""

    name: str
    tensor: Tensor
    lengths: Tensor | None = None


@dataclass(eq=False)
class Entries:
    """The modules that are running, outermost first."""

    calls: int = 0
    running: list[Entry] = field(default_factory=list)

    def fresh(self) -> list[Entered]:
        """Tensors that entered a module in which there was no attention call yet, each once."""
        found = [t for e in self.running if e.calls_before == self.calls for t in e.tensors]
        return list({id(t.tensor): t for t in reversed(found)}.values())[::-1]


@contextmanager
def watched_entries(model: nn.Module, names: Iterable[str], entries: Entries) -> Iterator[None]:
    """Note what enters the modules around those that are named; floating tensors get a graph to hang on."""
    around = {""}
    for name in names:
        parts = name.split(".")
        around |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name in around:
                for handle in _hooks(name, module, entries):
                    stack.callback(handle.remove)
        yield


def _hooks(name: str, module: nn.Module, entries: Entries) -> list[Any]:
    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        entry = Entry(name, [], entries.calls)
        known: dict[int, Any] = {}
        changed = _noted(args, entry, known), _noted(kwargs, entry, known)
        entries.running.append(entry)
        return changed

    def leave(*_: Any) -> None:
        entries.running.pop()

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave),
    ]


def _noted(x: Any, entry: Entry, known: dict[int, Any]) -> Any:
    """The same structure, whose floating tensors have a graph; the same tensor stays the same."""
    if isinstance(x, (TokenBatch, Tensor)):
        if id(x) not in known:
            known[id(x)] = _with_graph(x, entry)
        return known[id(x)]
    if isinstance(x, dict) and type(x) is dict:
        return {key: _noted(value, entry, known) for key, value in x.items()}
    if type(x) in (tuple, list):
        return type(x)(_noted(value, entry, known) for value in x)
    return x


def _with_graph(x: TokenBatch | Tensor, entry: Entry) -> TokenBatch | Tensor:
    values = x.values if isinstance(x, TokenBatch) else x
    if not values.is_floating_point() or values.ndim < 2:
        return x
    had_graph = values.requires_grad
    if not had_graph:
        values = values.detach().clone().requires_grad_()
    lengths = x.lengths if isinstance(x, TokenBatch) else None
    entry.tensors.append(Entered(entry.name, values, lengths))
    if had_graph:
        return x
    return x.replace(values) if isinstance(x, TokenBatch) else values
