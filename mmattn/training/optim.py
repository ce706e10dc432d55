"""AdamW without decay where it harms, and a warm-up cosine schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class AdamWCosine:
    """AdamW (Loshchilov and Hutter 2019) with linear warm-up and cosine decay, step by step.

    Args:
        lr: highest learning rate.
        weight_decay: on weight matrices only: biases, norms, embeddings, positions and pooling queries have none.
        beta2: second momentum factor.
        warmup: share of all steps in which the rate rises from 0 to lr.
        final: rate at the end, as a share of lr.

    Raises:
        ValueError: a number is out of range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    beta2: float = 0.98
    warmup: float = 0.1
    final: float = 0.01

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0: got {self.lr}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), a share of all steps: got {self.warmup}")

    def configure(self, module: nn.Module, total_steps: int, fused: bool = True) -> tuple[AdamW, LambdaLR]:
        """The optimiser and the schedule, which is to be stepped after each optimiser step.

        ``fused`` asks for torch's fused kernel, which does not go with gradient scaling and clipping together.
        """
        decay, no_decay = split_decay(module)
        groups = [
            {"params": decay, "weight_decay": self.weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=self.lr, betas=(0.9, self.beta2), fused=fused)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, total_steps))

    def factor(self, step: int, total_steps: int) -> float:
        """Learning rate at a step, as a share of ``lr``."""
        warm = max(1, round(self.warmup * total_steps))
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step - warm) / max(1, total_steps - warm))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def split_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay: only weights of linear and convolution layers decay."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    decaying = {id(part.weight) for part in module.modules() if isinstance(part, layers)}
    trainable = [p for p in module.parameters() if p.requires_grad]
    return (
        [p for p in trainable if id(p) in decaying],
        [p for p in trainable if id(p) not in decaying],
    )
