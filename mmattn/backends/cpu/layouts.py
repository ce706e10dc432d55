"""How tokens are cut into groups for the kernels and put together again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.cpu.plans import Group, Plan


class Part(NamedTuple):
    """One call of a kernel.

    Attributes:
        bias: the cut of the bias that belongs to it, as an index of its last two axes; None for all of it.
        add: added to the logits besides the bias, or None.
        causal: whether query i sees keys up to i alone.
        dead: ``[b, 1 or H, N, 1]``, True for queries that see no key; None when all see one.
    """

    bias: tuple[slice, slice] | None = None
    add: Tensor | None = None
    causal: bool = False
    dead: Tensor | None = None


class Layout(ABC):
    """Cuts queries and keys into parts ``[b, H, N, K]`` and joins parts again."""

    parts: Sequence[Part]

    @abstractmethod
    def cut_queries(self, x: Tensor) -> list[Tensor]:
        """Queries, or what has their shape, as one ``[b, H, N, K]`` for each part."""

    @abstractmethod
    def cut_keys(self, x: Tensor) -> list[Tensor]:
        """Keys or values as one ``[b, H, M, K]`` for each part."""

    @abstractmethod
    def join_queries(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """The reverse of :meth:`cut_queries`."""

    @abstractmethod
    def join_keys(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """The sum over all parts of what belongs to each key; ``like`` has the shape wanted."""


class Whole(Layout):
    """A dense call: one part, ``[B, H, N, K]``."""

    def __init__(self, part: Part) -> None:
        self.parts = (part,)

    def cut_queries(self, x: Tensor) -> list[Tensor]:
        return [x]

    def cut_keys(self, x: Tensor) -> list[Tensor]:
        return [x]

    def join_queries(self, parts: list[Tensor], like: Tensor) -> Tensor:
        return parts[0]

    def join_keys(self, parts: list[Tensor], like: Tensor) -> Tensor:
        return parts[0]


class Grouped(Layout):
    """Packed tokens ``[T, H, K]``, cut as a plan says."""

    def __init__(self, plan: Plan, parts: Sequence[Part]) -> None:
        self.plan = plan
        self.parts = parts

    def cut_queries(self, x: Tensor) -> list[Tensor]:
        return self._cut(x, self.plan.q_order, queries=True)

    def cut_keys(self, x: Tensor) -> list[Tensor]:
        return self._cut(x, self.plan.k_order, queries=False)

    def join_queries(self, parts: list[Tensor], like: Tensor) -> Tensor:
        return self._join(parts, like, self.plan.q_back, queries=True)

    def join_keys(self, parts: list[Tensor], like: Tensor) -> Tensor:
        return self._join(parts, like, self.plan.k_back, queries=False)

    def _cut(self, x: Tensor, order: Tensor | None, queries: bool) -> list[Tensor]:
        if order is not None:
            x = x.index_select(0, order)
        cuts, begin = [], 0
        for group in self.plan.groups:
            tokens, longest, slots = _side(group, queries)
            part = x.narrow(0, begin, tokens)
            begin += tokens
            count = len(group.members)
            if slots is not None:
                part = x.new_zeros(count * longest, *x.shape[1:]).index_copy_(0, slots, part)
            cuts.append(part.view(count, longest, *x.shape[1:]).transpose(1, 2))
        return cuts

    def _join(self, parts: list[Tensor], like: Tensor, back: Tensor | None, queries: bool) -> Tensor:
        flat = []
        for group, part in zip(self.plan.groups, parts, strict=True):
            _, _, slots = _side(group, queries)
            rows = part.transpose(1, 2).reshape(-1, *like.shape[1:])
            flat.append(rows if slots is None else rows.index_select(0, slots))
        if not flat:
            return like.new_zeros(like.shape)
        joined = flat[0] if len(flat) == 1 else torch.cat(flat)
        return joined if back is None else joined.index_select(0, back)


def _side(group: Group, queries: bool) -> tuple[int, int, Tensor | None]:
    if queries:
        return group.q_tokens, group.queries, group.q_slots
    return group.k_tokens, group.keys, group.k_slots


class Blocks(Layout):
    """A window in blocks: the keys from ``low`` to ``high`` behind a query, for ``size`` queries at a time, with
    ``low <= 0 <= high``.

    The keys get a margin of zeros, so that every block sees equally many; neighbouring blocks share keys, which
    are views of the same memory. Blocks that reach into the margin have a mask of their own, all others one
    together. The cost is linear in the length.
    """

    def __init__(
        self, batch: int, queries: int, keys: int, low: int, high: int, size: int, dtype: torch.dtype
    ) -> None:
        self.batch, self.queries, self.keys, self.low, self.size = batch, queries, keys, low, size
        self.blocks = -(-queries // size)
        self.span = size + high - low
        places = torch.arange(self.blocks)[:, None] * size + low + torch.arange(self.span)
        absent = (places < 0) | (places >= keys)
        inside = _band(size, low, high, dtype)
        self.ranges = _ranges(absent.any(1).tolist())
        self.parts = [_block_part(inside, absent[begin:end]) for begin, end in self.ranges] * batch

    def cut_queries(self, x: Tensor) -> list[Tensor]:
        room = self.blocks * self.size - self.queries
        x = F.pad(x, (0, 0, 0, room)) if room else x
        return self._spread(x.unflatten(2, (self.blocks, self.size)))

    def cut_keys(self, x: Tensor) -> list[Tensor]:
        rows = (self.blocks - 1) * self.size + self.span
        # a negative margin cuts off keys that no block reaches
        x = F.pad(x, (0, 0, -self.low, rows + self.low - self.keys))
        return self._spread(x.unfold(2, self.span, self.size).transpose(-1, -2))

    def _spread(self, x: Tensor) -> list[Tensor]:
        """``[B, H, blocks, n, K]`` as views ``[blocks of a range, H, n, K]``, sequence by sequence."""
        x = x.transpose(1, 2)
        return [x[index, begin:end] for index in range(self.batch) for begin, end in self.ranges]

    def _places(self) -> list[tuple[int, int, int]]:
        """Sequence, first block and end of each part."""
        return [(index, begin, end) for index in range(self.batch) for begin, end in self.ranges]

    def join_queries(self, parts: list[Tensor], like: Tensor) -> Tensor:
        # tokens before heads, as the kernels write them, so that the copies are of whole blocks
        total = parts[0].new_empty(self.batch, self.blocks, self.size, like.shape[1], like.shape[3])
        for (index, begin, end), part in zip(self._places(), parts, strict=True):
            total[index, begin:end] = part.transpose(1, 2)
        return total.flatten(1, 2)[:, : self.queries].transpose(1, 2)

    def join_keys(self, parts: list[Tensor], like: Tensor) -> Tensor:
        steps = -(-self.span // self.size)
        total = parts[0].new_zeros(
            self.batch, self.blocks + steps - 1, self.size, like.shape[1], like.shape[3]
        )
        for (index, begin, end), part in zip(self._places(), parts, strict=True):
            for step in range(steps):
                piece = part[:, :, step * self.size : (step + 1) * self.size].transpose(1, 2)
                total[index, begin + step : end + step, : piece.shape[1]] += piece
        # row r of the total is key r + low
        return total.flatten(1, 2)[:, -self.low : self.keys - self.low].transpose(1, 2)


def _ranges(flags: list[bool]) -> list[tuple[int, int]]:
    """Neighbours with the same flag, as (begin, end)."""
    changes = [i for i in range(1, len(flags)) if flags[i] != flags[i - 1]]
    return list(zip([0, *changes], [*changes, len(flags)], strict=True))


def _block_part(inside: Tensor, absent: Tensor) -> Part:
    if not bool(absent.any()):
        return Part(add=inside)
    add = inside.masked_fill(absent[:, None, None, :], -torch.inf)
    dead = (add == -torch.inf).all(-1, keepdim=True)
    if not bool(dead.any()):
        return Part(add=add)
    return Part(add=add.masked_fill(dead, 0.0), dead=dead)


def _band(size: int, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """``[1, 1, size, size + high - low]``: 0 inside the band, -inf outside."""
    distance = torch.arange(size + high - low) - torch.arange(size)[:, None]
    outside = (distance < 0) | (distance > high - low)
    return torch.zeros(outside.shape, dtype=dtype).masked_fill(outside, -torch.inf)[None, None]
