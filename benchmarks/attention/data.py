"""Lengths of real data as small tables, and batches drawn from them.

Measured on the training files: SST-2 (6,920 sentences) in words separated by spaces; the Free Spoken Digit
Dataset (3,000 clips) in frames of 10 ms; connected digits as 3 to 8 clips of it joined at random, in frames of
10 ms; Multi30k (29,000 English sentences) in pieces of one byte-pair vocabulary of 8,000 for English and German,
with a token for begin and end.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmattn.tokens import TokenBatch

PERCENT = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 100)

#: Length at each of ``PERCENT``.
LENGTHS = {
    "SST-2": (1, 2, 5, 7, 10, 13, 15, 18, 20, 23, 27, 31, 35, 40, 43, 45, 51),
    "FSDD": (15, 20, 25, 28, 33, 36, 40, 42, 46, 49, 54, 61, 67, 81, 93, 104, 229),
    "connected digits": (69, 98, 118, 132, 160, 187, 214, 239, 266, 292, 319, 351, 376, 404, 423, 443, 589),
    "Multi30k": (6, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 22, 25, 28, 30, 33, 49),
}

#: Batches that are sorted together when batches are bucketed.
POOL = 16


def draw_lengths(name: str, count: int, seed: int = 0) -> list[int]:
    """Lengths drawn from a table of ``LENGTHS``, linear between its points."""
    draw, table = random.Random(f"{name} {seed}"), LENGTHS[name]
    lengths = []
    for _ in range(count):
        percent = 100 * draw.random()
        at = min(bisect_right(PERCENT, percent), len(PERCENT) - 1)
        share = (percent - PERCENT[at - 1]) / (PERCENT[at] - PERCENT[at - 1])
        lengths.append(round(table[at - 1] + share * (table[at] - table[at - 1])))
    return lengths


def random_batches(lengths: list[int], size: int) -> list[list[int]]:
    """Cut into batches as they come."""
    return [lengths[i : i + size] for i in range(0, len(lengths), size)]


def bucketed_batches(lengths: list[int], size: int, seed: int = 0) -> list[list[int]]:
    """Sort, cut into batches, shuffle the batches: little padding is left.

    Example:
        >>> sorted(bucketed_batches([5, 1, 4, 2], size=2))
        [[1, 2], [4, 5]]
    """
    batches = random_batches(sorted(lengths), size)
    random.Random(seed).shuffle(batches)
    return batches


def spread(batches: list[list[int]], count: int) -> list[list[int]]:
    """``count`` batches that stand for all: every n-th by their number of tokens, from the middle of each group."""
    by_size = sorted(batches, key=sum)
    step = len(by_size) / count
    return [by_size[int((i + 0.5) * step)] for i in range(count)]


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch: what a step reads, packed and padded, with one class for each sequence.

    Attributes:
        values: ``[T, D]`` random tokens.
        lengths: of the B sequences.
        labels: ``[B]``.
    """

    values: Tensor
    lengths: tuple[int, ...]
    labels: Tensor

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """Values ``[B, L, D]`` and mask ``[B, L]``, True = real token."""
        return TokenBatch(self.values, self.lengths).to_padded()

    @property
    def padding(self) -> float:
        """Share of a padded batch that is padding."""
        return 1 - sum(self.lengths) / (len(self.lengths) * max(self.lengths))


def batches_of(
    groups: list[list[int]], embed_dim: int, classes: int, seed: int = 0, device: str = "cpu"
) -> list[Batch]:
    """Fixed random tokens and labels for groups of lengths."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for lengths in groups:
        values = torch.randn(sum(lengths), embed_dim, generator=generator).to(device)
        labels = torch.randint(classes, (len(lengths),), generator=generator).to(device)
        batches.append(Batch(values, tuple(lengths), labels))
    return batches


def tokens(batches: list[Batch]) -> int:
    """Real tokens of all batches."""
    return sum(sum(batch.lengths) for batch in batches)
