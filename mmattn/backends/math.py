"""Attention as the formula reads: softmax(q k^T * scale + bias) v; the twin other backends are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.backends.base import Backend, Call, Terms, repeat_heads
from mmattn.backends.unseen import shield


def attention_weights(q: Tensor, k: Tensor, terms: Terms) -> Tensor:
    """Weights ``[B, H, N, M]`` of queries ``[B, H, N, K]`` over keys ``[B, H_kv, M, K]``, without dropout.

    Each row adds up to 1, or less with a sink; a row without any allowed key is all zeros.
    """
    k = repeat_heads(k, q.shape[1])
    mask, bias = terms.drawn_mask(q.shape[2], k.shape[2], q.device), terms.drawn_bias()
    if mask is not None:
        q, k, _, _ = shield(q, k, k, mask)
    logits = (q * terms.scale) @ k.transpose(-2, -1)
    if terms.soft_cap is not None:
        logits = terms.soft_cap * torch.tanh(logits / terms.soft_cap)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    if terms.sinks is not None:
        sink = terms.sinks.to(logits.dtype)[:, None, None].expand(*logits.shape[:-1], 1)
        return torch.cat([logits, sink], dim=-1).softmax(-1)[..., :-1]
    if mask is None and bias is None:
        return logits.softmax(-1)
    # a row of -inf alone would be 0/0: give it plain logits, then take its weights away
    dead = (logits == -torch.inf).all(-1, keepdim=True)
    return logits.masked_fill(dead, 0.0).softmax(-1).masked_fill(dead, 0.0)


class MathBackend(Backend):
    """Plain products and a softmax, in any dtype and on any device; memory grows with N * M."""

    name = "math"

    def merit(self, call: Call) -> str:
        return "it runs everything, plainly"

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        v = repeat_heads(v, q.shape[1])
        mask = terms.drawn_mask(q.shape[2], k.shape[2], q.device)
        if mask is not None:
            v = v.masked_fill(~mask.any(-2)[..., None], 0.0)
        weights = attention_weights(q, k, terms)
        if terms.dropout:
            weights = torch.dropout(weights, terms.dropout, train=True)
        # a wider bias widens the weights
        return weights.to(v.dtype) @ v
