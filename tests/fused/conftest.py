"""The block of plain parts that the tests of fused blocks start from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmattn import Block, FeedForward, MultiHeadAttention


@pytest.fixture
def make_block() -> Callable[..., Block]:
    return made


def made(
    width: int = 12, heads: int = 2, *, bias: bool = True, branch: float = 0.0, hidden: float = 0.0,
    drop_path: float = 0.0, **options,
) -> Block:  # fmt: skip
    torch.manual_seed(3)
    attention = MultiHeadAttention(width, heads, bias=bias, **options)
    norms = nn.LayerNorm(width), nn.LayerNorm(width, eps=1e-3)
    block = Block(attention, FeedForward(width, 29, hidden), *norms, branch, drop_path)
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and norms that matter
    return block
