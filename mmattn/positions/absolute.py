"""Absolute positions, added to the tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.tokens import TokenBatch


class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the coordinates (Vaswani et al. 2017); with A axes each gets D / A features.

    Args:
        embed_dim: width D of the tokens; must be even for each axis.
        base: longest wavelength is about ``2 pi base``.

    Example:
        >>> SinusoidalPositions(8)(TokenBatch(torch.zeros(3, 8), [3])).values[0].tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, embed_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.base = base

    def forward(self, tokens: TokenBatch | Tensor) -> TokenBatch | Tensor:
        """Tokens ``[T, D]`` with their positions added, or dense ``[B, N, D]``, which count 0, 1, 2, ...

        Raises:
            ValueError: embed_dim is not a multiple of twice the number of axes.
        """
        if isinstance(tokens, Tensor):
            return tokens + self._waves(_counted(tokens)).to(tokens.dtype)
        return tokens.replace(tokens.values + self._waves(tokens.coords).to(tokens.values.dtype))

    def _waves(self, coords: Tensor) -> Tensor:
        """``[T, D]`` for coordinates ``[T, A]``."""
        axes = coords.shape[1]
        if self.embed_dim % (2 * axes):
            raise ValueError(
                f"embed_dim must be a multiple of 2 * axes: got embed_dim={self.embed_dim}, axes={axes}"
            )
        count = self.embed_dim // (2 * axes)
        steps = torch.arange(count, device=coords.device, dtype=torch.float32)
        angles = coords.float()[..., None] * self.base ** -(steps / count)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, base={self.base:g}"


class LearnedPositions(nn.Module):
    """Adds a learned vector for each place of a grid (ViT, BERT).

    Args:
        shape: places along each axis, e.g. ``[512]`` for text or ``[14, 14]`` for pictures.
        embed_dim: width D of the tokens.

    Example:
        >>> LearnedPositions([4, 4], 8).table.shape
        torch.Size([4, 4, 8])
    """

    def __init__(self, shape: list[int], embed_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(*shape, embed_dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, tokens: TokenBatch | Tensor) -> TokenBatch | Tensor:
        """Tokens ``[T, D]`` with their positions added, or dense ``[B, N, D]``, which count 0, 1, 2, ...

        Raises:
            ValueError: the coordinates have another number of axes, or leave the grid.
        """
        if isinstance(tokens, Tensor):
            return tokens + self._rows(_counted(tokens))
        return tokens.replace(tokens.values + self._rows(tokens.coords))

    def _rows(self, coords: Tensor) -> Tensor:
        """``[T, D]`` for coordinates ``[T, A]``."""
        shape = list(self.table.shape[:-1])
        coords = coords.long()
        if coords.shape[1] != len(shape):
            raise ValueError(f"coords must have {len(shape)} axes for a table {shape}: got {coords.shape[1]}")
        limits: Tensor = torch.tensor(shape, device=coords.device)
        if not torch.compiler.is_compiling() and bool(((coords < 0) | (coords >= limits)).any()):
            raise ValueError(f"positions must lie in the table {shape}: got up to {coords.amax(0).tolist()}")
        rows: Tensor = self.table[tuple(coords.unbind(1))]
        return rows


def _counted(tokens: Tensor) -> Tensor:
    """The coordinates of dense tokens, ``[N, 1]``."""
    return torch.arange(tokens.shape[1], device=tokens.device)[:, None]
