"""MultiHeadAttention: projections around attend()."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmattn.backends import Backend, Mask, check_name
from mmattn.cache import KVCache, Memory
from mmattn.functional import attend
from mmattn.gates import HeadGate, gated
from mmattn.masks import Causal, Pattern
from mmattn.positions.bias import PositionBias
from mmattn.positions.rotary import RotaryPositions
from mmattn.projections import Context, Projected, Projections
from mmattn.tokens import TokenBatch

__all__ = ["Context", "HeadGate", "MultiHeadAttention", "Projected"]


class MultiHeadAttention(Projections):
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
        position_bias: a bias of the logits made from the coordinates, e.g. ``ALiBi(num_heads)``.
        gate: a module from queries ``[..., D]`` to factors ``[..., H]`` or ``[..., H, K]`` on the results of the
            heads, e.g. :class:`HeadGate`.
        sinks: whether each head learns a sink: a logit to which no value belongs (gpt-oss).
        soft_cap: bounds the logits smoothly (Gemma 2); see :func:`~mmattn.functional.attend`.
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
        position_bias: PositionBias | None = None,
        gate: nn.Module | None = None,
        sinks: bool = False,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        scale: float | None = None,
        backend: str | Backend = "auto",
    ) -> None:
        super().__init__(embed_dim, num_heads, num_kv_heads, head_dim, context_dim, bias, qk_norm, positions)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1): got {dropout}")
        check_name(backend)
        self.dropout = dropout
        self.scale = scale
        self.soft_cap = soft_cap
        self.backend = backend
        self.position_bias = position_bias
        self.gate = gate
        self.sinks = nn.Parameter(torch.zeros(num_heads)) if sinks else None
        self.out_proj = nn.Linear(num_heads * self.head_dim, embed_dim, bias=bias)
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
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def forward(
        self,
        query: TokenBatch | Tensor,
        context: Context | None = None,
        *,
        mask: Mask = None,
        bias: Tensor | None = None,
        coords: Tensor | None = None,
        tables: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> TokenBatch | Tensor:
        """Attend.

        Args:
            query: packed tokens ``[T, D]`` or dense ``[B, N, D]``.
            context: what is attended to, of the same kind; ``None`` is the query itself. Keys and values that
                :meth:`remember` made are used as they are, by packed and dense queries.
            mask, bias: as in :func:`~mmattn.functional.attend`.
            coords: where dense queries stand, ``[N, A]`` or ``[B, N, A]``; ``None`` counts from 0, or from
                where the cache ends.
            tables: the tables of the rotary positions for self-attention, where a caller that runs many
                layers has them already; they must be those of the query's coordinates.
            cache: keys and values of the tokens before; those of the (dense) queries are appended. The mask
                stays the caller's: ``Causal()`` where there is more than one query.

        Returns:
            Of the same kind and shape as the query.

        Raises:
            ValueError: the query, the context or the cache do not fit the module or each other.
            TypeError: one is packed and the other dense.
        """
        if (
            context is None
            and bias is None
            and coords is None
            and cache is None
            and self.positions is None
            and self.position_bias is None
            and self.gate is None
            and (mask is None or type(mask) is Causal)
            and isinstance(query, Tensor)
        ):
            return self._plain(query, mask)
        asks = self.position_bias is not None or (isinstance(mask, Pattern) and mask.uses_coords)
        self._check_call(query, context, bias, coords, cache, asks)
        values = query.values if isinstance(query, TokenBatch) else query
        turns = self.positions is not None and (tables is None or context is not None)
        places = self._places(query, coords, cache) if asks or turns else None
        if isinstance(context, Memory):
            q, k, v = self._queries(values, places), context.k, context.v
        else:
            q, k, v = self._projected(values, places, context, tables)
        if cache is not None:
            k, v = cache.append(k, v)
        q_coords = k_coords = None
        if asks and cache is None:  # those of a cache are counted: its first keys may have left a window
            q_coords, k_coords = places, places if context is None else getattr(context, "coords", None)
        options: dict[str, Any] = {
            "mask": mask,
            "bias": self.position_bias if bias is None else bias,
            "scale": self.scale,
            "soft_cap": self.soft_cap,
            "sinks": self.sinks,
            "dropout": self.dropout if self.training else 0.0,
            "backend": self.backend,
        }
        q_sizes, k_sizes = _sizes(query), _sizes(query if context is None else context)
        if q_sizes is None and k_sizes is None:
            heads_first = (x.transpose(1, 2) for x in (q, k, v))
            out = attend(*heads_first, q_coords=q_coords, k_coords=k_coords, **options).transpose(1, 2)
        else:
            if q_sizes is None:  # dense queries of a packed memory
                q_coords = None if q_coords is None else q_coords.expand(*q.shape[:2], -1).flatten(0, 1)
                q_sizes, q = (q.shape[1],) * q.shape[0], q.flatten(0, 1)
            options |= {"q_lengths": q_sizes, "k_lengths": k_sizes}
            out = attend(q, k, v, q_coords=q_coords, k_coords=k_coords, **options)
        return self._finished(query, values, out)

    def _plain(self, x: Tensor, mask: Mask) -> Tensor:
        """Dense self-attention without positions, in few steps: between large products each one counts."""
        if x.ndim != 3 or x.shape[2] != self.embed_dim or self.context_dim is not None:
            self.check(x, None)  # says what is wrong
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        fused: Tensor = self.qkv_proj(x)
        q, k, v = fused.view(*x.shape[:2], sum(heads), self.head_dim).split_with_sizes(heads, 2)
        if type(self.q_norm) is not nn.Identity or type(self.k_norm) is not nn.Identity:
            q, k = self.q_norm(q), self.k_norm(k)
        out = attend(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask=mask, scale=self.scale,
            soft_cap=self.soft_cap, sinks=self.sinks, dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
        )  # fmt: skip
        joined: Tensor = self.out_proj(out.transpose(1, 2).reshape(*x.shape[:2], heads[0] * self.head_dim))
        return joined

    def _finished(self, query: TokenBatch | Tensor, values: Tensor, out: Tensor) -> TokenBatch | Tensor:
        """Gate and projection of the heads' results, as tokens of the kind of the query."""
        if self.gate is not None:
            out = gated(out.reshape(*values.shape[:-1], self.num_heads, self.head_dim), self.gate(values))
        result: Tensor = self.out_proj(out.reshape(*values.shape[:-1], self.num_heads * self.head_dim))
        return query.replace(result) if isinstance(query, TokenBatch) else result

    def _places(self, query: TokenBatch | Tensor, coords: Tensor | None, cache: KVCache | None) -> Tensor:
        """Where the queries stand: counted, where nobody says."""
        if isinstance(query, TokenBatch):
            return query.coords
        if coords is not None:
            return coords
        begin = 0 if cache is None else cache.length
        return torch.arange(begin, begin + query.shape[1], device=query.device)[:, None]

    def _check_call(
        self,
        query: TokenBatch | Tensor,
        context: Context | None,
        bias: Tensor | None,
        coords: Tensor | None,
        cache: KVCache | None,
        asks: bool,
    ) -> None:
        if bias is not None and self.position_bias is not None:
            raise ValueError("give a bias or a module with position_bias, not both: got both")
        self.check(query, context, cache)
        if coords is not None and isinstance(query, TokenBatch):
            raise ValueError("coords are for a dense query, a TokenBatch has its own: got both")
        if asks and cache is not None and coords is not None:
            raise ValueError("a cache keeps no coordinates, which a bias or mask asks for: got coords")

    def extra_repr(self) -> str:
        groups = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        scale = "" if self.scale is None else f", scale={self.scale:g}"
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{groups}, head_dim={self.head_dim}{scale}"
        )


def _sizes(tokens: Context) -> tuple[int, ...] | None:
    return None if isinstance(tokens, Tensor) else tokens.sizes
