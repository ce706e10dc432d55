"""Attention as the formula reads: softmax(q k^T * scale + bias) v; the twin other backends are tested against."""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.backends.base import Backend, Call, repeat_heads


def attention_weights(
    q: Tensor, k: Tensor, *, mask: Tensor | None, bias: Tensor | None, scale: float
) -> Tensor:
    """Weights ``[B, H, N, M]`` of queries ``[B, H, N, K]`` over keys ``[B, H_kv, M, K]``.

    Each row adds up to 1; a row without any allowed key is all zeros. ``mask`` (True = attend) and ``bias``
    broadcast to the weights.
    """
    logits = (q * scale) @ repeat_heads(k, q.shape[1]).transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
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

    def dense(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        weights = attention_weights(q, k, mask=mask, bias=bias, scale=scale)
        if dropout:
            weights = torch.dropout(weights, dropout, train=True)
        # a wider bias widens the weights
        return weights.to(v.dtype) @ repeat_heads(v, q.shape[1])
