"""What the tests of this folder share: a tiny checkpoint and what its task gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

D = 16
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, by which ImageFolder normalises


class Made(NamedTuple):
    """A checkpoint, the task and the data that made it, and the folder of the data."""

    checkpoint: Path
    task: Any
    data: Any
    root: Path

    @property
    def items(self) -> list[Any]:
        """Of the test set."""
        examples = self.data.sets["test"]
        return [examples[i].item for i in range(len(examples))]

    def logits(self) -> torch.Tensor:
        """Of the task, for each test item, in the task's own batches."""
        with torch.no_grad():
            return torch.cat([self.task.eval()(batch.items) for batch in self.data.test_dataloader()[0]])


Make = Callable[..., Made]
