"""Queries, keys and values from tokens: projected, normed and turned."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.cache import KVCache, Memory
from mmattn.positions.rotary import RotaryPositions
from mmattn.tokens import TokenBatch

Tokens = TokenBatch | Tensor
Context = TokenBatch | Tensor | Memory


class Projected(NamedTuple):
    """Queries ``[..., H, K]`` and keys and values ``[..., H_kv, K]``, positions applied."""

    q: Tensor
    k: Tensor
    v: Tensor


class Projections(nn.Module):
    """What makes queries with H heads and keys and values with H_kv heads of width K from tokens.

    One fused projection for all three, or, with a context of another width, two. The base of
    :class:`~mmattn.MultiHeadAttention`, which says what the arguments are.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        context_dim: int | None = None,
        bias: bool = True,
        qk_norm: nn.Module | None = None,
        positions: RotaryPositions | None = None,
    ) -> None:
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        _check_heads(embed_dim, num_heads, num_kv_heads, head_dim)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.context_dim = context_dim
        self.positions = positions
        q_width, kv_width = num_heads * self.head_dim, 2 * num_kv_heads * self.head_dim
        if context_dim is None:
            self.qkv_proj = nn.Linear(embed_dim, q_width + kv_width, bias=bias)
        else:
            self.q_proj = nn.Linear(embed_dim, q_width, bias=bias)
            self.kv_proj = nn.Linear(context_dim, kv_width, bias=bias)
        self.q_norm = _fresh_copy(qk_norm)
        self.k_norm = _fresh_copy(qk_norm)

    def project(
        self,
        query: TokenBatch | Tensor,
        context: TokenBatch | Tensor | None = None,
        tables: Tensor | None = None,
    ) -> Projected:
        """Queries, keys and values as attention uses them: projected, normed and turned.

        Packed ``[T, H, K]`` or dense ``[B, N, H, K]``; arguments as in :meth:`forward`.
        """
        self.check(query, context)
        return self._projected(*_values_and_coords(query), context, tables)

    def remember(self, context: TokenBatch | Tensor) -> Memory:
        """The keys and values of a context, to attend to many times (the encoder's output, in decoding).

        Raises:
            ValueError: the context does not fit the module.
        """
        y, coords = _values_and_coords(context)
        if y.shape[-1] != (self.embed_dim if self.context_dim is None else self.context_dim):
            raise ValueError(f"context must have the width that the module takes: got shape {list(y.shape)}")
        k, v = self._keys_and_values(y, coords)
        if isinstance(context, TokenBatch):
            return Memory(k.contiguous(), v.contiguous(), context.sizes, coords)
        # the keys of one head side by side, as every later call reads them
        k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
        return Memory(k, v, None, coords)

    def _projected(
        self, x: Tensor, x_coords: Tensor | None, context: TokenBatch | Tensor | None, tables: Tensor | None
    ) -> Projected:
        if context is not None:
            k, v = self._keys_and_values(*_values_and_coords(context))
            return Projected(self._queries(x, x_coords), k, v)
        heads, kv_heads = self.num_heads, self.num_kv_heads
        fused = self.qkv_proj(x).view(*x.shape[:-1], heads + 2 * kv_heads, self.head_dim)
        q_norm, k_norm = self.q_norm, self.k_norm
        normed = not (type(q_norm) is nn.Identity and type(k_norm) is nn.Identity)
        if self.positions is None or normed:
            q, k, v = fused.split([heads, kv_heads, kv_heads], dim=-2)
            if normed:
                q, k = q_norm(q), k_norm(k)
        if self.positions is None:
            return Projected(q, k, v)
        if tables is None:
            assert x_coords is not None
            tables = self.positions.tables(x_coords, self.head_dim, x.dtype)
        if normed:
            return Projected(self.positions.rotate(q, tables), self.positions.rotate(k, tables), v)
        qk, v = fused.split([heads + kv_heads, kv_heads], dim=-2)
        q, k = self.positions.rotate(qk, tables).split([heads, kv_heads], dim=-2)
        return Projected(q, k, v)

    def _queries(self, x: Tensor, coords: Tensor | None) -> Tensor:
        if self.context_dim is None:
            cut = self.num_heads * self.head_dim
            bias = self.qkv_proj.bias
            q = F.linear(x, self.qkv_proj.weight[:cut], None if bias is None else bias[:cut])
        else:
            q = self.q_proj(x)
        return self._turned(self.q_norm(q.unflatten(-1, (-1, self.head_dim))), coords)

    def _keys_and_values(self, y: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
        if self.context_dim is None:
            cut = self.num_heads * self.head_dim
            bias = self.qkv_proj.bias
            kv = F.linear(y, self.qkv_proj.weight[cut:], None if bias is None else bias[cut:])
        else:
            kv = self.kv_proj(y)
        k, v = kv.unflatten(-1, (-1, self.head_dim)).chunk(2, dim=-2)
        return self._turned(self.k_norm(k), coords), v

    def _turned(self, x: Tensor, coords: Tensor | None) -> Tensor:
        if self.positions is None:
            return x
        assert coords is not None
        return self.positions.rotate(x, self.positions.tables(coords, self.head_dim, x.dtype))

    def check(self, query: Tokens, context: Context | None, cache: KVCache | None = None) -> None:
        """Refuse what does not fit the module or each other, with a ValueError or TypeError."""
        if cache is not None and (context is not None or isinstance(query, TokenBatch)):
            raise ValueError("a cache goes with a dense query and no context: got a TokenBatch or a context")
        if isinstance(context, Memory):
            if isinstance(query, TokenBatch) and context.sizes is None:
                raise TypeError("a packed query needs the memory of a packed context: got a dense one")
            return self._check_shapes(query, None)
        if context is not None and isinstance(context, TokenBatch) != isinstance(query, TokenBatch):
            raise TypeError(
                f"query and context must both be packed or both dense: "
                f"got {type(query).__name__} and {type(context).__name__}"
            )
        if context is None and self.context_dim is not None:
            raise ValueError("a module with context_dim needs a context: got none")
        return self._check_shapes(query, context)

    def _check_shapes(self, query: TokenBatch | Tensor, context: TokenBatch | Tensor | None) -> None:
        of_context = self.embed_dim if self.context_dim is None else self.context_dim
        for name, tokens, width in (("query", query, self.embed_dim), ("context", context, of_context)):
            if tokens is None:
                continue
            values, ndim, form = (
                (tokens.values, 2, "[T, D]") if isinstance(tokens, TokenBatch) else (tokens, 3, "[B, N, D]")
            )
            if values.ndim != ndim or values.shape[-1] != width:
                raise ValueError(f"{name} must be {form} with D={width}: got shape {list(values.shape)}")
        if isinstance(query, Tensor) and isinstance(context, Tensor) and query.shape[0] != context.shape[0]:
            raise ValueError(
                f"query and context must have the same batch size: got {query.shape[0]} and {context.shape[0]}"
            )


def _values_and_coords(tokens: TokenBatch | Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(tokens, TokenBatch):
        return tokens.values, tokens.coords
    return tokens, torch.arange(tokens.shape[1], device=tokens.device)[:, None]


def _fresh_copy(norm: nn.Module | None) -> nn.Module:
    return nn.Identity() if norm is None else copy.deepcopy(norm)


def _check_heads(embed_dim: int, num_heads: int, num_kv_heads: int, head_dim: int | None) -> None:
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
