"""The block of a decoder: self-attention, cross-attention and feed-forward."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmattn.attention import Context, MultiHeadAttention
from mmattn.backends import Mask
from mmattn.cache import KVCache
from mmattn.dropout import Dropout, DropPath
from mmattn.tokens import TokenBatch


class DecoderBlock(nn.Module):
    """Pre-norm decoder block: self-attention, cross-attention and feed-forward, each ``x + part(norm(x))``.

    As :class:`~mmattn.Block` with one part more; without cross-attention the names of the parameters are the
    same, so that weights of an encoder load. ``torch.nn.TransformerDecoderLayer(norm_first=True)`` computes the
    same.

    Args:
        attention: self-attention.
        feed_forward: ``[..., D] -> [..., D]``, each token on its own.
        attention_norm, feed_forward_norm: norms over D, e.g. ``nn.LayerNorm(embed_dim)``.
        cross_attention: attention to the context, e.g. with ``context_dim``; ``None``: the block has none.
        cross_attention_norm: its norm.
        dropout: on all branches, before they are added.
        drop_path: probability of dropping a branch for a whole sequence.

    Raises:
        ValueError: one of cross_attention and cross_attention_norm is given and the other is not.
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        cross_attention: MultiHeadAttention | None = None,
        cross_attention_norm: nn.Module | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if (cross_attention is None) != (cross_attention_norm is None):
            raise ValueError("cross_attention and cross_attention_norm go together: got one of them")
        self.attention_norm = attention_norm
        self.attention = attention
        self.cross_attention_norm = cross_attention_norm
        self.cross_attention = cross_attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: TokenBatch | Tensor,
        context: Context | None = None,
        *,
        mask: Mask = None,
        tables: Tensor | None = None,
        cache: KVCache | None = None,
        coords: Tensor | None = None,
    ) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]`` or dense ``[B, N, D]`` to the same.

        Args:
            tokens: the targets.
            context: what cross-attention attends to, or the :class:`Memory` of it.
            mask, tables, cache: of self-attention, as in :class:`MultiHeadAttention`.
            coords: where dense tokens stand for cross-attention, ``[N, A]``.

        Raises:
            ValueError: there is a context and no cross-attention, or the reverse.
        """
        if (context is None) != (self.cross_attention is None):
            raise ValueError(
                "a block with cross-attention needs a context: got none"
                if context is None
                else "a block without cross-attention takes no context: got one"
            )
        x = tokens.values if isinstance(tokens, TokenBatch) else tokens
        attended = self.attention(
            _with(tokens, self.attention_norm(x)), mask=mask, tables=tables, cache=cache
        )
        x = self._add(x, attended, tokens)
        if self.cross_attention is not None:
            assert self.cross_attention_norm is not None
            query = _with(tokens, self.cross_attention_norm(x))
            x = self._add(x, self.cross_attention(query, context, coords=coords), tokens)
        x = self._add(x, self.feed_forward(self.feed_forward_norm(x)), tokens)
        return _with(tokens, x)

    def _add(self, x: Tensor, branch: TokenBatch | Tensor, like: TokenBatch | Tensor) -> Tensor:
        """``x + branch``, the branch dropped in training."""
        values = branch.values if isinstance(branch, TokenBatch) else branch
        if not self.training:
            return x + values
        values = self.dropout(values)
        if isinstance(like, TokenBatch):
            return x + cast(Tensor, self.drop_path(values, like.lengths))
        lengths = torch.full((len(x),), x.shape[1])
        return x + cast(Tensor, self.drop_path(values.flatten(0, 1), lengths)).view_as(x)


def _with(tokens: TokenBatch | Tensor, values: Tensor) -> TokenBatch | Tensor:
    return tokens.replace(values) if isinstance(tokens, TokenBatch) else values
