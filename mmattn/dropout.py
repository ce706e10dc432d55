"""Dropout of features and of whole residual branches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _ByteDropout(torch.autograd.Function):
    """Dropout decided by one random byte an element, which a CPU draws about ten times faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64)
        # full range of int64, so that all eight bytes of a word are random
        words.random_(torch.iinfo(torch.int64).min, None)
        drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
        factors = torch.empty_like(x, memory_format=torch.contiguous_format)
        torch.ge(drawn, threshold, out=factors)
        factors.mul_(256 / (256 - threshold))
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grads[0] * factors, None


class Dropout(nn.Module):
    """Zeroes features with probability p in training and scales the rest by 1 / (1 - p).

    On a CPU p is rounded to a multiple of 1/256 (and the scale with it), which makes it about ten times
    faster than ``torch.nn.Dropout``; elsewhere it is torch's. Follows torch's global generator.

    Args:
        p: probability in [0, 1).

    Raises:
        ValueError: p is outside [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must lie in [0, 1): got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        threshold = min(round(self.p * 256), 255)
        result: Tensor = _ByteDropout.apply(x, threshold)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return result if threshold else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DropPath(nn.Module):
    """Drops a residual branch for whole sequences, with probability p in training (Huang et al. 2016).

    Args:
        p: probability in [0, 1).

    Raises:
        ValueError: p is outside [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"drop_path must lie in [0, 1): got {p}")
        self.p = p

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Branch ``[T, D]`` of B sequences with lengths ``[B]`` (on the CPU)."""
        if not self.training or self.p == 0.0:
            return x
        factors = (torch.rand(len(lengths)) >= self.p).to(x.dtype) / (1.0 - self.p)
        return x * factors.repeat_interleave(lengths)[:, None].to(x.device)

    def extra_repr(self) -> str:
        return f"p={self.p}"
