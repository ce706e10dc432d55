"""torch's scaled_dot_product_attention: fused kernels on CPU and CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.base import Backend, Call, repeat_heads
from mmattn.backends.packed_cpu import PackedAttention, plan
from mmattn.masks import Pattern

#: Below this many keys the CPU kernel's bf16 backward is several times slower than its fp32 one.
_SHORT = 512


class SdpaBackend(Backend):
    """``torch.nn.functional.scaled_dot_product_attention``; packed tokens go in groups of
    (nearly) equal length.

    On a CPU, half-precision training over fewer than 512 keys is computed in float32: torch's backward
    kernel for bfloat16 is several times slower there.
    """

    name = "sdpa"

    def refusal(self, call: Call) -> str | None:
        if not call.dtype.is_floating_point:
            return f"it needs a floating-point dtype, got {call.dtype}"
        return None

    def merit(self, call: Call) -> str:
        if call.dropout:
            return "torch's fused attention (on a CPU, dropout of weights takes torch's unfused path)"
        return "torch's fused attention, which never stores the N x M weights"

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
        if k.shape[2] == 0 or q.shape[2] == 0:
            return q * 0 + (k.sum() + v.sum()) * 0  # no key to attend to: zeros that still carry gradients
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        dead = None
        if mask is not None or bias is not None:
            mask, dead = _merge(mask, bias, q)
        if _trains_in_float32(q, k, v, k.shape[2]):
            out = _without_autocast(q.float(), k.float(), v.float(), mask, scale, dropout)
        else:
            q, k, v = (x.to(v.dtype) for x in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        out = out.to(v.dtype)
        return out if dead is None else out.masked_fill(dead, 0.0)

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        *,
        mask: Pattern | None,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        """As :meth:`Backend.packed`; plain attention on a CPU is one node of the autograd graph."""
        plain = mask is None and bias is None and not dropout
        if not plain or q.device.type != "cpu" or not len(k) or q.dtype == torch.float16:
            return super().packed(
                q, k, v, q_lengths, k_lengths, mask=mask, bias=bias, scale=scale, dropout=dropout
            )
        wanted = v.dtype
        if _trains_in_float32(q, k, v, max(k_lengths)):
            q, k, v = q.float(), k.float(), v.float()
        q = q.to(v.dtype)
        k, v = repeat_heads(k.to(v.dtype), q.shape[1]), repeat_heads(v, q.shape[1])
        with torch.autocast("cpu", enabled=False):
            how = plan(tuple(q_lengths), tuple(k_lengths))
            out: Tensor = PackedAttention.apply(q, k, v, how, scale)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return out.to(wanted)


def _trains_in_float32(q: Tensor, k: Tensor, v: Tensor, longest: int) -> bool:
    """Whether half precision gives way to float32: training over short sequences on a CPU."""
    if not torch.is_grad_enabled() or not (q.requires_grad or k.requires_grad or v.requires_grad):
        return False
    half = v.dtype in (torch.bfloat16, torch.float16)
    return q.device.type == "cpu" and half and longest < _SHORT


def _without_autocast(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)


def _merge(mask: Tensor | None, bias: Tensor | None, q: Tensor) -> tuple[Tensor, Tensor]:
    """One mask or bias for torch, in which rows without any key may see every key, and those rows."""
    if bias is None:
        assert mask is not None
        dead = ~mask.any(-1, keepdim=True)
        return mask | dead, dead
    if mask is not None:
        bias = bias.masked_fill(~mask, -torch.inf)
    dead = (bias == -torch.inf).all(-1, keepdim=True)
    return bias.masked_fill(dead, 0.0).to(q.dtype), dead
