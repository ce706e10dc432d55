"""Dropout of features and of whole residual branches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def threshold_of(p: float) -> int:
    """A probability in 1/256, to which a CPU rounds it; below 1."""
    return min(round(p * 256), 255)


def draw_keep(like: Tensor, threshold: int) -> Tensor:
    """Ones, and zeros with probability ``threshold / 256``, in the shape of ``like``, for :func:`drop_`.

    One random byte an element, eight from each number that torch's generator draws: about ten times faster on
    a CPU than a Bernoulli draw. For half precision they are integers, since integers multiply faster.
    """
    words = torch.empty((like.numel() + 7) // 8, dtype=torch.int64)
    # from the smallest int64 with no upper end, so that all eight bytes of a word are random
    words.random_(torch.iinfo(torch.int64).min, None)
    drawn = words.view(torch.uint8)[: like.numel()].view(like.shape)
    if like.element_size() == 2:
        return torch.ge(drawn, threshold, out=drawn).to(torch.int16)
    keep = torch.empty_like(like, memory_format=torch.contiguous_format)
    return torch.ge(drawn, threshold, out=keep)


def drop_(x: Tensor, keep: Tensor) -> Tensor:
    """Multiply in place by ones and zeros that :func:`draw_keep` drew."""
    if keep.dtype == torch.int16:
        x.view(torch.int16).mul_(keep)
        return x
    return x.mul_(keep)


def dropped(x: Tensor, keep: Tensor) -> Tensor:
    """The product of x and ones and zeros that :func:`draw_keep` drew."""
    return (x.view(torch.int16) * keep).view(x.dtype) if keep.dtype == torch.int16 else x * keep


class _ByteDropout(torch.autograd.Function):
    """Dropout decided by one random byte an element, which a CPU draws about ten times faster."""

    @staticmethod
    def forward(x: Tensor, threshold: int) -> tuple[Tensor, Tensor]:
        keep = draw_keep(x, threshold)
        return dropped(x.contiguous(), keep).mul_(256 / (256 - threshold)), keep

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.threshold = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        factor = 256 / (256 - ctx.threshold)
        if torch.is_grad_enabled():  # gradients of gradients are wanted
            return grads[0] * keep.to(grads[0].dtype) * factor, None
        return dropped(grads[0].contiguous(), keep).mul_(factor), None


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
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return nn.functional.dropout(x, self.p)
        threshold = self.threshold
        if not threshold:
            return x
        result: Tensor = _ByteDropout.apply(x, threshold)[0]  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return result

    @property
    def threshold(self) -> int:
        """The probability in 1/256 that a CPU drops with at present: 0 outside of training."""
        return threshold_of(self.p) if self.training else 0

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

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Branch ``[T, D]`` of B sequences with lengths ``[B]`` (on the CPU), or dense ``[B, N, D]`` without."""
        if lengths is None:
            factors = self.draw(x.shape[0])
            return x if factors is None else x * factors.to(x)[:, None, None]
        factors = self.draw(len(lengths))
        return x if factors is None else x * factors.repeat_interleave(lengths)[:, None].to(x)

    def draw(self, sequences: int) -> Tensor | None:
        """A factor for each sequence, 0 or 1 / (1 - p); None when nothing is to be dropped."""
        if not self.training or self.p == 0.0:
            return None
        return (torch.rand(sequences) >= self.p).float() / (1.0 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
