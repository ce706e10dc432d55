"""When a window is cut into blocks of queries, and how large they are."""

from __future__ import annotations

from functools import lru_cache

import torch

from mmattn.backends.base import Terms
from mmattn.backends.cpu.layouts import Blocks
from mmattn.masks import Band

#: Queries in a block of a narrow window; a wide one has blocks of twice as many.
BLOCK = 128


def block_of(band: Band) -> int:
    """Queries in a block of this window."""
    assert band.low is not None
    assert band.high is not None
    return BLOCK if band.high - band.low < 2 * BLOCK else 2 * BLOCK


def span_of(band: Band) -> int:
    """Keys that a block of this window sees."""
    assert band.low is not None
    assert band.high is not None
    return block_of(band) + band.high - band.low


def in_blocks(band: Band | None, n: int, m: int, terms: Terms) -> bool:
    """Whether blocks of a window compute clearly fewer logits than the whole."""
    if band is None or band.low is None or band.high is None or terms.bias is not None or n <= block_of(band):
        return False
    return span_of(band) <= 0.7 * m


@lru_cache(maxsize=32)
def blocks(batch: int, n: int, m: int, band: Band, dtype: torch.dtype) -> Blocks:
    """The layout of a window, made once for all calls of these sizes."""
    assert band.low is not None
    assert band.high is not None
    return Blocks(batch, n, m, band.low, band.high, block_of(band), dtype)
