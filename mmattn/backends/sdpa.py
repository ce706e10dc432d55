"""torch's scaled_dot_product_attention: fused kernels on CPU and CUDA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.base import Backend, Call, Terms, fold_heads, repeat_heads, trimmed_band
from mmattn.backends.unseen import crop, in_range, nothing, shield
from mmattn.masks import Band


class SdpaBackend(Backend):
    """``torch.nn.functional.scaled_dot_product_attention``; packed tokens go in runs of equal length."""

    name = "sdpa"

    def refusal(self, call: Call) -> str | None:
        if not call.dtype.is_floating_point:
            return f"it needs a floating-point dtype, got {call.dtype}"
        if call.terms.soft_cap is not None:
            return "torch's kernels have no soft cap"
        if call.terms.sinks is not None and call.terms.scale == 0:
            return "its sinks are a feature of the keys, which a scale of 0 would take away"
        return None

    def merit(self, call: Call) -> str:
        if call.terms.dropout and call.device.type == "cpu":
            return "torch's attention, unfused, since no fused kernel on a CPU drops weights"
        if call.band == Band(None, 0):
            return "torch's fused attention, causal without a mask"
        if call.terms.bias is not None and call.bias_grad:
            return "torch's attention with the gradient of the bias, for which it may store the N x M weights"
        if call.terms.mask is not None or call.terms.bias is not None:
            return "torch's fused attention with a drawn N x M mask"
        return "torch's fused attention, which never stores the N x M weights"

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        inside = crop(q, k, v, terms)
        return inside.widen(self._dense(*inside[:4]))

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        n, m = q.shape[2], k.shape[2]
        if n == 0 or m == 0:
            return nothing(q, k, v)
        band = trimmed_band(terms.mask, n, m)
        # torch's kernels on a CPU hide keys before they scale, and -inf * 0 is NaN
        causal = band == Band(None, 0) and terms.bias is None and terms.sinks is None and terms.scale > 0
        mask = None if causal or band == Band(None, None) else terms.drawn_mask(n, m, q.device)
        bias, shape = terms.drawn_bias(), q.shape
        if bias is not None:
            bias = in_range(bias, v.dtype)
        add, dead, grouped = None, None, q.shape[1] != k.shape[1]
        if grouped and not causal and mask is None and bias is None and terms.sinks is None:
            q, grouped = fold_heads(q, k.shape[1]), False
        if q.device.type != "cuda" or mask is not None or bias is not None or terms.sinks is not None:
            k, v, grouped = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1]), False
        if mask is not None:
            q, k, v, dead = shield(q, k, v, mask)
        if mask is not None or bias is not None:
            add, dead = _merge(mask, dead, bias, q)
        if terms.sinks is not None:
            q, k, v, add = _with_sinks(q, k, v, add, terms)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if add is not None and add.dtype != torch.bool:
            add = add.to(v.dtype)
        out = F.scaled_dot_product_attention(
            q, k, v, add, terms.dropout, is_causal=causal, scale=terms.scale, enable_gqa=grouped
        )
        if terms.sinks is not None:
            out = out[..., :-_SINK_WIDTH]
        out = out if dead is None else out.masked_fill(dead, 0.0)
        return out.reshape(shape)


#: Features by which heads grow to hold a sink; CUDA's kernels want multiples of 8.
_SINK_WIDTH = 8


def _with_sinks(
    q: Tensor, k: Tensor, v: Tensor, add: Tensor | None, terms: Terms
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """One more key for each head, in front, whose product with every query is the sink's logit, and whose value is 0.

    A new feature that is 1 in every query, 0 in every key and ``sink / scale`` in the new one makes that product,
    so that every kernel gives its gradient.
    """
    assert terms.sinks is not None
    q = F.pad(q, (0, _SINK_WIDTH))
    q = torch.cat([q[..., :-_SINK_WIDTH], torch.ones_like(q[..., :1]), q[..., 1 - _SINK_WIDTH :]], dim=-1)
    sinks = (terms.sinks / terms.scale).to(k.dtype)[:, None, None]
    sinks = F.pad(sinks, (k.shape[-1], _SINK_WIDTH - 1)).expand(k.shape[0], -1, -1, -1)
    k = torch.cat([sinks, F.pad(k, (0, _SINK_WIDTH))], dim=2)
    v = F.pad(v, (0, _SINK_WIDTH, 1, 0))
    if add is not None:
        add = add.expand(*add.shape[:-1], v.shape[2] - 1)
        add = F.pad(add, (1, 0), value=True if add.dtype == torch.bool else 0.0)
    return q, k, v, add


def _merge(
    mask: Tensor | None, dead: Tensor | None, bias: Tensor | None, q: Tensor
) -> tuple[Tensor, Tensor | None]:
    """One mask or bias for torch, in which rows without any key may see every key, and those rows."""
    if bias is None:
        assert mask is not None
        return mask if dead is None else mask | dead, dead
    if mask is not None:
        bias = bias.masked_fill(~mask, -torch.inf)
    dead = bias.detach().amax(-1, keepdim=True) == -torch.inf
    return bias.masked_fill(dead, 0.0).to(q.dtype), dead
