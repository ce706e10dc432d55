"""Transformer blocks made of the parts handed in."""

from __future__ import annotations

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.dropout import Dropout, DropPath
from mmattn.masks import Pattern
from mmattn.tokens import TokenBatch


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them, ``[..., D] -> [..., D]``.

    Args:
        embed_dim: width D.
        hidden_dim: width between the layers.
        dropout: probability of dropping a hidden feature in training.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(embed_dim, hidden_dim), nn.GELU(), Dropout(dropout), nn.Linear(hidden_dim, embed_dim)
        )


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``.

    Args:
        attention: self-attention.
        feed_forward: ``[T, D] -> [T, D]``, each token on its own.
        attention_norm, feed_forward_norm: norms over D, e.g. ``nn.LayerNorm(embed_dim)``.
        dropout: on both branches, before they are added.
        drop_path: probability of dropping a branch for a whole sequence.
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: TokenBatch, *, mask: Pattern | None = None, tables: Tensor | None = None
    ) -> TokenBatch:
        """Packed tokens ``[T, D]`` to the same; ``mask`` and ``tables`` as in :class:`MultiHeadAttention`."""
        attended = self.attention(
            tokens.replace(self.attention_norm(tokens.values)), mask=mask, tables=tables
        )
        x = tokens.values + self._branch(attended.values, tokens)
        x = x + self._branch(self.feed_forward(self.feed_forward_norm(x)), tokens)
        return tokens.replace(x)

    def _branch(self, x: Tensor, tokens: TokenBatch) -> Tensor:
        dropped: Tensor = self.drop_path(self.dropout(x), tokens.lengths)
        return dropped
