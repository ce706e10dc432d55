"""The head of a vision transformer: one vector for each picture, and its classes."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.dropout import Dropout
from mmattn.heads import AttentionPool, MeanPool
from mmattn.tokens import TokenBatch

Pool = Literal["token", "avg", "attention", ""]


class PictureHead(nn.Module):
    """Pools each picture's tokens, norms, drops and scores the classes.

    Args:
        embed_dim: width D of the tokens.
        num_classes: number of classes C; 0 gives the pooled features ``[B, D]``.
        pool: ``"token"``: the first token, which is the class token; ``"avg"``: the mean of the patches;
            ``"attention"``: a learned query attends to all tokens; ``""``: nothing is pooled.
        prefix_length: tokens in front of the patches.
        num_heads: heads of the pooling attention.
        norm: on the pooled features; ``None`` where the encoder's norm came before.
        dropout: on the normed features.

    Raises:
        ValueError: the pool is unknown, or there is no class token to take.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        pool: Pool = "token",
        *,
        prefix_length: int = 1,
        num_heads: int = 4,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.prefix_length = prefix_length
        self.attention = (
            AttentionPool(MultiHeadAttention(embed_dim, num_heads)) if pool == "attention" else None
        )
        self.norm = nn.Identity() if norm is None else norm
        self.dropout = Dropout(dropout)
        self.reset(num_classes, pool)

    def reset(self, num_classes: int, pool: Pool | None = None) -> None:
        """A new linear layer for other classes, and another pool where one is given.

        Raises:
            ValueError: the pool is unknown, there is no class token to take, or no pooling attention.
        """
        pool = self.pool if pool is None else pool
        if pool not in get_args(Pool):
            raise ValueError(f"pool must be one of {', '.join(map(repr, get_args(Pool)))}: got {pool!r}")
        if pool == "token" and self.prefix_length < 1:
            raise ValueError("pool 'token' needs a class token in front of the patches: got prefix_length=0")
        if pool == "attention" and self.attention is None:
            raise ValueError(
                "pool 'attention' must be asked for when the head is made: got a head without it"
            )
        if pool != "attention":
            self.attention = None
        if num_classes < 0:
            raise ValueError(f"num_classes must not be negative: got {num_classes}")
        self.pool: Pool = pool
        self.num_classes = num_classes
        self.linear: nn.Module = nn.Identity()
        if num_classes:
            linear = nn.Linear(self.embed_dim, num_classes)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            like = next(self.parameters(), None)
            self.linear = linear if like is None else linear.to(like)

    def forward(self, tokens: TokenBatch | Tensor, features_only: bool = False) -> Tensor:
        """Logits ``[B, C]`` of packed tokens ``[T, D]`` or dense ``[B, N, D]``; ``features_only`` leaves the last
        layer out. Without pooling they are ``[T, C]`` or ``[B, N, C]``."""
        features: Tensor = self.dropout(self.norm(self.pooled(tokens)))
        return features if features_only else cast(Tensor, self.linear(features))

    def pooled(self, tokens: TokenBatch | Tensor) -> Tensor:
        """One vector for each picture, ``[B, D]``."""
        if self.pool == "":
            return tokens if isinstance(tokens, Tensor) else tokens.values
        if isinstance(tokens, Tensor):
            return self._of_dense(tokens)
        if self.attention is not None:
            return cast(Tensor, self.attention(tokens))
        starts = (tokens.lengths.cumsum(0) - tokens.lengths).to(tokens.device)
        if self.pool == "token":
            return tokens.values[starts]
        places = torch.arange(len(tokens.values), device=tokens.device)
        kept = places - starts[tokens.segment_ids] >= self.prefix_length
        return cast(Tensor, MeanPool()(TokenBatch(tokens.values[kept], tokens.lengths - self.prefix_length)))

    def _of_dense(self, tokens: Tensor) -> Tensor:
        if self.attention is not None:
            query = self.attention.query.expand(tokens.shape[0], 1, -1)
            return cast(Tensor, self.attention.attention(query, tokens))[:, 0]
        return tokens[:, 0] if self.pool == "token" else tokens[:, self.prefix_length :].mean(1)

    def extra_repr(self) -> str:
        return f"pool={self.pool!r}, num_classes={self.num_classes}"
