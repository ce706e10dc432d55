"""Made-up data that can be learned, with wrong labels mixed in so that the loss has a floor well above zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.attention import data
from benchmarks.attention.data import Batch
from benchmarks.attention.steps import CLASSES
from benchmarks.attention.vit import Pictures

#: Share of labels that are replaced by a random class.
WRONG = 0.3


def floor() -> float:
    """The cross entropy that a perfect model reaches."""
    other = WRONG / CLASSES
    right = 1 - WRONG + other
    return -right * math.log(right) - (CLASSES - 1) * other * math.log(other)


def sequences(name: str, embed_dim: int, batches: int, size: int, seed: int) -> list[Batch]:
    """Noise, with the direction of the sequence's class added to every fourth token."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(CLASSES, embed_dim, generator=torch.Generator().manual_seed(0))
    made = []
    for lengths in data.random_batches(data.draw_lengths(name, batches * size, seed), size):
        classes = torch.randint(CLASSES, (len(lengths),), generator=generator)
        values = torch.randn(sum(lengths), embed_dim, generator=generator)
        marked = torch.rand(sum(lengths), 1, generator=generator) < 0.25
        values += marked * directions[classes].repeat_interleave(torch.tensor(lengths), 0)
        made.append(Batch(values, tuple(lengths), _with_wrong_ones(classes, generator)))
    return made


def pictures(side: int, batches: int, size: int, seed: int) -> list[Pictures]:
    """Noise with the coarse pattern of the picture's class added."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    patterns = torch.nn.functional.interpolate(coarse, size=(side, side))
    made = []
    for _ in range(batches):
        classes = torch.randint(CLASSES, (size,), generator=generator)
        values = torch.randn(size, 3, side, side, generator=generator) + 0.5 * patterns[classes]
        made.append(Pictures(values, _with_wrong_ones(classes, generator)))
    return made


def _with_wrong_ones(classes: Tensor, generator: torch.Generator) -> Tensor:
    wrong = torch.rand(len(classes), generator=generator) < WRONG
    return torch.where(wrong, torch.randint(CLASSES, (len(classes),), generator=generator), classes)
