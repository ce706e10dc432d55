"""Position biases that are looked up in a learned table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmattn.positions.bias import PositionBias, check_axes, whole_differences


class RelativeBias(PositionBias):
    """T5's bias (Raffel et al. 2020): a learned number for each head and each bucket of distances, one axis.

    Half of the buckets hold one distance each, the others logarithmically more, up to ``max_distance``; what
    is farther shares the last one. Fractional coordinates are welcome: the difference of query and key is
    rounded to the nearest whole step (halves to the even one). ``table`` takes the weights of T5's
    ``relative_attention_bias`` as they are.

    Args:
        num_heads: heads H of the queries.
        num_buckets: rows of the table; with ``bidirectional`` half of them for each direction.
        max_distance: from this distance on, in steps, all keys share the last bucket.
        bidirectional: True tells keys before and after the query apart (T5's encoder); False has buckets for
            keys before it alone, and every later key counts as distance 0 (T5's decoder).

    Raises:
        ValueError: num_heads is below 1, num_buckets is too small (2, or 4 and even when bidirectional), or
            max_distance does not exceed the distances that have a bucket each.

    Example:
        >>> bias = RelativeBias(num_heads=3)
        >>> bias(torch.arange(5)[:, None], torch.arange(7)[:, None]).shape
        torch.Size([3, 5, 7])
    """

    bucket_of: Tensor

    def __init__(
        self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
    ) -> None:
        super().__init__(num_heads)
        if bidirectional and (num_buckets < 4 or num_buckets % 2):
            raise ValueError(f"num_buckets must be even and at least 4 when bidirectional: got {num_buckets}")
        if num_buckets < 2:
            raise ValueError(f"num_buckets must be at least 2: got {num_buckets}")
        exact = (num_buckets // 2 if bidirectional else num_buckets) // 2
        if max_distance <= exact:
            raise ValueError(
                f"max_distance must exceed the {exact} distances with a bucket each: got {max_distance}"
            )
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        places = torch.empty(2 * max_distance + 1, dtype=torch.long)
        self.register_buffer("bucket_of", places, persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Set the bucket of each difference ``key - query`` from -max_distance to max_distance.

        Once and on the CPU: at a bucket's edge the last bit of a logarithm decides, and devices and compilers
        round it differently.
        """
        steps = torch.arange(-self.max_distance, self.max_distance + 1, device="cpu")
        self.bucket_of = self._buckets(steps).to(self.bucket_of.device)

    def _buckets(self, steps: Tensor) -> Tensor:
        """T5's formula, in float32 as there."""
        count = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        exact = count // 2
        distance = steps.abs() if self.bidirectional else (-steps).clamp(min=0)
        growth = torch.log(distance.float().clamp(min=1) / exact) / math.log(self.max_distance / exact)
        far = (exact + (growth * (count - exact)).long()).clamp(max=count - 1)
        bucket = torch.where(distance < exact, distance, far)
        return bucket + count * (steps > 0) if self.bidirectional else bucket

    def forward(self, query_coords: Tensor, key_coords: Tensor) -> Tensor:
        """The bias ``[..., H, N, M]`` for coordinates ``[..., N, 1]`` and ``[..., M, 1]``, in the table's dtype.

        Raises:
            ValueError: coordinates have more than one axis.
        """
        check_axes(query_coords, key_coords, 1, repr(self))
        limit = self.max_distance
        steps = -whole_differences(query_coords, key_coords, 0)
        return _look_up(self.table, self.bucket_of[steps.clamp(-limit, limit) + limit])

    def extra_repr(self) -> str:
        return (
            f"num_heads={self.num_heads}, num_buckets={self.num_buckets}, max_distance={self.max_distance}, "
            f"bidirectional={self.bidirectional}"
        )


class GridBias(PositionBias):
    """Swin's bias (Liu et al. 2021): a learned number for each head and each offset inside a grid.

    Any number of axes. ``table`` has the rows of Swin's ``relative_position_bias_table``: offsets
    ``query - key``, the last axis fastest. Fractional offsets are rounded to the nearest whole one (halves
    to the even).

    Args:
        num_heads: heads H of the queries.
        shape: places along each axis, e.g. ``(7, 7)``; offsets reach from ``1 - size`` to ``size - 1``.

    Raises:
        ValueError: num_heads is below 1, or shape is empty or has a size below 1.

    Example:
        >>> bias = GridBias(num_heads=3, shape=(2, 5))
        >>> grid = torch.cartesian_prod(torch.arange(2), torch.arange(5))
        >>> bias.table.shape, bias(grid, grid).shape
        (torch.Size([27, 3]), torch.Size([3, 10, 10]))
    """

    def __init__(self, num_heads: int, shape: Sequence[int]) -> None:
        super().__init__(num_heads)
        if not shape or min(shape) < 1:
            raise ValueError(f"shape must have at least one axis and sizes of at least 1: got {tuple(shape)}")
        self.shape = tuple(shape)
        rows = math.prod(2 * size - 1 for size in self.shape)
        self.table = nn.Parameter(torch.empty(rows, num_heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, query_coords: Tensor, key_coords: Tensor) -> Tensor:
        """The bias ``[..., H, N, M]`` for coordinates ``[..., N, A]`` and ``[..., M, A]``, in the table's dtype.

        Under ``torch.compile`` and ``torch.export`` nothing is raised for an offset outside the table, since
        that would need a look at the numbers; it then takes the nearest offset of its axis.

        Raises:
            ValueError: coordinates have another number of axes, or an offset lies outside the table.
        """
        check_axes(query_coords, key_coords, len(self.shape), repr(self))
        compiling = torch.compiler.is_compiling()
        rows: Tensor | None = None
        for axis, size in enumerate(self.shape):
            offsets = whole_differences(query_coords, key_coords, axis)
            if compiling:
                offsets = offsets.clamp(1 - size, size - 1)
            else:
                _check_offsets(offsets, axis, size)
            places = offsets + (size - 1)
            rows = places if rows is None else rows * (2 * size - 1) + places
        assert rows is not None  # a shape has at least one axis
        return _look_up(self.table, rows)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, shape={self.shape}"


def _look_up(table: Tensor, rows: Tensor) -> Tensor:
    """``[..., H, N, M]`` from a table ``[R, H]`` and rows ``[..., N, M]``."""
    # backward is three times faster on a CPU than embedding's, and one grid comes out contiguous
    found = table.t().index_select(1, rows.flatten())
    return found.view(table.shape[1], *rows.shape).movedim(0, -3)


def _check_offsets(offsets: Tensor, axis: int, size: int) -> None:
    if not offsets.numel():
        return
    low, high = (int(end) for end in torch.aminmax(offsets))
    if low <= -size or high >= size:
        raise ValueError(
            f"offsets along axis {axis} must lie between {1 - size} and {size - 1}: got {low} to {high}"
        )
