"""Packed attention on CUDA: torch.nn.attention.varlen, flash attention over cumulative lengths."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate

import torch
from torch import Tensor

from mmattn.backends.base import Backend, Call, Terms, repeat_heads, trimmed_band
from mmattn.masks import Band


class VarlenBackend(Backend):
    """``torch.nn.attention.varlen.varlen_attn`` (torch 2.10 and newer): packed sequences in one kernel, on CUDA."""

    name = "varlen"

    def refusal(self, call: Call) -> str | None:
        terms = call.terms
        if not call.packed:
            return "it is for packed sequences, got a dense call"
        if call.device.type != "cuda":
            return f"it runs on CUDA, got {call.device}"
        if find_spec("torch.nn.attention.varlen") is None:
            return f"torch {torch.__version__} has no torch.nn.attention.varlen"
        if call.dtype not in (torch.float16, torch.bfloat16):
            return f"it needs float16 or bfloat16, got {call.dtype}"
        if terms.bias is not None or terms.soft_cap is not None or terms.sinks is not None:
            return "its kernel has no bias, soft cap or sinks"
        if terms.dropout:
            return "its kernel drops no weights"
        if call.head_dim % 8 or call.head_dim > 256:
            return f"head_dim must be a multiple of 8 up to 256, got {call.head_dim}"
        if terms.mask is not None and (call.band is None or not call.same_lengths):
            return f"its kernel knows windows between as many queries as keys alone, got {terms.mask!r}"
        return None

    def merit(self, call: Call) -> str:
        return "flash attention over all sequences in one kernel, without padding"

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        raise ValueError("varlen runs packed calls: got a dense one")

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        terms: Terms,
    ) -> Tensor:
        """As :meth:`Backend.packed`, in one kernel."""
        from torch.nn.attention.varlen import varlen_attn

        q, k = q.to(v.dtype), k.to(v.dtype)
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        n, m = max(q_lengths, default=0), max(k_lengths, default=0)
        if not n or not m:
            return (q.sum() + k.sum() + v.sum()) * 0 + torch.zeros_like(q)
        band = trimmed_band(terms.mask, n, m) or Band(None, None)
        window = (-1 if band.low is None else -band.low, -1 if band.high is None else band.high)
        of_q, of_k = (
            torch.tensor([0, *accumulate(x)], dtype=torch.int32).to(q.device, non_blocking=True)
            for x in (q_lengths, k_lengths)
        )
        out = varlen_attn(q, k, v, of_q, of_k, n, m, scale=terms.scale, window_size=window)
        assert isinstance(out, Tensor)
        return out
