"""A small vision transformer made of our parts, beside timm's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmattn import build_encoder

#: As timm's VisionTransformer calls its sizes; 8 x 8 patches and a class token: L = 65.
SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3, "num_classes": 10,
}  # fmt: skip
QUICK_SIZES = SIZES | {"img_size": 8, "embed_dim": 12, "depth": 1}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures ``[B, 3, S, S]`` and one class ``[B]`` for each."""

    values: Tensor
    labels: Tensor


class VisionTransformer(nn.Module):
    """Patches, class token, learned positions, our encoder, linear layer: ``[B, 3, S, S]`` to ``[B, classes]``."""

    def __init__(
        self, img_size: int, patch_size: int, embed_dim: int, depth: int, num_heads: int, num_classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (img_size // patch_size) ** 2 + 1, embed_dim))
        self.encoder = build_encoder(embed_dim, depth, num_heads, positions="none")
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        encoded = self.encoder(x)
        assert isinstance(encoded, Tensor)
        logits: Tensor = self.head(encoded[:, 0])
        return logits
