"""MultiHeadAttention: projections around attend()."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.backends import Backend, check_name
from mmattn.backends.base import Mask
from mmattn.functional import attend
from mmattn.positions.rotary import RotaryPositions
from mmattn.tokens import TokenBatch


class Projected(NamedTuple):
    """Queries ``[..., H, K]`` and keys and values ``[..., H_kv, K]``, positions applied."""

    q: Tensor
    k: Tensor
    v: Tensor


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) over packed tokens or dense tensors.

    Self-attention when called with one argument, cross-attention with a context. Packed tokens attend
    inside their own sequence. One fused projection makes queries, keys and values.

    Args:
        embed_dim: width D of the tokens.
        num_heads: heads H of the queries.
        num_kv_heads: heads of the keys and values: fewer than H is grouped-query, 1 multi-query attention.
            ``None`` takes H.
        head_dim: width K of a head; ``None`` takes D / H.
        context_dim: width of the context where it differs from D; the module is then for cross-attention only.
        bias: whether the projections add a bias.
        qk_norm: a module for each head's queries and keys ``[..., K]``, e.g. ``nn.RMSNorm(head_dim)``; it is
            copied, so that queries and keys have their own.
        positions: rotary positions, applied to queries and keys.
        dropout: probability of dropping an attention weight in training.
        scale: factor on the logits; ``None`` is ``K ** -0.5``. 0 is the uniform control: the same module,
            in which every allowed key weighs the same.
        backend: ``"auto"``, a name or a :class:`~mmattn.backends.Backend`.

    Raises:
        ValueError: the heads do not divide the widths.

    Example:
        >>> attention = MultiHeadAttention(embed_dim=8, num_heads=2)
        >>> attention(TokenBatch(torch.randn(5, 8), [3, 2])).values.shape
        torch.Size([5, 8])
        >>> attention(torch.randn(4, 7, 8), context=torch.randn(4, 3, 8)).shape
        torch.Size([4, 7, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        context_dim: int | None = None,
        bias: bool = True,
        qk_norm: nn.Module | None = None,
        positions: RotaryPositions | None = None,
        dropout: float = 0.0,
        scale: float | None = None,
        backend: str | Backend = "auto",
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_heads(embed_dim, num_heads, num_kv_heads, head_dim, dropout)
        check_name(backend)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.context_dim = context_dim
        self.dropout = dropout
        self.scale = scale
        self.backend = backend
        self.positions = positions
        q_width, kv_width = num_heads * self.head_dim, 2 * num_kv_heads * self.head_dim
        if context_dim is None:
            self.qkv_proj = nn.Linear(embed_dim, q_width + kv_width, bias=bias)
        else:
            self.q_proj = nn.Linear(embed_dim, q_width, bias=bias)
            self.kv_proj = nn.Linear(context_dim, kv_width, bias=bias)
        self.out_proj = nn.Linear(q_width, embed_dim, bias=bias)
        self.q_norm = _fresh_copy(qk_norm)
        self.k_norm = _fresh_copy(qk_norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights for each projection on its own, zero biases."""
        width = self.num_heads * self.head_dim
        kv_width = self.num_kv_heads * self.head_dim
        if self.context_dim is None:
            parts = list(self.qkv_proj.weight.split([width, kv_width, kv_width]))
        else:
            parts = [self.q_proj.weight, *self.kv_proj.weight.split([kv_width, kv_width])]
        for part in [*parts, self.out_proj.weight]:
            nn.init.xavier_uniform_(part)
        for name, parameter in self.named_parameters():
            if name.endswith("proj.bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        query: TokenBatch | Tensor,
        context: TokenBatch | Tensor | None = None,
        *,
        mask: Mask = None,
        bias: Tensor | None = None,
        tables: Tensor | None = None,
    ) -> TokenBatch | Tensor:
        """Attend.

        Args:
            query: packed tokens ``[T, D]`` or dense ``[B, N, D]``.
            context: what is attended to, of the same kind; ``None`` is the query itself.
            mask, bias: as in :func:`~mmattn.functional.attend`.
            tables: the tables of the rotary positions for self-attention, where a caller that runs many
                layers has them already; they must be those of the query's coordinates.

        Returns:
            Of the same kind and shape as the query.

        Raises:
            ValueError: the query and the context do not fit the module or each other.
            TypeError: one is packed and the other dense.
        """
        q, k, v = self.project(query, context, tables)
        dropout = self.dropout if self.training else 0.0
        if isinstance(query, TokenBatch):
            of_keys = query if context is None else context
            assert isinstance(of_keys, TokenBatch)
            out = attend(
                q, k, v, mask=mask, bias=bias, scale=self.scale, dropout=dropout,
                q_lengths=query.sizes, k_lengths=of_keys.sizes, backend=self.backend,
            )  # fmt: skip
            return query.replace(self.out_proj(out.flatten(-2)))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = attend(q, k, v, mask=mask, bias=bias, scale=self.scale, dropout=dropout, backend=self.backend)
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(-2))
        return result

    def project(
        self,
        query: TokenBatch | Tensor,
        context: TokenBatch | Tensor | None = None,
        tables: Tensor | None = None,
    ) -> Projected:
        """Queries, keys and values as attention uses them: projected, normed and turned.

        Packed ``[T, H, K]`` or dense ``[B, N, H, K]``; arguments as in :meth:`forward`.
        """
        self._check(query, context)
        x, x_coords = _values_and_coords(query)
        if context is None:
            y_coords = x_coords
            widths = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
            fused = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))
            q, k, v = fused.split(widths, dim=-2)
        else:
            y, y_coords = _values_and_coords(context)
            q, k, v = self._project_pair(x, y)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.positions is not None:
            of_q = self.positions.tables(x_coords, self.head_dim) if tables is None else tables
            of_k = of_q if context is None else self.positions.tables(y_coords, self.head_dim)
            q, k = self.positions.rotate(q, of_q), self.positions.rotate(k, of_k)
        return Projected(q, k, v)

    def _project_pair(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.context_dim is None:
            cut = self.num_heads * self.head_dim
            weight, bias = self.qkv_proj.weight, self.qkv_proj.bias
            q = F.linear(x, weight[:cut], None if bias is None else bias[:cut])
            kv = F.linear(y, weight[cut:], None if bias is None else bias[cut:])
        else:
            q, kv = self.q_proj(x), self.kv_proj(y)
        k, v = kv.unflatten(-1, (-1, self.head_dim)).chunk(2, dim=-2)
        return q.unflatten(-1, (-1, self.head_dim)), k, v

    def _check(self, query: TokenBatch | Tensor, context: TokenBatch | Tensor | None) -> None:
        if context is not None and isinstance(context, TokenBatch) != isinstance(query, TokenBatch):
            raise TypeError(
                f"query and context must both be packed or both dense: "
                f"got {type(query).__name__} and {type(context).__name__}"
            )
        if context is None and self.context_dim is not None:
            raise ValueError("a module with context_dim needs a context: got none")
        of_context = self.embed_dim if self.context_dim is None else self.context_dim
        for name, tokens, width in (("query", query, self.embed_dim), ("context", context, of_context)):
            if tokens is None:
                continue
            values, ndim, form = (
                (tokens.values, 2, "[T, D]") if isinstance(tokens, TokenBatch) else (tokens, 3, "[B, N, D]")
            )
            if values.ndim != ndim or values.shape[-1] != width:
                raise ValueError(f"{name} must be {form} with D={width}: got shape {list(values.shape)}")
        if isinstance(query, Tensor) and isinstance(context, Tensor) and len(query) != len(context):
            raise ValueError(
                f"query and context must have the same batch size: got {len(query)} and {len(context)}"
            )

    def extra_repr(self) -> str:
        groups = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        scale = "" if self.scale is None else f", scale={self.scale:g}"
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{groups}, head_dim={self.head_dim}{scale}"
        )


