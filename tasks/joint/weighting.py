"""How the losses of several senses make one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tasks.joint.data import SENSES


class Weighting(nn.Module, ABC):
    """The losses of the senses -> one loss."""

    @abstractmethod
    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """One loss from those of the senses of a step."""


class FixedWeights(Weighting):
    """The weighted sum.

    Args:
        vision: weight of the loss of pictures.
        speech: weight of the loss of recordings.
        text: weight of the loss of texts.

    Raises:
        ValueError: a weight is negative.

    Example:
        >>> FixedWeights(speech=0.5)({"vision": torch.tensor(1.0), "speech": torch.tensor(4.0)})
        tensor(3.)
    """

    def __init__(self, vision: float = 1.0, speech: float = 1.0, text: float = 1.0) -> None:
        super().__init__()
        self.weights = {"vision": vision, "speech": speech, "text": text}
        if min(self.weights.values()) < 0:
            raise ValueError(f"weights must not be negative: got {self.weights}")

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[sense] * loss for sense, loss in losses.items()]).sum()


class UncertaintyWeights(Weighting):
    """Learned weights: the sum of ``exp(-s) loss + s / 2``, with an ``s`` for each sense (Kendall et al. 2018).

    ``s`` is the logarithm of the variance that the model grants a sense: what stays hard for long weighs less.

    Example:
        >>> UncertaintyWeights()({"vision": torch.tensor(1.0), "speech": torch.tensor(4.0)})
        tensor(5., grad_fn=<SumBackward0>)
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({sense: nn.Parameter(torch.zeros(())) for sense in SENSES})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        logs = {sense: self.log_variances[sense] for sense in losses}
        return torch.stack([(-logs[s]).exp() * loss + logs[s] / 2 for s, loss in losses.items()]).sum()
