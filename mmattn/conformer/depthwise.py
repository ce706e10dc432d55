"""A depthwise convolution over time whose tokens lie as rows, quick to train on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.unseen import tracing


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Valid convolution over time of each feature on its own, ``[B, N, D] -> [B, N - k + 1, D]``.

    As a picture of height 1 whose channels lie last the tokens stay where they are: nothing is transposed. In
    training on a CPU one node computes the gradient of the kernel by products of shifted rows, in a third of
    the time of torch's own.

    Args:
        x: tokens.
        weight: ``[D, 1, k]``, as in ``nn.Conv1d(D, D, k, groups=D)``.
        bias: ``[D]``.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if x.shape[1] < weight.shape[2]:
        return x[:, :0]
    wants = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if x.device.type != "cpu" or not wants or x.dtype == torch.float16 or tracing():
        return _convolved(x, weight, bias)
    out: Tensor = _Depthwise.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.device.type != "cpu" or x.dtype in (torch.float32, torch.float64):
        out = F.conv2d(_picture(x), weight.unsqueeze(2), bias, groups=x.shape[2])
    elif tracing():
        return _convolved(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    else:
        # oneDNN 3.10 in torch 2.11 never ends making its forward kernel in half precision for some widths (16 or
        # 144 features): the transposed convolution with the kernel turned round is the same sum by another kernel
        like = x[:, : x.shape[1] - weight.shape[2] + 1]
        out = _transposed(x, like, weight.flip(2), weight.shape[2] - 1)
        out = out if bias is None else out.add_(bias[:, None, None])
    return out.squeeze(2).transpose(1, 2)


def _picture(x: Tensor) -> Tensor:
    """``[B, N, D]`` as ``[B, D, 1, N]``."""
    return x.transpose(1, 2).unsqueeze(2)


def _transposed(grad: Tensor, like: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient ``[B, D, 1, N]`` of the input ``like`` of a convolution whose result has the gradient ``grad``."""
    out: Tensor = torch.ops.aten.convolution_backward(
        _picture(grad), _picture(like), weight.unsqueeze(2), None, [1, 1], [0, padding], [1, 1], False, [0, 0],
        grad.shape[2], [True, False, False],
    )[0]  # fmt: skip
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.with_bias = bias is not None
        with torch.autocast("cpu", enabled=False):
            return _convolved(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_x = of_weight = of_bias = None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                of_x = _transposed(grad, x, weight, 0).squeeze(2).transpose(1, 2)
            if ctx.needs_input_grad[1]:
                of_weight = _of_weight(x, grad, weight.shape[2]).to(weight.dtype)
            if ctx.with_bias and ctx.needs_input_grad[2]:
                of_bias = grad.sum((0, 1))
        return of_x, of_weight, of_bias


#: Rows at a time: their products with all shifts stay in the cache of a core.
_ROWS = 64


def _of_weight(x: Tensor, grad: Tensor, size: int) -> Tensor:
    """The gradient of the kernel, ``[D, 1, size]``: for each shift i the sum of ``grad[b, n] * x[b, n + i]``."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, grad = x.to(wide).contiguous(), grad.to(wide)
    batch, length, width = grad.shape
    found = x.new_zeros(size, min(_ROWS, length), width)
    for row in range(batch):
        for begin in range(0, length, _ROWS):
            part = grad[row, begin : begin + _ROWS]
            count = len(part)
            # all shifts of the rows, as a view
            shifted = x[row, begin:].as_strided((size, count, width), (width, width, 1))
            found[:, :count].addcmul_(part, shifted)
    return found.sum(1).t().unsqueeze(1)
