"""Transformer blocks made of the parts handed in."""

from __future__ import annotations

from torch import Tensor, nn

from mmattn import fused
from mmattn.attention import MultiHeadAttention
from mmattn.backends import Mask
from mmattn.dropout import Dropout, DropPath
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

    In training on a CPU a block of plain parts runs as one node of the autograd graph, which computes the same
    in a fraction of the calls; :meth:`unfused` tells why one does not.

    Args:
        attention: self-attention.
        feed_forward: ``[..., D] -> [..., D]``, each token on its own.
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
        self, tokens: TokenBatch | Tensor, *, mask: Mask = None, tables: Tensor | None = None
    ) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]`` or dense ``[B, N, D]`` to the same; ``mask`` and ``tables`` as in
        :class:`MultiHeadAttention`."""
        if self.unfused(tokens, mask) is None:
            return fused.run(self._parts(), tokens, mask, tables)
        if isinstance(tokens, Tensor):
            attended = self.attention(self.attention_norm(tokens), mask=mask, tables=tables)
            return self._second(tokens, attended, None)
        normed = tokens.replace(self.attention_norm(tokens.values))
        attended = self.attention(normed, mask=mask, tables=tables).values
        return tokens.replace(self._second(tokens.values, attended, tokens.lengths))

    def unfused(self, tokens: TokenBatch | Tensor, mask: Mask = None) -> str | None:
        """Why these tokens go through the block part by part; ``None`` when they go through one fused node."""
        return fused.refusal(self._parts(), tokens, mask)

    def _second(self, x: Tensor, attended: Tensor, lengths: Tensor | None) -> Tensor:
        """What comes after attention; ``lengths`` belong to packed tokens."""
        x = x + self.drop_path(self.dropout(attended), lengths)
        result: Tensor = x + self.drop_path(
            self.dropout(self.feed_forward(self.feed_forward_norm(x))), lengths
        )
        return result

    def _parts(self) -> fused.Parts:
        return fused.Parts(
            self.attention_norm,
            self.attention,
            self.feed_forward_norm,
            self.feed_forward,
            self.dropout,
            self.drop_path,
        )
