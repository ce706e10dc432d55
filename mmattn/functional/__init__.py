"""attend(): one signature for dense and packed attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmattn import backends
from mmattn.backends import Backend, Bias, Call, Explanation, Mask, Terms, ready
from mmattn.backends.unseen import tracing
from mmattn.functional.coordinates import asks_for_coords, with_coords
from mmattn.masks import Causal

Lengths = Tensor | Sequence[int]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = None,
    bias: Bias = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    q_lengths: Lengths | None = None,
    k_lengths: Lengths | None = None,
    q_coords: Tensor | None = None,
    k_coords: Tensor | None = None,
    backend: str | Backend = "auto",
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) with H heads of width K.

    The products of queries and keys are scaled, capped, biased, masked, put through a softmax (with the sinks)
    and dropped, in this order.

    Args:
        q: queries, dense ``[B, H, N, K]``, or packed ``[T, H, K]`` with ``q_lengths``.
        k, v: keys and values, dense ``[B, H_kv, M, K]`` or packed ``[T_k, H_kv, K]``. H_kv divides H: each
            head of keys serves H / H_kv neighbouring heads of queries (grouped-query attention).
        mask: who may attend to whom: a :class:`~mmattn.masks.Pattern` or, dense only, a boolean tensor that
            broadcasts to ``[B, H, N, M]``, True = attend. In a packed call it holds inside each sequence.
        bias: added to the logits: broadcasts to ``[B, H, N, M]``; packed, ``[H, N_max, M_max]`` (or
            ``[1, N_max, M_max]``), cut to the lengths of each sequence; or a function of the coordinates,
            such as :class:`~mmattn.ALiBi`.
        scale: factor on the logits; ``None`` is ``K ** -0.5``; 0 weighs all allowed keys alike.
        soft_cap: logits become ``soft_cap * tanh(logits / soft_cap)`` (Gemma 2).
        sinks: ``[H]``, one more logit for each head, to which no value belongs: what goes there leaves the
            weights of the keys adding up to less than 1 (gpt-oss).
        dropout: probability of dropping a weight, in [0, 1).
        q_lengths: ``[B]``: packed call; tokens of each sequence among the queries.
        k_lengths: ``[B]``: the same for the keys; ``None`` takes ``q_lengths``.
        q_coords, k_coords: where the tokens stand, for patterns and biases that ask: ``[N, A]`` or
            ``[B, N, A]``, packed ``[T, A]``; ``None`` counts 0, 1, 2, ..., in a dense call with the last query
            beside the last key.
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
    key = None
    if (
        q_lengths is None
        and bias is None
        and (mask is None or type(mask) is Causal or type(mask) is Tensor)
        and soft_cap is None
        and (sinks is q_coords is k_coords is k_lengths is None)
        and isinstance(backend, str)
        and (scale is None or type(scale) is float)  # what else could be given might change under its key
        and not _is_special(q, k, v)
    ):
        grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        seen = (mask.shape, mask.dtype, mask.is_cpu) if isinstance(mask, Tensor) else mask
        key = (q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, seen, scale, dropout, grad, backend)
        function = ready.known(key)
        if function is not None:
            return function(q, k, v, mask)
    terms = Terms(_scale(q, scale), mask, bias, soft_cap, sinks, dropout, q_coords, k_coords)
    call, of_q, of_k = _checked(q, k, v, terms, q_lengths, k_lengths)
    chosen = backends.choose(call, backend)
    if key is not None and ready.is_new(key):
        ready.remember(key, chosen.ready(call) if q.dtype == k.dtype == v.dtype else None)
    if of_q is None or of_k is None:
        return chosen.dense(q, k, v, call.terms)
    return chosen.packed(q, k, v, of_q, of_k, call.terms)


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask = None,
    bias: Bias = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    q_lengths: Lengths | None = None,
    k_lengths: Lengths | None = None,
    q_coords: Tensor | None = None,
    k_coords: Tensor | None = None,
    backend: str | Backend = "auto",
) -> Explanation:
    """Which backend :func:`attend` would take for these very arguments, and why not another.

    Raises:
        ValueError: as :func:`attend`.
    """
    terms = Terms(_scale(q, scale), mask, bias, soft_cap, sinks, dropout, q_coords, k_coords)
    return backends.explain(_checked(q, k, v, terms, q_lengths, k_lengths)[0], backend)


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    mask: Mask = None,
    bias: Bias = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
    q_coords: Tensor | None = None,
    k_coords: Tensor | None = None,
) -> Tensor:
    """The weights ``[B, H, N, M]`` that :func:`attend` gives to the keys, for dense q and k.

    Each row adds up to 1, or less where a sink takes part; the row of a query that may attend to nothing is all
    zeros.
    """
    terms = Terms(_scale(q, scale), mask, bias, soft_cap, sinks, 0.0, q_coords, k_coords)
    return backends.attention_weights(q, k, _checked(q, k, k, terms, None, None)[0].terms)


def _is_special(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether something besides shapes and types decides over a call: a trace, autocast, a device, a subclass."""
    return (
        tracing()
        or torch.is_autocast_enabled("cpu")
        or not (q.is_cpu and k.is_cpu and v.is_cpu)
        or not (type(q) is type(k) is type(v) is Tensor)
    )