def _values_and_coords(tokens: TokenBatch | Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(tokens, TokenBatch):
        return tokens.values, tokens.coords
    return tokens, torch.arange(tokens.shape[1], device=tokens.device)[:, None]


def _fresh_copy(norm: nn.Module | None) -> nn.Module:

    return nn.Identity() if norm is None else copy.deepcopy(norm)


def _check_heads(
    embed_dim: int, num_heads: int, num_kv_heads: int, head_dim: int | None, dropout: float
) -> None:
    if embed_dim < 1 or num_heads < 1 or num_kv_heads < 1:
        raise ValueError(
            f"embed_dim, num_heads and num_kv_heads must be at least 1: "
            f"got embed_dim={embed_dim}, num_heads={num_heads}, num_kv_heads={num_kv_heads}"
        )
    if head_dim is None and embed_dim % num_heads:
        raise ValueError(f"num_heads must divide embed_dim: got embed_dim={embed_dim}, num_heads={num_heads}")
    if num_heads % num_kv_heads:
        raise ValueError(
            f"num_kv_heads must divide num_heads: got num_heads={num_heads}, num_kv_heads={num_kv_heads}"
        )
    if head_dim is not None and head_dim < 1:
        raise ValueError(f"head_dim must be at least 1: got {head_dim}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1): got {dropout}")
