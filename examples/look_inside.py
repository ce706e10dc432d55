"""Look into a timm ViT without touching it: heads, what they cost, and what each patch counts.

python examples/look_inside.py
"""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mmattn


def main() -> dict[str, list[int]]:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=10).eval()
    pictures, labels = torch.rand(8, 3, 64, 64), torch.arange(8)

    report = mmattn.plug_in(model, verify=pictures[:2])
    print(report)

    with mmattn.observe(model) as record:
        model(pictures)
    for name, seen in record.items():
        heads = ", ".join(f"{nats:.2f}" for nats in seen.entropy.mean((0, 2)))
        print(f"{name}: mean entropy of its heads {heads} nats")

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    importance = mmattn.head_importance(model, [(pictures, labels)], loss)
    weakest = min(importance, key=lambda name: float(importance[name].min()))
    before = sum(p.numel() for p in model.parameters())
    mmattn.prune_heads(model, {weakest: [int(importance[weakest].argmin())]})
    after = sum(p.numel() for p in model.parameters())
    print(f"pruned {mmattn.pruned_heads(model)}: {before - after:,} of {before:,} parameters are gone")

    patches = mmattn.relevance(model, pictures[:1], target=0, method="gradient").grid()
    row, column = divmod(int(patches[0].argmax()), patches.shape[2])
    print(f"what counts most for class 0: the patch in row {row}, column {column}")
    mmattn.unplug(model)
    return mmattn.pruned_heads(model)


if __name__ == "__main__":
    main()
