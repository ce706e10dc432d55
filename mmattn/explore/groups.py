"""Tokens that are shown as one: bytes of a character, and neighbours where there are too many tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmattn.explore.packing import Domain


def grouped(
    domain: Domain, tokens: Sequence[str], regions: Sequence[Sequence[float]], most: int
) -> tuple[Tensor, list[str]]:
    """Which tokens are shown as one, and sentences on that.

    Args:
        domain: whose tokens they are.
        tokens: as text; empty ones belong to the one before.
        regions: where they lie; those of pictures and sounds without a place stay on their own.
        most: how many are shown at most.

    Returns:
        ``[n]``: the group of each token, from 0 without gaps, in the order of their first tokens.
    """
    groups, notes = torch.arange(len(tokens)), []
    if domain == "text":
        shown = torch.tensor([bool(token) or i == 0 for i, token in enumerate(tokens)], dtype=torch.bool)
        groups = shown.cumsum(0) - 1
        if not bool(shown.all()):
            notes.append("Tokens that are parts of one character are shown as one.")
    count = int(groups.max()) + 1 if len(groups) else 0
    if count <= most:
        return groups, notes
    if domain == "vision":
        groups, side = _blocks(regions, most)
        notes.append(f"{count} tokens are more than {most}: blocks of {side} × {side} are shown as one.")
    else:
        step = math.ceil(count / most)
        groups = groups // step
        notes.append(f"{count} tokens are more than {most}: {step} neighbours are shown as one.")
    return groups, notes


def _blocks(regions: Sequence[Sequence[float]], most: int) -> tuple[Tensor, int]:
    """Blocks of patches, as small as fit."""
    placed = [tuple(region[:2]) for region in regions if region]
    rows = {top: i for i, top in enumerate(sorted({top for top, _ in placed}))}
    columns = {left: i for i, left in enumerate(sorted({left for _, left in placed}))}
    side = 1
    while True:
        side += 1
        keys: list[tuple[float, ...]] = [
            (0, rows[region[0]] // side, columns[region[1]] // side) if region else (1, i, 0)
            for i, region in enumerate(regions)
        ]
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        if len(numbers) <= most or side >= max(len(rows), len(columns)):
            return torch.tensor([numbers[key] for key in keys]), side


def joined(regions: Sequence[Sequence[float]], groups: Tensor) -> list[list[float]]:
    """The regions of groups: the smallest that hold those of their tokens."""
    found: list[list[float]] = [[] for _ in range(int(groups.max()) + 1)]
    for region, group in zip(regions, groups.tolist(), strict=True):
        before, half = found[group], len(region) // 2
        if before and region:
            starts = [min(pair) for pair in zip(before[:half], region[:half], strict=True)]
            stops = [max(pair) for pair in zip(before[half:], region[half:], strict=True)]
            found[group] = [*starts, *stops]
        elif region:
            found[group] = list(region)
    return found


def in_groups(weights: Tensor, q: Tensor, k: Tensor, groups: Tensor) -> Tensor:
    """Attention between groups of tokens.

    A group's row is the mean of those of its tokens, its column their sum. A place that holds several tokens, as
    after patches were merged, shares its column among them in equal parts.

    Args:
        weights: ``[W, H, n, m]``, windows first.
        q: ``[U]``: the place of each token among the W * n queries, -1 = none.
        k: ``[U]``: the same among the W * m keys.
        groups: ``[U]``.

    Returns:
        ``[H, G, G]``; rows of groups that nowhere ask are 0.

    Example:
        >>> both = torch.tensor([0, 0, 1])
        >>> in_groups(torch.eye(3)[None, None], torch.arange(3), torch.arange(3), both)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    windows, _, n, m = weights.shape
    asking = _shares(q, groups, windows * n)
    asking = asking / asking.sum(0).clamp(min=1)
    asked = _shares(k, groups, windows * m)
    asked = asked / asked.sum(1, keepdim=True).clamp(min=1)
    asking, asked = asking.unflatten(0, (windows, n)), asked.unflatten(0, (windows, m))
    return torch.einsum("wng,whnm,wmk->hgk", asking, weights.float(), asked)


def columns_in_groups(weights: Tensor, k: Tensor, groups: Tensor) -> Tensor:
    """Attention ``[H, n, G]`` of queries that are no tokens, by weights ``[1, H, n, m]``; see :func:`in_groups`."""
    asked = _shares(k, groups, weights.shape[-1])
    return weights[0].float() @ (asked / asked.sum(1, keepdim=True).clamp(min=1))


def _shares(places: Tensor, groups: Tensor, count: int) -> Tensor:
    """``[count, G]``: how many tokens of each group stand in each place."""
    there = places >= 0
    found = torch.zeros(count, int(groups.max()) + 1)
    return found.index_put((places[there], groups[there]), torch.ones(int(there.sum())), accumulate=True)
