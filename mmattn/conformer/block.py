"""The Conformer block, made of the parts handed in."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Mask
from mmattn.cache import KVCache
from mmattn.conformer.convolution import Past, TimeConvolution
from mmattn.dropout import Dropout, DropPath
from mmattn.tokens import TokenBatch


class ConformerBlock(nn.Module):
    """Half a feed-forward layer, attention, convolution, half a feed-forward layer, norm (Gulati et al. 2020).

    Each part is a branch, ``x + part(norm(x))``, of which those of the feed-forward layers count half. It takes the
    place of :class:`~mmattn.Block` in an :class:`~mmattn.Encoder`. With ``norm=nn.LayerNorm`` it computes what
    torchaudio's ``ConformerLayer`` does, but for the batch norm there, whose place a norm over features takes.

    Args:
        attention: self-attention.
        convolution: over time.
        feed_forward_in, feed_forward_out: ``[..., D] -> [..., D]``, each token on its own.
        norm: from a width to a norm over features.
        dropout: on all branches, before they are added.
        drop_path: probability of dropping a branch for a whole sequence.
    """

    def __init__(
        self,
        attention: MultiHeadAttention,
        convolution: TimeConvolution,
        feed_forward_in: nn.Module,
        feed_forward_out: nn.Module,
        norm: type[nn.Module] = nn.LayerNorm,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        embed_dim = attention.embed_dim
        self.feed_forward_in_norm = norm(embed_dim)
        self.feed_forward_in = feed_forward_in
        self.attention_norm = norm(embed_dim)
        self.attention = attention
        self.convolution_norm = norm(embed_dim)
        self.convolution = convolution
        self.feed_forward_out_norm = norm(embed_dim)
        self.feed_forward_out = feed_forward_out
        self.norm = norm(embed_dim)
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: TokenBatch | Tensor,
        *,
        mask: Mask = None,
        tables: Tensor | None = None,
        cache: KVCache | None = None,
        past: Past | None = None,
    ) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]``, or dense ``[B, N, D]`` of rows without padding, to the same.

        Args:
            tokens: the tokens.
            mask, tables, cache: of the attention, as in :class:`MultiHeadAttention`.
            past: of the convolution, as in :class:`TimeConvolution`; with the cache, for streams.
        """
        x = tokens.values if isinstance(tokens, TokenBatch) else tokens
        x = self._add(x, self.feed_forward_in(self.feed_forward_in_norm(x)), tokens, 0.5)
        query = _with(tokens, self.attention_norm(x))
        attended = self.attention(query, mask=mask, tables=tables, cache=cache)
        x = self._add(x, _values(attended), tokens)
        x = self._add(x, self.convolution(_with(tokens, self.convolution_norm(x)), past), tokens)
        x = self._add(x, self.feed_forward_out(self.feed_forward_out_norm(x)), tokens, 0.5)
        return _with(tokens, self.norm(x))

    def _add(self, x: Tensor, branch: Tensor, like: TokenBatch | Tensor, factor: float = 1.0) -> Tensor:
        """``x + factor * branch``, the branch dropped in training."""
        lengths = like.lengths if isinstance(like, TokenBatch) else None
        return x.add(cast(Tensor, self.drop_path(self.dropout(branch), lengths)), alpha=factor)


def _values(tokens: TokenBatch | Tensor) -> Tensor:
    return tokens.values if isinstance(tokens, TokenBatch) else tokens


def _with(tokens: TokenBatch | Tensor, values: Tensor) -> TokenBatch | Tensor:
    return tokens.replace(values) if isinstance(tokens, TokenBatch) else values
