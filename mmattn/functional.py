"""attend(): one signature for dense and packed attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmattn import backends
from mmattn.backends import Backend, Call, Explanation
from mmattn.backends.base import Mask
from mmattn.masks import Pattern

Lengths = Tensor | Sequence[int]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    q_lengths: Lengths | None = None,
    k_lengths: Lengths | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) with H heads of width K.

    Args:
        q: queries, dense ``[B, H, N, K]``, or packed ``[T, H, K]`` with ``q_lengths``.
        k, v: keys and values, dense ``[B, H_kv, M, K]`` or packed ``[T_k, H_kv, K]``. H_kv divides H: each
            head of keys serves H / H_kv neighbouring heads of queries (grouped-query attention).
        mask: who may attend to whom: a :class:`~mmattn.masks.Pattern` or, dense only, a boolean tensor that
            broadcasts to ``[B, H, N, M]``, True = attend. In a packed call it holds inside each sequence.
        bias: added to the scaled logits: broadcasts to ``[B, H, N, M]``; packed, ``[H, N_max, M_max]``
            (or ``[1, N_max, M_max]``), cut to the lengths of each sequence.
        scale: factor on the logits; ``None`` is ``K ** -0.5``; 0 weighs all allowed keys alike.
        dropout: probability of dropping a weight, in [0, 1).
        q_lengths: ``[B]``: packed call; tokens of each sequence among the queries.
        k_lengths: ``[B]``: the same for the keys; ``None`` takes ``q_lengths``.
        backend: ``"auto"``, a name, or a :class:`~mmattn.backends.Backend`.

    Returns:
        As q: ``[B, H, N, K]`` or ``[T, H, K]``. A query that may attend to nothing gets zeros.

    Raises:
        ValueError: shapes, lengths or mask do not fit, or the backend cannot run the call.
        TypeError: a mask tensor is not boolean.

    Example:
        >>> q = k = v = torch.randn(5, 2, 8)
        >>> attend(q, k, v, q_lengths=[3, 2]).shape
        torch.Size([5, 2, 8])
    """
    if q_lengths is None and k_lengths is not None:
        raise ValueError("k_lengths needs q_lengths: got k_lengths alone")
    _check_tensors(q, k, v, mask, dropout, q_lengths is not None)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    chosen, _ = backends.choose(_describe(q, k, v, mask, bias, dropout, q_lengths is not None), backend)
    if q_lengths is None:
        dense_mask = mask.dense(q.shape[2], k.shape[2], q.device) if isinstance(mask, Pattern) else mask
        return chosen.dense(q, k, v, mask=dense_mask, bias=bias, scale=scale, dropout=dropout)
    of_q = _checked_lengths("q_lengths", q_lengths, len(q))
    of_k = of_q if k_lengths is None else _checked_lengths("k_lengths", k_lengths, len(k))
    if len(of_q) != len(of_k):
        raise ValueError(f"q_lengths and k_lengths must be equally many: got {len(of_q)} and {len(of_k)}")
    if len(k) != sum(of_k):
        raise ValueError(f"k must have the {sum(of_k)} tokens of its lengths: got {len(k)}")
    if isinstance(mask, Tensor):
        raise ValueError("a packed call takes a Pattern as mask: got a tensor")
    if mask is not None and mask.per_sequence:
        raise ValueError(f"a packed call takes a Pattern that is the same for each sequence: got {mask!r}")
    _check_packed_bias(bias, of_q, of_k)
    return chosen.packed(q, k, v, of_q, of_k, mask=mask, bias=bias, scale=scale, dropout=dropout)


def attention_weights(
    q: Tensor, k: Tensor, *, mask: Mask = None, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The weights ``[B, H, N, M]`` that :func:`attend` gives to the keys, for dense q and k.

    Each row adds up to 1; the row of a query that may attend to nothing is all zeros.
    """
    _check_tensors(q, k, k, mask, 0.0, False)
    dense_mask = mask.dense(q.shape[2], k.shape[2], q.device) if isinstance(mask, Pattern) else mask
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    return backends.attention_weights(q, k, mask=dense_mask, bias=bias, scale=scale)


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    q_lengths: Lengths | None = None,
    k_lengths: Lengths | None = None,
    backend: str | Backend = "auto",
) -> Explanation:
    """Which backend :func:`attend` would take for these very arguments, and why not another.

    Raises:
        ValueError: as :func:`attend`, where shapes do not fit or the backend asked for cannot run the call.
    """
    packed = q_lengths is not None
    _check_tensors(q, k, v, mask, dropout, packed)
    return backends.choose(_describe(q, k, v, mask, bias, dropout, packed), backend)[1]


def _describe(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Tensor | None, dropout: float, packed: bool
) -> Call:
    heads = 1  # the axis of the heads, dense [B, H, N, K] and packed [T, H, K] alike
    return Call(
        packed=packed,
        num_heads=q.shape[heads],
        num_kv_heads=k.shape[heads],
        head_dim=q.shape[-1],
        dtype=q.dtype,
        device=q.device,
        mask=mask is not None,
        bias=bias is not None,
        dropout=dropout,
        grad=torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad),
    )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, mask: Mask, dropout: float, packed: bool) -> None:
    form, ndim = ("[T, H, K] (packed)", 3) if packed else ("[B, H, N, K] (dense; packed needs q_lengths)", 4)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != ndim:
            raise ValueError(f"{name} must be {form}: got shape {list(x.shape)}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must have the same shape: got {list(k.shape)} and {list(v.shape)}")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"q and k must have the same head_dim: got {q.shape[-1]} and {k.shape[-1]}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(
            f"num_kv_heads must divide num_heads: got num_heads={q.shape[1]}, num_kv_heads={k.shape[1]}"
        )
    if not packed and len(q) != len(k):
        raise ValueError(f"q and k must have the same batch size: got {len(q)} and {len(k)}")
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        raise TypeError(
            f"a mask tensor must be boolean, True = attend (numbers are a bias): got {mask.dtype}"
        )
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1): got {dropout}")


def _checked_lengths(name: str, lengths: Lengths, total: int) -> tuple[int, ...]:
    sizes = tuple(lengths.tolist()) if isinstance(lengths, Tensor) else tuple(lengths)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name} must not be negative: got {min(sizes)}")
    if sum(sizes) != total:
        raise ValueError(f"{name} must add up to the number of tokens: got a sum of {sum(sizes)} for {total}")
    return sizes


def _check_packed_bias(bias: Tensor | None, of_q: Sequence[int], of_k: Sequence[int]) -> None:
    if bias is None:
        return
    longest = (max(of_q, default=0), max(of_k, default=0))
    if bias.ndim != 3 or bias.shape[1] < longest[0] or bias.shape[2] < longest[1]:
        raise ValueError(
            f"a packed call takes a bias [H, N, M] of at least N={longest[0]}, M={longest[1]}: "
            f"got shape {list(bias.shape)}"
        )
