"""Learned tokens in front of every sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.tokens import TokenBatch


class Registers(nn.Module):
    """Puts learned tokens in front of each sequence, where attention can park what it needs (Darcet et al. 2024).

    They stand at coordinate 0, so that rotary positions do not turn them. :meth:`remove` takes them off again.

    Args:
        count: registers of each sequence.
        embed_dim: width D of the tokens.

    Raises:
        ValueError: count is below 1.

    Example:
        >>> registers = Registers(2, embed_dim=8)
        >>> tokens = registers(TokenBatch(torch.randn(5, 8), [3, 2]))
        >>> tokens.sizes, registers.remove(tokens).sizes
        ((5, 4), (3, 2))
    """

    def __init__(self, count: int, embed_dim: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count must be at least 1: got {count}")
        self.table = nn.Parameter(torch.empty(count, embed_dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, tokens: TokenBatch | Tensor) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]`` to ``[T + B count, D]``, or dense ``[B, N, D]`` to ``[B, count + N, D]``."""
        if isinstance(tokens, Tensor):
            rows = self.table.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            return torch.cat([rows, tokens], dim=1)
        batch, count = len(tokens), len(self.table)
        rows = self.table.to(tokens.values.dtype).expand(batch, -1, -1).flatten(0, 1)
        places = tokens.coords.new_zeros(batch * count, tokens.coords.shape[1])
        both = TokenBatch.concat([TokenBatch(rows, [count] * batch, places), tokens])
        pairs = both.select([i for b in range(batch) for i in (b, batch + b)])
        return TokenBatch(pairs.values, tokens.lengths + count, pairs.coords)

    def remove(self, tokens: TokenBatch | Tensor) -> TokenBatch | Tensor:
        """The tokens without their registers."""
        count = len(self.table)
        if isinstance(tokens, Tensor):
            return tokens[:, count:]
        begins = (tokens.lengths.cumsum(0) - tokens.lengths).repeat_interleave(tokens.lengths)
        kept = (torch.arange(len(tokens.values)) - begins >= count).to(tokens.device)
        return TokenBatch(tokens.values[kept], tokens.lengths - count, tokens.coords[kept])

    def extra_repr(self) -> str:
        return f"{len(self.table)}, embed_dim={self.table.shape[1]}"
