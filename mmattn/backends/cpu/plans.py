"""How packed sequences go through the kernels: sorted by length, in groups that share a call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

#: What a group costs in microseconds however small it is: in half precision the products are quick, their calls
#: are not.
GROUP_COST, GROUP_COST_HALF = 60.0, 230.0
#: What a filled-up token costs in microseconds, and more for each key.
_TOKEN_COST = (0.3, 0.025)
#: Longer sequences keep a call of their own length: there hiding what is filled up costs more than a call.
_LONGEST_SHARED = 256


class Group(NamedTuple):
    """Neighbouring sequences, by rising length, that share a call.

    Attributes:
        members: indices of the sequences in the batch.
        queries, keys: the longest of them.
        q_tokens, k_tokens: how many tokens they have.
        q_slots, k_slots: where tokens go in ``[count * longest]``; None where all are equally long.
        behind: what is added to the logits, ``[count, 1, 1, M]``: -inf behind the end of a sequence.
    """

    members: tuple[int, ...]
    queries: int
    keys: int
    q_tokens: int
    k_tokens: int
    q_slots: Tensor | None
    k_slots: Tensor | None
    behind: Tensor | None


class Plan(NamedTuple):
    """Groups, and the order of the tokens in which they lie one after the other; None: as they are."""

    groups: tuple[Group, ...]
    q_order: Tensor | None
    k_order: Tensor | None
    q_back: Tensor | None
    k_back: Tensor | None


@lru_cache(maxsize=256)
def plan(
    q_lengths: tuple[int, ...], k_lengths: tuple[int, ...], fill: bool = True, half: bool = False
) -> Plan:
    """The plan for packed sequences of these lengths; the layers of a model share it.

    ``fill=False`` keeps unequal lengths apart; ``half`` is for half precision, where calls cost more.
    """
    order = sorted(range(len(k_lengths)), key=lambda i: (k_lengths[i], q_lengths[i]))
    if all(a == b for a, b in zip(q_lengths, k_lengths, strict=True)) and list(k_lengths) == sorted(
        k_lengths, reverse=True
    ):
        order = list(range(len(k_lengths)))  # falling is as good as rising and moves nothing
    runs = [list(run) for _, run in groupby(order, key=lambda i: (q_lengths[i], k_lengths[i]))]
    if fill:
        runs = merged(runs, q_lengths, k_lengths, GROUP_COST_HALF if half else GROUP_COST, _LONGEST_SHARED)
    groups = [_group(members, q_lengths, k_lengths) for members in runs]
    q_order, q_back = _moves(q_lengths, order)
    k_order, k_back = (q_order, q_back) if q_lengths == k_lengths else _moves(k_lengths, order)
    return Plan(tuple(groups), q_order, k_order, q_back, k_back)


def merged(
    runs: list[list[int]],
    q_lengths: Sequence[int],
    k_lengths: Sequence[int],
    group_cost: float,
    longest: float = math.inf,
) -> list[list[int]]:
    """Join neighbouring runs of equal lengths while filling up costs less than a group of its own.

    Runs are lists of sequences; those above ``longest`` stay apart.
    """
    groups: list[list[int]] = []
    for run in runs:
        joined = groups[-1] + run if groups else run
        ends = [lengths[i] for i in (joined[0], joined[-1], run[0]) for lengths in (q_lengths, k_lengths)]
        if groups and min(ends) > 0 and max(ends) <= longest:
            more = _filled(joined, q_lengths, k_lengths) - _filled(groups[-1], q_lengths, k_lengths)
            if more * (_TOKEN_COST[0] + _TOKEN_COST[1] * max(ends)) < group_cost:
                groups[-1] = joined
                continue
        groups.append(run)
    return groups


def _filled(members: list[int], q_lengths: Sequence[int], k_lengths: Sequence[int]) -> float:
    """Tokens filled up where these sequences share a group, half of them queries and half keys."""
    filled = 0
    for lengths in (q_lengths, k_lengths):
        sizes = [lengths[i] for i in members]
        filled += len(sizes) * max(sizes) - sum(sizes)
    return filled / 2


def _group(members: list[int], q_lengths: Sequence[int], k_lengths: Sequence[int]) -> Group:
    of_q, of_k = [q_lengths[i] for i in members], [k_lengths[i] for i in members]
    longest = max(of_k)
    behind = None
    if min(of_k) < longest:
        end = torch.tensor(of_k)[:, None]
        behind = torch.zeros(len(members), longest).masked_fill(torch.arange(longest) >= end, -torch.inf)
        behind = behind[:, None, None]
    return Group(tuple(members), max(of_q), longest, sum(of_q), sum(of_k), _slots(of_q), _slots(of_k), behind)


def _slots(lengths: list[int]) -> Tensor | None:
    """The row of each token when every sequence is given room for the longest; None when that moves none."""
    if min(lengths) == max(lengths):
        return None
    sizes = torch.tensor(lengths)
    shift = torch.arange(len(lengths)) * max(lengths) - (sizes.cumsum(0) - sizes)
    return torch.arange(sum(lengths)) + shift.repeat_interleave(sizes)


def _moves(lengths: Sequence[int], order: list[int]) -> tuple[Tensor | None, Tensor | None]:
    """The tokens in the order of the sequences given, and the way back."""
    if order == list(range(len(order))):
        return None, None
    sizes = torch.tensor(lengths, dtype=torch.long)
    starts = sizes.cumsum(0) - sizes
    sequences = torch.tensor(order, dtype=torch.long)
    moved = sizes[sequences]
    shift = starts[sequences] - (moved.cumsum(0) - moved)
    forth = torch.arange(int(sizes.sum())) + shift.repeat_interleave(moved)
    back = torch.empty_like(forth)
    back[forth] = torch.arange(len(forth))
    return forth, back
