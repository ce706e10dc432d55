"""Gates: factors on the results of the heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeadGate(nn.Module):
    """Factors between 0 and 1 for the heads, from each query (gated attention; Qiu et al. 2025).

    Args:
        embed_dim: width D of the queries.
        num_heads: heads H.
        head_dim: a factor for each of K features of a head rather than one for all.

    Example:
        >>> HeadGate(8, num_heads=2)(torch.randn(5, 8)).shape
        torch.Size([5, 2])
    """

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.proj = nn.Linear(embed_dim, num_heads * (1 if head_dim is None else head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Queries ``[..., D]`` to factors ``[..., H]``, or ``[..., H, K]``."""
        factors = torch.sigmoid(self.proj(x))
        return factors if self.head_dim is None else factors.unflatten(-1, (-1, self.head_dim))


def gated(out: Tensor, factors: Tensor) -> Tensor:
    """Results of heads ``[..., H, K]`` times factors ``[..., H]`` or ``[..., H, K]``."""
    factors = factors[..., None] if factors.ndim == out.ndim - 1 else factors
    if factors.shape[-2] != out.shape[-2]:
        raise ValueError(
            f"a gate must give factors for {out.shape[-2]} heads: got shape {list(factors.shape)}"
        )
    return out * factors.to(out.dtype)
