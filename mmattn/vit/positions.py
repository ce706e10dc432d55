"""Learned positions of a grid of patches, for grids of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.tokens import TokenBatch


class GridPositions(nn.Module):
    """Adds a learned vector for each cell of a grid, resampled where a picture has another grid (ViT, DeiT).

    Resampling is bicubic and antialiased, as timm's ``resample_abs_pos_embed``. It is a product with two matrices,
    so that its backward pass is deterministic on every device.

    Args:
        shape: rows and columns of the grid that the table is for.
        embed_dim: width D of the tokens.

    Raises:
        ValueError: a side of the grid is below 1.

    Example:
        >>> positions = GridPositions((2, 3), embed_dim=8)
        >>> positions.grid(4, 5).shape
        torch.Size([4, 5, 8])
    """

    def __init__(self, shape: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        if min(shape) < 1:
            raise ValueError(f"the sides of a grid must be at least 1: got {tuple(shape)}")
        self.table = nn.Parameter(torch.empty(*shape, embed_dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def grid(self, rows: int, columns: int) -> Tensor:
        """The vectors of a grid, ``[rows, columns, D]``."""
        return resampled(self.table, rows, columns)

    def forward(self, tokens: TokenBatch, grids: Sequence[tuple[int, int]]) -> TokenBatch:
        """Tokens ``[T, D]`` of B pictures, row by row, with their positions added.

        Args:
            tokens: the tokens.
            grids: rows and columns of each picture.

        Raises:
            ValueError: a grid has another number of cells than the picture has tokens.
        """
        cells = tuple(rows * columns for rows, columns in grids)
        if cells != tokens.sizes:
            raise ValueError(
                f"grids must have as many cells as there are tokens: got {cells}, {tokens.sizes}"
            )
        made = {grid: self.grid(*grid).flatten(0, 1) for grid in dict.fromkeys(grids)}
        if len(made) == 1:
            (rows,) = made.values()
            return tokens.replace((tokens.values.unflatten(0, (-1, len(rows))) + rows).flatten(0, 1))
        return tokens.replace(tokens.values + torch.cat([made[grid] for grid in grids]))

    def extra_repr(self) -> str:
        rows, columns, width = self.table.shape
        return f"({rows}, {columns}), embed_dim={width}"


def resampled(table: Tensor, rows: int, columns: int) -> Tensor:
    """A table ``[R, C, D]`` at another size, ``[rows, columns, D]``, by bicubic interpolation with antialiasing."""
    if table.shape[:2] == (rows, columns):
        return table
    down, across = (
        _weights(old, new).to(table) for old, new in zip(table.shape, (rows, columns), strict=False)
    )
    return torch.einsum("ro,cp,opd->rcd", down, across, table)


def _weights(old: int, new: int) -> Tensor:
    """What each of ``new`` places takes of ``old`` ones, ``[new, old]``."""
    if old == new:
        return torch.eye(old)
    return F.interpolate(torch.eye(old)[None, None], (new, old), mode="bicubic", antialias=True)[0, 0]
