"""One node of the autograd graph for all parts of an attention call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmattn.backends.cpu.kernels import Extras, Kernel
from mmattn.backends.cpu.layouts import Layout, Part


class How(NamedTuple):
    """How a call runs: its layout, a kernel for each part, the dtype they compute in, and numbers."""

    layout: Layout
    kernels: tuple[Kernel, ...]
    dtypes: tuple[torch.dtype, ...]
    scale: float
    threshold: int


def compute(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: How
) -> tuple[Tensor, list[list[Tensor]]]:
    """The result, and what the backward pass of each part needs; none for a part without any query or key.

    q, k, v have one dtype and lie as the layout takes them; the bias is ``[1 or b, 1 or H, N, M]``.
    """
    outs: list[Tensor] = []
    kept: list[list[Tensor]] = []
    cuts = zip(how.layout.cut_queries(q), how.layout.cut_keys(k), how.layout.cut_keys(v), strict=True)
    for index, (of_q, of_k, of_v) in enumerate(cuts):
        part, kernel, dtype = how.layout.parts[index], how.kernels[index], how.dtypes[index]
        if not of_q.numel() or not of_k.numel():
            outs.append(torch.zeros_like(of_q))
            kept.append([])
            continue
        extras = _extras(part, bias, how, dtype)
        out, saved = kernel.forward(of_q.to(dtype), of_k.to(dtype), of_v.to(dtype), extras)
        if part.dead is not None:
            out = out.masked_fill_(part.dead, 0.0)
        outs.append(out)
        kept.append([*saved, out])
    return how.layout.join_queries([out.to(q.dtype) for out in outs], q), kept


class CpuAttention(torch.autograd.Function):
    """Attention over a layout; autograd sees one node instead of one for every slice and product."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, how: How) -> Tensor:
        """As :func:`compute`."""
        result, kept = compute(q, k, v, bias, how)
        ctx.save_for_backward(*[x for of_part in kept for x in of_part], *([] if bias is None else [bias]))
        ctx.how, ctx.counts, ctx.like = how, [len(of_part) for of_part in kept], (_Like(q), _Like(k))
        ctx.biased = bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and the bias."""
        how: How = ctx.how
        kept = list(ctx.saved_tensors)
        bias = kept.pop() if ctx.biased else None
        of_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        results: list[list[Tensor]] = [[], [], []]
        shapes = ctx.like[0].blank(grads[0]), ctx.like[1].blank(grads[0])
        cuts = zip(how.layout.cut_queries(grads[0]), ctx.counts, strict=True)
        k_cuts: list[Tensor] | None = None
        for index, (grad, count) in enumerate(cuts):
            part, kernel, dtype = how.layout.parts[index], how.kernels[index], how.dtypes[index]
            if not count:
                k_cuts = how.layout.cut_keys(shapes[1]) if k_cuts is None else k_cuts
                blank = torch.zeros_like(k_cuts[index])
                for of_one, x in zip(results, (torch.zeros_like(grad), blank, blank), strict=True):
                    of_one.append(x)
                continue
            *saved, out = kept[:count]
            del kept[:count]
            grad = grad.to(dtype)
            if part.dead is not None:
                grad = grad.masked_fill(part.dead, 0.0)
            extras = _extras(part, bias, how, dtype)
            *found, of_logits = kernel.backward(grad, tuple(saved), extras, out)
            for of_one, x in zip(results, found, strict=True):
                of_one.append(x.to(grads[0].dtype))
            if of_bias is not None:
                assert of_logits is not None, "the kernel chosen gives no gradient of a bias"
                _add_to(of_bias, of_logits, part)
        of_q = how.layout.join_queries(results[0], shapes[0])
        of_k, of_v = (how.layout.join_keys(x, shapes[1]) for x in results[1:])
        return of_q, of_k, of_v, of_bias, None


class _Like:
    """The shape of a tensor, to make a blank one from."""

    def __init__(self, x: Tensor) -> None:
        self.shape = x.shape

    def blank(self, x: Tensor) -> Tensor:
        """A tensor of that shape that takes no memory."""
        return x.new_zeros(()).expand(self.shape)


def _extras(part: Part, bias: Tensor | None, how: How, dtype: torch.dtype) -> Extras:
    add = part.add
    if bias is not None:
        cut = bias if part.bias is None else bias[(..., *part.bias)]
        add = cut if add is None else cut + add
        if part.dead is not None:
            add = add.masked_fill(part.dead, 0.0)
    return Extras(None if add is None else add.to(dtype), part.causal, how.scale, how.threshold)


def _add_to(of_bias: Tensor, of_logits: Tensor, part: Part) -> None:
    """Add the gradient of the logits ``[b, H, N, M]`` to that of the bias they were cut from."""
    target = of_bias if part.bias is None else of_bias[(..., *part.bias)]
    target += of_logits.sum_to_size(target.shape).to(target.dtype)
