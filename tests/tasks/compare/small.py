"""A task small enough to reason about: find the bright pattern among dim ones."""

from __future__ import annotations

import torch

from mmattn import ImagePatches, build_encoder
from mmattn.training.data import Example
from mmattn.training.module import ClassificationTask
from tasks.scenes import SceneData, SceneSet

CELL, PATCH = 8, 4
NAMES = ["left", "top", "ring"]


class BrightScenes(SceneSet):
    """One bright pattern among ``level`` dim ones of other classes, side by side in cells of 8 x 8 pixels."""

    def compose(self, index, level, rng):
        label = self.labels[index]
        place = int(rng.integers(level + 1))
        item = torch.from_numpy(rng.random((1, CELL, CELL * (level + 1)), dtype="float32")) * 0.1
        for cell in range(level + 1):
            shown = label if cell == place else (label + 1 + int(rng.integers(2))) % 3
            item[0, :, cell * CELL : (cell + 1) * CELL] += pattern(shown) * (1.0 if cell == place else 0.9)
        return Example(item, label, (0, place * CELL, CELL, (place + 1) * CELL))

    def size(self, index):
        return CELL * CELL * (self.level + 1)

    def content(self):
        return str(self.labels)


def pattern(label):
    out = torch.zeros(CELL, CELL)
    if label == 0:
        out[:, :4] = 1
    elif label == 1:
        out[:4] = 1
    else:
        out[2:6, 2:6] = 1
    return out


class Bright(SceneData):
    """23 scenes for training, 13 for validation, 31 for the test."""

    def scenes(self, name, level, seed):
        count = {"train": 23, "val": 13, "test": 31}[name]
        return BrightScenes(NAMES, [i * i % 3 for i in range(count)], level, self.train_levels, seed)


class Finding(ClassificationTask):
    domain = "vision"


def model(seed=0, heads=3, pool_heads=2, **options):
    """An untrained model of width 12 whose attention is far from equal weights."""
    torch.manual_seed(seed)
    encoder = options.pop("encoder", None) or build_encoder(
        12, depth=2, num_heads=heads, mlp_ratio=1.0, attention=options.get("pool_attention", "softmax")
    )
    task = Finding(
        ImagePatches(12, patch_size=PATCH, in_channels=1),
        encoder,
        num_classes=3,
        pool_heads=pool_heads,
        **options,
    )
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return task.eval()
