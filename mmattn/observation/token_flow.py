"""Where every token of the input stands in all attention calls of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmattn.observation.token_maps import MIXED, Entered, Places, tokens_of


@dataclass(eq=False)
class Source:
    """Tokens that enter a model together.

    Attributes:
        name: of the module that they enter.
        grid: height and width, where they enter as a picture.
        width: how many there are in one example, at most.
        shown: whether relevance is given for them; not for the queries of a pool, say.
    """

    name: str
    grid: tuple[int, int] | None
    width: int
    shown: bool = True


@dataclass(eq=False)
class Placed:
    """One attention call, and where the tokens of the input stand in it.

    Attributes:
        name: of the module.
        shape: of the weights, ``[B, H, N, M]`` with windows among the batch.
        q, k: ``[U]``: for each of all tokens the place among the B * N queries and B * M keys; -1 = none.
        residual: whether the tokens go on past the attention; a pool keeps its result alone.
    """

    name: str
    shape: torch.Size
    q: Tensor
    k: Tensor
    residual: bool = True


@dataclass(eq=False)
class Flow:
    """All tokens of a batch, those of all examples together, and all attention calls in their order.

    Attributes:
        owner: ``[U]``: the example that each token belongs to.
        source: ``[U]``: which of the sources it comes from.
        position: ``[U]``: its place among those of its example and source.
        last: ``[U]``: the last call in which it is a query; -1 = none.
    """

    calls: list[Placed]
    sources: list[Source]
    owner: Tensor
    source: Tensor
    position: Tensor
    last: Tensor


def best_source(
    found: list[tuple[Entered, Places | None]], covered: Tensor
) -> tuple[Entered, Places, Tensor] | None:
    """The tensor whose tokens, one for one, take most of the places that are left; outer ones come first.

    With it comes which of its tokens are new.
    """
    best, most = None, 0
    for entered, to in found:
        if to is None or to is MIXED:
            continue
        reached = to.slots >= 0
        new = reached & ~covered[to.slots.clamp(min=0)]
        holds = (tokens_of(entered.tensor.detach(), to.channels) != 0).any(-1).cpu()
        if holds.any() or covered.any():  # beside other tokens, zeros are padding
            holds &= new
        else:
            holds = new
        if len(to.slots[reached].unique()) == int(reached.sum()) and int(holds.sum()) > most:
            most = int(holds.sum())
            best = entered, to, holds if covered.any() else torch.ones_like(new)
    return best


def owners(entered: Entered, to: Places, per_window: int) -> Tensor | None:
    """The example that each token of a tensor belongs to: its first axis, or the second where tokens come first."""
    shape = [n for i, n in enumerate(entered.tensor.shape) if i not in to.channels]
    if entered.lengths is not None:
        return torch.arange(len(entered.lengths)).repeat_interleave(entered.lengths)
    reached = to.slots >= 0
    windows = to.slots[reached] // per_window
    for axis in range(min(2, len(shape))):
        owner = torch.arange(shape[axis]).view([-1 if i == axis else 1 for i in range(len(shape))])
        owner = owner.expand(shape).flatten()
        pairs = torch.stack([windows, owner[reached]], 1).unique(dim=0)
        if len(pairs) == len(windows.unique()):
            return owner
    return None


def covered_places(slots: Tensor, count: int) -> Tensor:
    """Which of the places are taken."""
    covered = torch.zeros(count, dtype=torch.bool)
    covered[slots[slots >= 0]] = True
    return covered


def padded(slots: Tensor, count: int) -> Tensor:
    return torch.cat([slots, torch.full((count - len(slots),), -1)])
