"""The three adapters and one encoder in a training loop of plain PyTorch, without Lightning.

Each sense learns which of two made-up kinds an example is of: bright above or below, rising or falling, a or b more
often. python examples/plain_pytorch.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn import AudioFrames, ImagePatches, TextTokens, build_classifier, build_encoder

DIM = 48


def pictures(labels: Tensor) -> list[Tensor]:
    """Noise, brighter in its upper (0) or lower (1) half; heights differ."""
    made = []
    for label in labels.tolist():
        height = 8 * int(torch.randint(2, 5, ()))
        picture = torch.rand(3, height, 16)
        half = slice(height // 2, None) if label else slice(height // 2)
        picture[:, half] += 0.5
        made.append(picture)
    return made


def waves(labels: Tensor) -> list[Tensor]:
    """Chirps that fall (0) or rise (1) in pitch; lengths differ."""
    made = []
    for label in labels.tolist():
        time = torch.linspace(0, 1, int(torch.randint(1600, 3200, ())))
        pitch = 300 + 900 * (time if label else 1 - time)
        made.append(torch.sin(2 * torch.pi * pitch.cumsum(0) / 8000) + 0.1 * torch.randn(len(time)))
    return made


def texts(labels: Tensor) -> list[str]:
    """Letters, of which a (0) or b (1) comes more often."""
    return [
        "".join(
            "ab"[int(torch.rand(()) < (0.7 if label else 0.3))] for _ in range(int(torch.randint(15, 30, ())))
        )
        for label in labels.tolist()
    ]


SENSES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Any]]] = {
    "pictures": (lambda: ImagePatches(DIM, patch_size=8), pictures),
    "sounds": (lambda: AudioFrames(DIM, sample_rate=8000), waves),
    "texts": (lambda: TextTokens(DIM), texts),
}


def train(sense: str, steps: int = 60) -> float:
    """Train one sense; accuracy on fresh examples."""
    torch.manual_seed(0)
    make_adapter, draw = SENSES[sense]
    model = nn.Sequential(
        make_adapter(),
        build_encoder(embed_dim=DIM, depth=2, num_heads=4),
        build_classifier(embed_dim=DIM, num_classes=2),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        labels = torch.randint(2, (16,))
        loss = F.cross_entropy(model(draw(labels)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    labels = torch.randint(2, (200,))
    with torch.no_grad():
        right = model(draw(labels)).argmax(-1) == labels
    return float(right.float().mean())


def main() -> dict[str, float]:
    found = {sense: train(sense) for sense in SENSES}
    for sense, accuracy in found.items():
        print(f"{sense}: {100 * accuracy:.1f} % of 200 fresh examples")
    return found


if __name__ == "__main__":
    main()