def _scale(q: Tensor, scale: float | None) -> float:
    return 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale)


def _checked(
    q: Tensor, k: Tensor, v: Tensor, terms: Terms, q_lengths: Lengths | None, k_lengths: Lengths | None
) -> tuple[Call, tuple[int, ...] | None, tuple[int, ...] | None]:
    """The call, with the coordinates that a pattern or bias needs, and the lengths of a packed one."""
    packed = q_lengths is not None
    if k_lengths is not None and not packed:
        raise ValueError("k_lengths needs q_lengths: got k_lengths alone")
    _check_tensors(q, k, v, packed)
    _check_terms(terms, q.shape[1])
    if q_lengths is None:
        of_q = of_k = None
        n, m, same = q.shape[2], k.shape[2], q.shape[2] == k.shape[2]
    else:
        of_q, of_k = _checked_lengths(q_lengths, k_lengths, q.shape[0], k.shape[0])
        n, m, same = max(of_q, default=0), max(of_k, default=0), of_q == of_k
        _check_packed(terms, of_q, of_k)
    if asks_for_coords(terms):
        terms = with_coords(terms, q, k, of_q, of_k)
    grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    heads = q.shape[1], k.shape[1]  # the axis of the heads, dense [B, H, N, K] and packed [T, H, K] alike
    call = Call(packed, *heads, q.shape[-1], n, m, same, v.dtype, q.device, grad, terms)
    return call, of_q, of_k


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
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
    if not packed and q.shape[0] != k.shape[0]:
        raise ValueError(f"q and k must have the same batch size: got {q.shape[0]} and {k.shape[0]}")


def _check_terms(terms: Terms, num_heads: int) -> None:
    if isinstance(terms.mask, Tensor) and terms.mask.dtype != torch.bool:
        raise TypeError(
            f"a mask tensor must be boolean, True = attend (numbers are a bias): got {terms.mask.dtype}"
        )
    if not 0.0 <= terms.dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1): got {terms.dropout}")
    if terms.soft_cap is not None and not terms.soft_cap > 0:
        raise ValueError(f"soft_cap must be above 0: got {terms.soft_cap}")
    if terms.sinks is not None and terms.sinks.shape != (num_heads,):
        raise ValueError(
            f"sinks must be one for each of {num_heads} heads: got shape {list(terms.sinks.shape)}"
        )


def _checked_lengths(
    q_lengths: Lengths, k_lengths: Lengths | None, q_total: int, k_total: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    of_q = _as_sizes("q_lengths", q_lengths, q_total)
    of_k = of_q if k_lengths is None else _as_sizes("k_lengths", k_lengths, k_total)
    if len(of_q) != len(of_k):
        raise ValueError(f"q_lengths and k_lengths must be equally many: got {len(of_q)} and {len(of_k)}")
    if k_lengths is None and k_total != q_total:
        raise ValueError(f"k must have the {q_total} tokens of its lengths: got {k_total}")
    return of_q, of_k


def _as_sizes(name: str, lengths: Lengths, total: int) -> tuple[int, ...]:
    sizes = tuple(lengths.tolist()) if isinstance(lengths, Tensor) else tuple(lengths)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name} must not be negative: got {min(sizes)}")
    if sum(sizes) != total:
        raise ValueError(f"{name} must add up to the number of tokens: got a sum of {sum(sizes)} for {total}")
    return sizes


def _check_packed(terms: Terms, of_q: Sequence[int], of_k: Sequence[int]) -> None:
    if isinstance(terms.mask, Tensor):
        raise ValueError("a packed call takes a Pattern as mask: got a tensor")
    longest = (max(of_q, default=0), max(of_k, default=0))
    bias = terms.bias
    if isinstance(bias, Tensor) and (
        bias.ndim != 3 or bias.shape[1] < longest[0] or bias.shape[2] < longest[1]
    ):
        raise ValueError(
            f"a packed call takes a bias [H, N, M] of at least N={longest[0]}, M={longest[1]}: "
            f"got shape {list(bias.shape)}"
        )
