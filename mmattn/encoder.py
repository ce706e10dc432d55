"""Encoder: the one trunk that serves pictures, speech and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.backends import Mask
from mmattn.blocks import Block
from mmattn.tokens import TokenBatch


class Encoder(nn.Module):
    """A stack of blocks over packed tokens, the same for every domain.

    Nothing in it depends on the number of position axes or on the kind of tokens, so weights trained on one
    domain load into another.

    Args:
        blocks: the layers.
        norm: final norm over D.
        positions: a module that adds absolute positions to the tokens; ``None`` where the blocks turn
            queries and keys themselves, or positions are not wanted.

    Example:
        >>> import torch
        >>> from mmattn import build_encoder
        >>> encoder = build_encoder(embed_dim=8, depth=2, num_heads=2)
        >>> encoder(TokenBatch(torch.randn(5, 8), [3, 2]))
        TokenBatch(2 sequences, 5 tokens, lengths 2..3, values [5, 8] float32, coords [5, 1], cpu)
    """

    def __init__(self, blocks: Sequence[Block], norm: nn.Module, positions: nn.Module | None = None) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("an encoder needs at least one block: got none")
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.positions = positions

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return cast(Block, self.blocks[0]).attention.embed_dim

    def forward(self, tokens: TokenBatch | Tensor, *, mask: Mask = None) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]`` to the same, or dense ``[B, N, D]`` to the same.

        ``mask`` is a pattern over the positions inside each sequence, see :mod:`mmattn.masks`, or, dense, a
        boolean tensor.
        """
        if self.positions is not None:
            tokens = self.positions(tokens)
        values = tokens if isinstance(tokens, Tensor) else tokens.values
        coords = (
            torch.arange(tokens.shape[1], device=tokens.device)[:, None]
            if isinstance(tokens, Tensor)
            else tokens.coords
        )
        made: dict[tuple[int, int], Tensor] = {}  # blocks that share rotary positions share their tables
        for block in self.blocks:
            attention = cast(Block, block).attention
            rotary, tables = attention.positions, None
            if rotary is not None:
                key = (id(rotary), attention.head_dim)
                if key not in made:
                    made[key] = rotary.tables(coords, attention.head_dim, values.dtype)
                tables = made[key]
            tokens = block(tokens, mask=mask, tables=tables)
        if isinstance(tokens, Tensor):
            return cast(Tensor, self.norm(tokens))
        return tokens.replace(self.norm(tokens.values))
