"""Packed self-attention on slots: each token has a place in a buffer where groups of equal length lie end to end.

One gather brings the fused projections of all heads there, and one brings the results back; groups are views.
Sequences of nearly equal length share a group, filled up with zeros, where a call costs more than the filling.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.backends.cpu.plans import GROUP_COST_HALF, merged


class Stretch(NamedTuple):
    """A group: ``sequences`` of ``length`` slots each, from ``begin`` on.

    ``behind`` is added to the logits, ``[sequences, 1, 1, length]``, -inf behind the end of a sequence; None where
    all are full. ``weights`` is where its attention weights begin in a flat buffer, in units of one head.
    """

    begin: int
    sequences: int
    length: int
    weights: int
    behind: Tensor | None


class Slots(NamedTuple):
    """Where the tokens of a batch go.

    Attributes:
        groups: the groups, by length.
        total: slots of all groups.
        weights: numbers in the attention weights of one head.
        token_of: ``[total]``, the token in each slot, T where it is empty.
    """

    groups: tuple[Stretch, ...]
    total: int
    weights: int
    token_of: Tensor


@lru_cache(maxsize=64)
def slots(lengths: tuple[int, ...]) -> Slots:
    """The slots of sequences with these lengths; the layers of a model share them."""
    order = sorted((i for i in range(len(lengths)) if lengths[i]), key=lengths.__getitem__)
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    groups: list[Stretch] = []
    token_of: list[Tensor] = []
    begin = weights = 0
    runs = [list(run) for _, run in groupby(order, key=lengths.__getitem__)]
    for members in merged(runs, lengths, lengths, GROUP_COST_HALF):
        of_each = torch.tensor([lengths[i] for i in members])
        longest, count = int(of_each[-1]), len(members)
        place = torch.arange(longest)
        tokens = torch.tensor([starts[i] for i in members])[:, None] + place
        empty = place >= of_each[:, None]
        behind = None
        if bool(empty.any()):
            tokens = tokens.masked_fill(empty, starts[-1])
            behind = torch.zeros(empty.shape).masked_fill(empty, -torch.inf)[:, None, None]
        groups.append(Stretch(begin, count, longest, weights, behind))
        token_of.append(tokens.flatten())
        begin += count * longest
        weights += count * longest * longest
    where = torch.cat(token_of) if token_of else torch.zeros(0, dtype=torch.long)
    return Slots(tuple(groups), begin, weights, where)


@lru_cache(maxsize=64)
def fused_rows(lengths: tuple[int, ...], parts: int, heads: int) -> tuple[Tensor, Tensor]:
    """Row numbers to gather by, for tokens ``[T + 1, parts, heads, K]`` (the last one zeros) seen as rows of K.

    Returns:
        forth, which lays out each group as ``[parts, count, heads, length, K]``, one group after the other; and
        back, which lays such a buffer out as ``[T, parts, heads, K]``.
    """
    how = slots(lengths)
    inner = torch.arange(parts)[:, None, None, None] * heads + torch.arange(heads)[:, None]
    forth = []
    back = torch.empty((sum(lengths) + 1) * parts * heads, dtype=torch.long)
    for group in how.groups:
        tokens = how.token_of[group.begin : group.begin + group.sequences * group.length]
        rows = tokens.view(1, group.sequences, 1, group.length) * (parts * heads) + inner
        forth.append(rows.flatten())
    all_rows = torch.cat(forth) if forth else torch.zeros(0, dtype=torch.long)
    back[all_rows] = torch.arange(len(all_rows))
    return all_rows, back[: sum(lengths) * parts * heads]
