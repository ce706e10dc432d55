"""ImagePatches in front of the trunk of a timm ViT: pictures of any size and shape, in a trunk made for one.

python examples/patches_into_timm.py
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from mmattn import ImagePatches, SinusoidalPositions


class AnySizeViT(nn.Module):
    """Pictures ``[C, H, W]`` of any sizes to class logits ``[B, num_classes]``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        trunk = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=0)
        self.patches = ImagePatches(trunk.embed_dim, patch_size=16)
        self.positions = SinusoidalPositions(trunk.embed_dim)  # of rows and columns
        self.blocks, self.norm = trunk.blocks, trunk.norm
        self.classify = nn.Linear(trunk.embed_dim, num_classes)

    def forward(self, pictures: list[Tensor]) -> Tensor:
        tokens = self.positions(self.patches(pictures))
        padded, real = tokens.to_padded()
        for block in self.blocks:
            padded = block(padded, attn_mask=real[:, None, None])  # timm: True = attend
        summed = (self.norm(padded) * real[..., None]).sum(1)
        return self.classify(summed / tokens.lengths[:, None])


def main() -> Tensor:
    torch.manual_seed(0)
    model = AnySizeViT(num_classes=5).eval()
    pictures = [torch.rand(3, 64, 96), torch.rand(3, 48, 32)]
    with torch.no_grad():
        together, alone = model(pictures), torch.cat([model([picture]) for picture in pictures])
    print(f"two pictures together and alone: largest difference {(together - alone).abs().max():.1e}")
    return together - alone


if __name__ == "__main__":
    main()
