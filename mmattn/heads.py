"""What stands after the encoder: pooling and classification."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.dropout import Dropout
from mmattn.tokens import TokenBatch


class MeanPool(nn.Module):
    """The mean of each sequence's tokens, ``[T, D] -> [B, D]``; an empty sequence gives zeros."""

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Pool packed tokens."""
        values = tokens.values
        # half precision would lose the tail of a long sum
        wide = values if values.dtype == torch.float64 else values.float()
        sums = wide.new_zeros(len(tokens), values.shape[1]).index_add(0, tokens.segment_ids, wide)
        return (sums / tokens.lengths.clamp(min=1).to(sums)[:, None]).to(values.dtype)


class AttentionPool(nn.Module):
    """One learned query attends to each sequence's tokens, ``[T, D] -> [B, D]`` (Lee et al. 2019).

    Args:
        attention: cross-attention from the query to the tokens.
    """

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.attention = attention
        self.query = nn.Parameter(torch.empty(1, attention.embed_dim))
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Pool packed tokens."""
        pooled = cast(TokenBatch, self.attention(self.queries(tokens), tokens))
        return pooled.values

    def queries(self, tokens: TokenBatch) -> TokenBatch:
        """The learned query, once for each sequence."""
        count = len(tokens)
        coords = tokens.coords.new_zeros(count, tokens.coords.shape[1])
        return TokenBatch(self.query.expand(count, -1), [1] * count, coords)


class Classifier(nn.Module):
    """Pools each sequence and scores the classes, ``TokenBatch -> logits [B, C]``.

    Args:
        pool: ``TokenBatch -> [B, D]``.
        embed_dim: width D.
        num_classes: number of classes C.
        dropout: on the pooled features.
    """

    def __init__(self, pool: nn.Module, embed_dim: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2: got {num_classes}")
        self.pool = pool
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(embed_dim, num_classes)
        nn.init.zeros_(self.linear.bias)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Logits for packed tokens."""
        logits: Tensor = self.linear(self.dropout(self.pool(tokens)))
        return logits
