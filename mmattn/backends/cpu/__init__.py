"""Attention on a CPU without padding: sequences grouped by length, windows in blocks, measured kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmattn.backends.base import (
    Backend,
    Call,
    Run,
    Terms,
    equal_runs,
    fold_heads,
    repeat_heads,
    trimmed_band,
)
from mmattn.backends.cpu.calibration import WAYS, Calibration, Choice, measure, shipped
from mmattn.backends.cpu.hiding import group_part, hides, masked, masked_flash
from mmattn.backends.cpu.kernels import HAS_FLASH, Extras, flash_of
from mmattn.backends.cpu.layouts import Grouped, Layout, Part, Whole
from mmattn.backends.cpu.node import CpuAttention, How, compute
from mmattn.backends.cpu.plans import plan
from mmattn.backends.cpu.windows import BLOCK, block_of, blocks, in_blocks, span_of
from mmattn.backends.ready import Ready, forget
from mmattn.backends.unseen import crop, extent, in_range, nothing, shifted, tracing
from mmattn.dropout import threshold_of
from mmattn.masks import Band, Pattern


class CpuBackend(Backend):
    """Attention on a CPU as one node of the autograd graph.

    Packed sequences are grouped by length, windows cost a time linear in the length, and each group runs the
    kernel that a table of measured times names. Weights are dropped by one random byte each: the probability is
    rounded to 1/256, and so is the scale. Gradients of gradients are not computed; ``math`` does that.

    Args:
        calibration: the table; ``None`` takes the one shipped, or set by :func:`use_calibration`.
    """

    name = "cpu"

    def __init__(self, calibration: Calibration | None = None) -> None:
        self._calibration = calibration

    @property
    def calibration(self) -> Calibration:
        """The table in use."""
        return self._calibration or _state.calibration or shipped()

    def refusal(self, call: Call) -> str | None:
        if call.device.type != "cpu":
            return f"it runs on a CPU, got {call.device}"
        if tracing():
            return "it cannot be traced by torch.compile, torch.export or torch.func"
        if call.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            return f"it needs a floating-point dtype, got {call.dtype}"
        if call.terms.soft_cap is not None:
            return "its kernels have no soft cap"
        if call.terms.sinks is not None:
            return "its kernels have no sinks"
        if not HAS_FLASH:
            return "this torch lacks the kernels that it calls"
        return None

    def merit(self, call: Call) -> str:
        choice = self._choice(
            call.dtype, call.grad, call.num_queries, call.num_keys, call.head_dim, call.terms
        )
        layout = ""
        if call.packed:
            layout = "sequences grouped by length, "
        n, m, band = call.num_queries, call.num_keys, call.band
        if band is not None:
            of = extent(band, n, m)
            n, m, band = of.queries[1] - of.queries[0], of.keys[1] - of.keys[0], shifted(band, of)
        if band is not None and in_blocks(band, n, m, call.terms):
            layout += f"the window in blocks of {block_of(band)} queries, "
        return f"{layout}the kernel {choice.way!r}: {choice.reason}"

    def ready(self, call: Call) -> Ready | None:
        """As :meth:`Backend.ready`: torch's kernel, over all keys, those up to the query's own, or a drawn mask."""
        terms, n, m, band = call.terms, call.num_queries, call.num_keys, call.band
        plain = terms.bias is None and not threshold_of(terms.dropout) and call.num_heads == call.num_kv_heads
        if not plain or not n or not m or not call.head_dim or tracing():
            return None
        drawn = isinstance(terms.mask, Tensor)
        plain_band = band in (Band(None, None), Band(None, 0))
        if isinstance(terms.mask, Pattern) and (not plain_band or hides(terms.mask, n, m)):
            return None
        if self._choice(call.dtype, call.grad, n, m, call.head_dim, terms).way != "flash":
            return None
        return masked_flash(terms.scale) if drawn else flash_of(band == Band(None, 0), terms.scale)

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        if q.dtype != v.dtype or k.dtype != v.dtype:
            q, k = q.to(v.dtype), k.to(v.dtype)
        if terms.mask is None:
            return self._dense(q, k, v, terms)
        inside = crop(q, k, v, terms)
        return inside.widen(self._dense(*inside[:4]))

    def _dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        n, m, shape = q.shape[2], k.shape[2], q.shape
        band = None if terms.mask is None else trimmed_band(terms.mask, n, m)
        sees_all = terms.mask is None or band == Band(None, None)
        bias = terms.drawn_bias()
        if bias is not None:
            bias = in_range(bias, v.dtype)
        if q.shape[1] != k.shape[1]:
            if sees_all and bias is None:
                q = fold_heads(q, k.shape[1])
            k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        causal = band == Band(None, 0)
        if (sees_all or causal) and bias is None and not threshold_of(terms.dropout):
            way = self._choice(v.dtype, trains := _trains(q, k, v), n, m, q.shape[3], terms).way
            # torch knows the gradient of its own kernel, and takes less time to get there than a node of ours
            if not trains or way == "flash":
                return self._at_once(q, k, v, causal, way, terms.scale).reshape(shape)
        if band is not None and in_blocks(band, n, m, terms):
            kind = torch.float64 if v.dtype == torch.float64 else torch.float32
            layout: Layout = blocks(q.shape[0], n, m, band, kind)
            return self._run(
                q, k, v, None, terms, layout, [(block_of(band), span_of(band))] * len(layout.parts)
            )
        holes = bias is not None and bool((bias.detach() == -torch.inf).any())
        if (sees_all and not holes) or not n or not m:
            part = Part()
        elif band == Band(None, 0) and not holes:
            part = Part(causal=True)
        else:
            part, q, k, v = masked(q, k, v, terms.drawn_mask(n, m, q.device), bias)
        if bias is not None:
            bias = bias.expand(-1, -1, n, m)
        return self._run(q, k, v, bias, terms, Whole(part), [(q.shape[2], m)]).reshape(shape)

    def _at_once(self, q: Tensor, k: Tensor, v: Tensor, causal: bool, way: str, scale: float) -> Tensor:
        """Every query sees every key, or every one up to its own; no weight is dropped."""
        if not q.numel() or not k.shape[2]:
            return nothing(q, k, v)
        kernel, dtype = WAYS[way]
        extras = Extras(None, causal, scale, 0)
        if dtype is None and not torch.is_autocast_enabled("cpu"):
            return kernel.forward(q, k, v, extras)[0]
        with torch.autocast("cpu", enabled=False):
            of_q, of_k, of_v = (x.to(dtype or x.dtype) for x in (q, k, v))
            return kernel.forward(of_q, of_k, of_v, extras)[0].to(v.dtype)

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        terms: Terms,
    ) -> Tensor:
        """As :meth:`Backend.packed`, in groups of sequences of (nearly) equal length."""
        of_q, of_k = tuple(q_lengths), tuple(k_lengths)
        mask, bias = terms.mask, terms.bias
        n, m = max(of_q, default=0), max(of_k, default=0)
        plain_mask = mask is None or (
            isinstance(mask, Pattern) and not mask.per_sequence and not mask.uses_coords
        )
        plain_bias = bias is None or isinstance(bias, Tensor)
        if not plain_mask or not plain_bias or in_blocks(trimmed_band(mask, n, m), n, m, terms):
            return super().packed(q, k, v, q_lengths, k_lengths, terms)
        if (
            n == 1
            and mask is None
            and bias is None
            and not threshold_of(terms.dropout)
            and not _trains(q, k, v)
        ):
            return self._one_query_each(q.to(v.dtype), k.to(v.dtype), v, equal_runs(of_q, of_k), terms)
        # a band between as many queries as keys does not mind what comes behind the end
        fill = mask is None or (of_q == of_k and isinstance(mask, Pattern) and mask.band(1, 1) is not None)
        how = plan(of_q, of_k, fill, half=v.dtype.itemsize == 2)
        if isinstance(mask, Pattern) and any(hides(mask, group.queries, group.keys) for group in how.groups):
            return super().packed(q, k, v, q_lengths, k_lengths, terms)
        q, k = q.to(v.dtype), k.to(v.dtype)
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        if bias is not None:
            assert isinstance(bias, Tensor)
            bias = in_range(bias[None], v.dtype)
        holes = bias is not None and bool((bias.detach() == -torch.inf).any())
        parts = [group_part(group, mask, bias if holes else None, bias is not None) for group in how.groups]
        shapes = [(group.queries, group.keys) for group in how.groups]
        return self._run(q, k, v, bias, terms, Grouped(how, parts), shapes)

    def _one_query_each(self, q: Tensor, k: Tensor, v: Tensor, runs: Sequence[Run], terms: Terms) -> Tensor:
        """Decoding: putting keys into groups would take longer than reading them where they lie."""
        outs, q_begin, k_begin = [], 0, 0
        kv_heads = k.shape[1]
        for count, n, m in runs:
            q_end, k_end = q_begin + count * n, k_begin + count * m
            if n:
                # heads that share keys, as queries that do
                of_q = q[q_begin:q_end].reshape(count, kv_heads, q.shape[1] // kv_heads, q.shape[2])
                of_k, of_v = (x[k_begin:k_end].view(count, m, *x.shape[1:]).transpose(1, 2) for x in (k, v))
                out = self._at_once(of_q, of_k, of_v, False, "flash", terms.scale)
                outs.append(out.reshape(count, *q.shape[1:]))
            q_begin, k_begin = q_end, k_end
        return torch.cat(outs)

    def _run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        terms: Terms,
        layout: Layout,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        train = _trains(q, k, v, bias)
        chosen = [self._choice(v.dtype, train, n, m, q.shape[-1], terms).way for n, m in shapes]
        kernels = tuple(WAYS[way][0] for way in chosen)
        dtypes = tuple(WAYS[way][1] or v.dtype for way in chosen)
        how = How(layout, kernels, dtypes, terms.scale, threshold_of(terms.dropout))
        if not train:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return compute(q, k, v, bias, how)[0]
        if not torch.is_autocast_enabled("cpu"):
            return CpuAttention.apply(q, k, v, bias, how)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped
        with torch.autocast("cpu", enabled=False):
            return CpuAttention.apply(q, k, v, bias, how)  # type: ignore[no-any-return, no-untyped-call]

    def _choice(self, dtype: torch.dtype, train: bool, n: int, m: int, head_dim: int, terms: Terms) -> Choice:
        bias = terms.bias
        writes_weights = bool(threshold_of(terms.dropout)) or (
            bias is not None and torch.is_grad_enabled() and getattr(bias, "requires_grad", True)
        )
        if n == 1 and not train and not writes_weights:
            return Choice("flash", "products of a matrix and a vector are what it does best")
        half = dtype in (torch.bfloat16, torch.float16)
        ways = ["plain"] if writes_weights else ["flash", "plain"]
        if half:
            ways += ["plain in float32"] if writes_weights else ["flash in float32"]
        dropped = bool(threshold_of(terms.dropout))
        return self.calibration.choose(dtype, train or dropped, dropped, (n * m) ** 0.5, head_dim, ways)


@dataclass
class _State:
    calibration: Calibration | None = None


_state = _State()


def use_calibration(calibration: Calibration | None) -> None:
    """Let ``auto`` and ``"cpu"`` choose by this table in this process; ``None``: by the one shipped."""
    _state.calibration = calibration
    forget()


def _trains(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


__all__ = ["BLOCK", "WAYS", "Calibration", "CpuBackend", "measure", "shipped", "use_calibration"]
