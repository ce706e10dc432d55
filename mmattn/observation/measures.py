"""Statistics of attention weights, computed in blocks: never the whole N x M matrix."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.backends import Bias, Mask
from mmattn.functional import explain
from mmattn.masks import Pattern
from mmattn.observation.strips import Sheet, Strip, sheets

# Powers of e down to -80 are lost beside the largest of a row, which is 1, even in float64, and are made 0. Below
# -87 torch's float32 exp on a CPU takes up to a hundred times as long, and 0 * -inf would be NaN where 0 * -80 is 0.
_FLOOR = -80.0


class Statistics(NamedTuple):
    """What each query and key of a call has to do with the others.

    ``w_ij`` is the weight of query i on key j, as in :func:`mmattn.attention_weights`: a row of weights adds up
    to 1, to less with learned sinks (nothing is normalised again), and to 0 for a query that sees no key.
    All tensors are float32, or float64 where q or k is.

    Attributes:
        entropy: ``[B, H, N]``, ``-sum_j w_ij log w_ij`` over the keys in nats: 0 on one key, log M when
            M keys weigh alike; 0 for a query that sees nothing.
        received: ``[B, H, M]``, ``sum_i w_ij``: what a key gets from all queries. Divided by the number of
            queries that see anything, ``(max_logit > -inf).sum(-1)``, it is the mean.
        distance: ``[B, H, N]``, ``sum_j w_ij |c_i - c_j|``: mean Euclidean distance to the attended keys in the
            units of the coordinates, or in tokens where they are counted; what goes to learned sinks counts as
            0; 0 for a query that sees nothing.
        sink_mass: ``[B, H, N]``, weight on the first keys of the sequence and on the learned sinks, in [0, 1];
            0 for a query that sees nothing, even with a learned sink.
        max_logit: ``[B, H, N]``, the largest logit over the keys after scale, soft cap and bias; -inf for
            a query that sees nothing.
    """

    entropy: Tensor
    received: Tensor
    distance: Tensor
    sink_mass: Tensor
    max_logit: Tensor


@torch.no_grad()
def statistics(
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
    first_keys: int = 1,
    block_bytes: int = 16 << 20,
) -> Statistics:
    """Entropy, received weight, distance, sink mass and largest logit of every query or key, without gradients.

    The weights are computed from q and k, some queries at a time against all keys they may see, so that memory
    grows with N + M. A key hidden from a query has no part in its numbers, whatever the key holds.

    Args:
        q: queries ``[B, H, N, K]``.
        k: keys ``[B, H_kv, M, K]``; H_kv divides H.
        mask, bias, scale, soft_cap, sinks: as in :func:`mmattn.attend`, dense. A pattern, or a bias that is a
            function, is asked about some queries at a time.
        q_coords, k_coords: where the tokens stand: ``[N, A]`` or ``[B, N, A]``, and the same with M; ``None``
            counts 0, 1, 2, ..., with the last query beside the last key.
        first_keys: how many keys from the start count towards ``sink_mass`` (Xiao et al. 2023, "Efficient
            Streaming Language Models with Attention Sinks").
        block_bytes: memory to work in, about; at least what one query takes.

    Raises:
        ValueError: as :func:`mmattn.attend`, or coordinates, first_keys or block_bytes do not fit.
        TypeError: a mask tensor is not boolean.

    Example:
        >>> q, k = torch.zeros(1, 2, 3, 8), torch.randn(1, 2, 4, 8)
        >>> found = statistics(q, k)
        >>> [round(x, 4) for x in found.entropy[0, 0].exp().tolist()]  # how many keys share the weight
        [4.0, 4.0, 4.0]
        >>> found.distance[0, 0].tolist()  # queries stand at 1, 2, 3
        [1.0, 1.0, 1.5]
    """
    # attend's own checks, in its own words
    explain(
        q,
        k,
        k,
        mask=mask,
        bias=bias,
        soft_cap=soft_cap,
        sinks=sinks,
        q_coords=q_coords,
        k_coords=k_coords,
        backend="math",
    )
    if first_keys < 0:
        raise ValueError(f"first_keys must not be negative: got {first_keys}")
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1: got {block_bytes}")
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.float32)
    shape = *q.shape[:3], k.shape[2]
    found = _nothing_seen(shape, dtype, q.device)
    if 0 in shape:
        return found
    pages = sheets(shape, mask, bias, q_coords, k_coords, dtype, q.device)
    together, height = _block(shape, pages[0], block_bytes, dtype)
    terms = _Terms(
        1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale),
        soft_cap,
        None if sinks is None else sinks.to(dtype)[:, None],
        first_keys,
    )
    work = torch.empty(3, together * height * shape[3], dtype=dtype, device=q.device)
    with torch.autocast(q.device.type, enabled=False):  # it would round the products to half precision
        for b, sheet in enumerate(pages):
            for strip in sheet.strips(height, work):
                for begin in range(0, shape[1], together):
                    heads = slice(begin, begin + together)
                    _add(found, b, heads, strip, q, k, terms, work)
    return found


class _Terms(NamedTuple):
    """How products become logits and weights; sinks are ``[H, 1]``."""

    scale: float
    soft_cap: float | None
    sinks: Tensor | None
    first_keys: int


def _nothing_seen(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Statistics:
    """The statistics where no query sees a key."""
    b, h, n, m = shape
    per_query = torch.zeros(3, b, h, n, dtype=dtype, device=device)
    received = torch.zeros(b, h, m, dtype=dtype, device=device)
    lowest = torch.full((b, h, n), -torch.inf, dtype=dtype, device=device)
    return Statistics(per_query[0], received, per_query[1], per_query[2], lowest)


def _block(
    shape: tuple[int, int, int, int], sheet: Sheet, block_bytes: int, dtype: torch.dtype
) -> tuple[int, int]:
    """How many heads (all or one) and queries to take at a time."""
    _, h, n, m = shape
    pair = 3 * dtype.itemsize  # logit, power and distance
    drawn = 0  # for all heads at once
    if isinstance(sheet.mask, Pattern):
        drawn += 24  # positions are int64
    if sheet.bias is not None and not isinstance(sheet.bias, Tensor):
        drawn += 2 * h * dtype.itemsize + 16
    if n * m * (pair * h + drawn) <= block_bytes:
        return h, n
    return 1, min(n, max(1, block_bytes // (m * (pair + drawn))))


def _add(
    found: Statistics,
    b: int,
    heads: slice,
    strip: Strip,
    q: Tensor,
    k: Tensor,
    terms: _Terms,
    work: Tensor,
) -> None:
    """Put the numbers of one strip, for G heads, where they belong in ``found``; ``work`` is overwritten."""
    rows, keys = strip.rows, strip.keys
    logits, powers = _logits(b, heads, strip, q, k, terms, work)
    top = logits.amax(-1)
    dead = top == -torch.inf
    sinks = None if terms.sinks is None else terms.sinks[heads]
    shift = (top if sinks is None else torch.maximum(top, sinks)).masked_fill(dead, 0.0)
    logits.sub_(shift[..., None]).clamp_(min=_FLOOR)
    torch.exp(logits, out=powers)
    torch.threshold_(powers, math.exp(_FLOOR + 0.01), 0.0)
    kept = powers.sum(-1)
    drained = torch.zeros_like(kept) if sinks is None else (sinks - shift).exp_()
    total = (kept + drained).clamp_(min=1.0)  # the largest power is 1: below it is a query that sees nothing
    share = total.reciprocal()
    first = powers[..., : max(0, terms.first_keys - keys.start)].sum(-1)
    found.max_logit[b, heads, rows] = top
    found.sink_mass[b, heads, rows] = ((first + drained) * share).masked_fill_(dead, 0.0)
    found.received[b, heads, None, keys].baddbmm_(share[:, None], powers)
    # -sum w log w, with w = power / total and log w = logit - log total
    found.entropy[b, heads, rows] = (kept * total.log() - logits.mul_(powers).sum(-1)) * share
    found.distance[b, heads, rows] = torch.mul(powers, strip.distance, out=logits).sum(-1) * share


def _logits(
    b: int, heads: slice, strip: Strip, q: Tensor, k: Tensor, terms: _Terms, work: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits ``[G, R, C]`` of a strip, -inf where a key is hidden, and as much room for their powers."""
    repeats = q.shape[1] // k.shape[1]
    kv_heads = slice(heads.start // repeats, (heads.stop - 1) // repeats + 1)
    # heads that share keys are folded into more queries
    k_part = k[b, kv_heads, strip.keys].to(work.dtype)
    q_part = q[b, heads, strip.rows].to(work.dtype) * terms.scale
    shape = *q_part.shape[:2], k_part.shape[1]
    logits, powers = (x[: math.prod(shape)].view(shape) for x in work[1:])
    folded = len(k_part), shape[0] * shape[1] // len(k_part)
    torch.bmm(q_part.reshape(*folded, q.shape[-1]), k_part.mT, out=logits.view(*folded, shape[2]))
    if terms.soft_cap is not None:
        logits.div_(terms.soft_cap).tanh_().mul_(terms.soft_cap)
    if strip.bias is not None:
        logits.add_(_of_heads(strip.bias, heads))
    if strip.seen is not None:
        logits.masked_fill_(~_of_heads(strip.seen, heads), -torch.inf)
    return logits, powers


def _of_heads(x: Tensor, heads: slice) -> Tensor:
    return x if x.shape[0] == 1 else x[heads]
