"""Position biases: numbers on the logits that depend on where query and key stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class PositionBias(nn.Module, ABC):
    """Base of modules that turn the coordinates of queries and keys into a bias on the logits.

    A bias of your own derives from it and has :meth:`forward`.

    Args:
        num_heads: heads H of the queries.

    Raises:
        ValueError: num_heads is below 1.

    Example:
        >>> class Nearness(PositionBias):
        ...     def forward(self, query_coords, key_coords):
        ...         distance = (query_coords[..., :, None, :] - key_coords[..., None, :, :]).abs().sum(-1)
        ...         return -distance[..., None, :, :].expand(*distance.shape[:-2], self.num_heads, -1, -1)
        >>> Nearness(num_heads=3)(torch.zeros(5, 1), torch.zeros(7, 1)).shape
        torch.Size([3, 5, 7])
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1: got {num_heads}")
        self.num_heads = num_heads

    @abstractmethod
    def forward(self, query_coords: Tensor, key_coords: Tensor) -> Tensor:
        """The bias ``[..., H, N, M]`` for coordinates ``[..., N, A]`` of queries and ``[..., M, A]`` of keys.

        Leading axes broadcast, so that one set of keys may serve many sets of queries.
        """

    def fill_buffers(self) -> None:
        """Compute buffers that are not saved; runs whenever the module is moved, cast or made from ``meta``."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # torch's hook for .to(), .double() and .to_empty(): what is computed anew is exact in the new
        # dtype, and is there after to_empty(), which no state dict would fill
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.fill_buffers()
        return self


class ALiBi(PositionBias):
    """Attention with linear biases (Press et al. 2022): ``-slope * distance``, with a slope for each head.

    Slopes are a geometric sequence, those of the paper's code also where H is no power of two, and are not
    learned. The distance over several axes is the sum of absolute differences (city block); with one axis
    that is the paper's.

    Args:
        num_heads: heads H of the queries.
        symmetric: True takes the distance in both directions. False takes the signed difference
            ``query - key`` (one axis), as Bloom and MPT do: the same for keys up to the query, whereas later
            keys gain, so it belongs with a :class:`~mmattn.masks.Causal` mask.

    Raises:
        ValueError: num_heads is below 1.

    Example:
        >>> ALiBi(num_heads=2)(torch.tensor([[5]]), torch.tensor([[5], [4], [1]])).tolist()
        [[[-0.0, -0.0625, -0.25]], [[-0.0, -0.00390625, -0.015625]]]
    """

    slopes: Tensor

    def __init__(self, num_heads: int, symmetric: bool = True) -> None:
        super().__init__(num_heads)
        self.symmetric = symmetric
        self.register_buffer("slopes", torch.empty(num_heads), persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Set the slopes ``[H]``."""
        like = self.slopes
        self.slopes = torch.tensor(_slopes(self.num_heads), dtype=like.dtype, device=like.device)

    def forward(self, query_coords: Tensor, key_coords: Tensor) -> Tensor:
        """The bias ``[..., H, N, M]`` for coordinates ``[..., N, A]`` and ``[..., M, A]``, in the slopes' dtype.

        Raises:
            ValueError: coordinates do not fit each other, or ``symmetric=False`` has several axes.
        """
        check_axes(query_coords, key_coords, None if self.symmetric else 1, repr(self))
        # a half-precision module: whole steps above 256 are none in bfloat16
        precise = torch.promote_types(self.slopes.dtype, torch.float32)
        distance = differences(query_coords, key_coords, 0).to(precise)
        if self.symmetric:
            distance = distance.abs()
        for axis in range(1, query_coords.shape[-1]):
            distance = distance + differences(query_coords, key_coords, axis).abs()
        bias = distance[..., None, :, :] * -self.slopes.to(precise)[:, None, None]
        return bias.to(self.slopes.dtype)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}" + ("" if self.symmetric else ", symmetric=False")


def differences(query_coords: Tensor, key_coords: Tensor, axis: int) -> Tensor:
    """``query - key`` along one axis: ``[..., N, M]`` from ``[..., N, A]`` and ``[..., M, A]``.

    Taken before any cast to a narrower type, so that large coordinates keep small differences; whole
    numbers stay whole.
    """
    q, k = query_coords[..., axis], key_coords[..., axis]
    if not q.is_floating_point() and not k.is_floating_point():
        q, k = q.long(), k.long()  # an unsigned type would wrap below zero
    return q[..., :, None] - k[..., None, :]


def whole_differences(query_coords: Tensor, key_coords: Tensor, axis: int) -> Tensor:
    """As :func:`differences`, in int64: fractions are rounded to the nearest whole step, halves to the even."""
    found = differences(query_coords, key_coords, axis)
    return found.round().long() if found.is_floating_point() else found


def check_axes(query_coords: Tensor, key_coords: Tensor, axes: int | None, name: str) -> None:
    """Coordinates must have the axes that the bias ``name`` is made for; ``None`` is any number.

    Raises:
        ValueError: they do not.
    """
    if query_coords.ndim < 2 or key_coords.ndim < 2 or query_coords.shape[-1] != key_coords.shape[-1]:
        raise ValueError(
            f"query_coords [..., N, A] and key_coords [..., M, A] must have the same axes A: "
            f"got shapes {list(query_coords.shape)} and {list(key_coords.shape)}"
        )
    if axes is not None and query_coords.shape[-1] != axes:
        raise ValueError(f"{name} takes coords with A={axes}: got A={query_coords.shape[-1]}")


def _slopes(num_heads: int) -> list[float]:
    """The paper's slopes; a number between two powers of two takes the lower's, then every other of the upper's."""
    whole = 1 << (num_heads.bit_length() - 1)
    first = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
    between = [2.0 ** (-8.0 * (i + 0.5) / whole) for i in range(num_heads - whole)]
    return first + between
