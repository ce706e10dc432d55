"""Attention weights written where they are to stay, and statistics of weights that exist."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.backends import Terms
from mmattn.observation.calls import Run
from mmattn.observation.measures import Statistics

#: Copies of queries and keys, and rooms for statistics, that may be taken for one part of a batch.
_COPIES, _ROOM = 1 << 20, 4 << 20


class Written(NamedTuple):
    """What comes with weights that were written.

    Attributes:
        max_logit: ``[B, H, N]``, -inf for a query that sees nothing; None where the host made the weights.
        sinks: whether learned sinks take a part of each row.
    """

    max_logit: Tensor | None
    sinks: bool


def write(run: Run, out: Tensor) -> Written:
    """Write the weights ``[B, H, N, M]`` of a run into ``out``, with no second tensor of this size.

    Masked keys get 0. A row adds up to 1, to less with learned sinks, and to 0 for a query that sees nothing.
    """
    if run.weights is not None:
        out.copy_(run.weights)
        return Written(None, False)
    assert run.q is not None
    assert run.k is not None
    assert run.terms is not None
    batch, heads, queries, keys = run.shape
    top = torch.full((batch, heads, queries), -torch.inf, dtype=out.dtype, device=out.device)
    if 0 not in run.shape:
        numbers = heads * (queries + keys) * run.q.shape[-1] * out.element_size()
        for rows, part in run.parts(max(1, _COPIES // numbers)):
            with torch.autocast(out.device.type, enabled=False):  # it would round the products
                _write(part, out[rows], top[rows])
    return Written(top, run.terms.sinks is not None)


def _write(run: Run, out: Tensor, top: Tensor) -> None:
    assert run.q is not None
    assert run.k is not None
    assert run.terms is not None
    terms = run.terms
    q, k = (x.flatten(0, 1).to(out.dtype) for x in (run.q, run.k))
    q = q.reshape(len(k), -1, q.shape[-1])  # heads that share keys become more queries
    # elsewhere only for what is padded
    logits = out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)
    logits.view(len(k), -1, k.shape[1]).baddbmm_(q, k.mT, beta=0, alpha=terms.scale)
    _softmax(logits, top, terms)
    if logits is not out:
        out.copy_(logits)


def _softmax(logits: Tensor, top: Tensor, terms: Terms) -> None:
    """Scaled products to weights, in place; the largest logit of each row goes to ``top``."""
    if terms.soft_cap is not None:
        logits.div_(terms.soft_cap).tanh_().mul_(terms.soft_cap)
    bias = terms.drawn_bias()
    if bias is not None:
        logits.add_(bias)
    mask = terms.drawn_mask(logits.shape[-2], logits.shape[-1], logits.device)
    if mask is not None:
        logits.masked_fill_(~mask, -torch.inf)
    torch.amax(logits, -1, out=top)
    dead = top == -torch.inf
    sinks = None if terms.sinks is None else terms.sinks.to(logits.dtype)[:, None]
    shift = (top if sinks is None else torch.maximum(top, sinks)).masked_fill(dead, 0.0)
    logits.sub_(shift[..., None]).exp_()
    total = logits.sum(-1)
    if sinks is not None:
        total += (sinks - shift).exp_()
    logits.div_(total.masked_fill_(dead, 1.0)[..., None])


def of_weights(
    weights: Tensor, written: Written, q_coords: Tensor | None, k_coords: Tensor | None, first_keys: int
) -> Statistics:
    """The statistics of weights ``[B, H, N, M]``, as :func:`mmattn.observation.measures.statistics` defines them.

    ``max_logit`` is NaN where the host made the weights itself, and -inf for a row of zeros.
    """
    batch, heads, queries, keys = weights.shape
    per_query = weights.new_zeros(3, batch, heads, queries)
    received = weights.new_zeros(batch, heads, keys)
    top = written.max_logit
    made = weights.new_zeros(batch, heads, queries) if top is None else top
    rows = max(1, _ROOM // max(1, weights[:1].numel() * weights.element_size()))
    for begin in range(0, batch, rows):
        part = slice(begin, begin + rows)
        w = weights[part]
        kept = w.sum(-1)
        drained = (1.0 - kept).clamp_(min=0.0) if written.sinks else torch.zeros_like(kept)
        torch.sum(torch.special.entr(w), -1, out=per_query[0, part])
        per_query[1, part] = (w * _distances(part, queries, keys, q_coords, k_coords, w)).sum(-1)
        sunk = w[..., :first_keys].sum(-1) + drained
        per_query[2, part] = sunk.masked_fill_(kept == 0, 0.0)
        torch.sum(w, -2, out=received[part])
        if top is None:
            made[part] = torch.where(kept == 0, -torch.inf, torch.nan)
    return Statistics(per_query[0], received, per_query[1], per_query[2], made)


def _distances(
    part: slice, queries: int, keys: int, q_coords: Tensor | None, k_coords: Tensor | None, like: Tensor
) -> Tensor:
    """Between query and key, ``[B | 1, 1, N, M]``."""
    if q_coords is None or k_coords is None:
        q_coords = torch.arange(keys - queries, keys, device=like.device)[:, None]
        k_coords = torch.arange(keys, device=like.device)[:, None]
    q, k = (x[part] if x.ndim == 3 and len(x) > 1 else x for x in (q_coords, k_coords))
    apart = torch.cdist(q.to(like.dtype), k.to(like.dtype), compute_mode="donot_use_mm_for_euclid_dist")
    return apart[:, None] if apart.ndim == 3 else apart
