"""What every adapter gives: tokens, and the place of each token in the raw item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmattn.tokens import TokenBatch


class Adapter(nn.Module, ABC):
    """Raw items in, packed tokens ``[T, D]`` out. A token depends on its own item alone."""

    embed_dim: int

    @abstractmethod
    def forward(self, items: Any) -> TokenBatch:
        """Tokens of B raw items."""

    @abstractmethod
    def regions(self, items: Any) -> list[Tensor]:
        """For each item, where its n tokens lie: ``[n, 2 A]``, first the starts on the A axes, then the
        exclusive stops, in pixels, samples or characters."""


def keep_variance(module: nn.Module) -> None:
    """Initialise convolutions and linear layers so that a signal keeps its variance through GELUs.

    torch's own initialisation shrinks it layer by layer, until the constant part of the biases, the same for all
    tokens, drowns what tells them apart; training then begins with a long plateau.
    """
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def require(condition: bool, package: str, extra: str, needed_by: str) -> None:
    """Raise ImportError naming the extra when an optional package is missing."""
    if not condition:
        raise ImportError(f'{needed_by} needs {package}: pip install "mmattn[{extra}]"')


def group_equal(keys: Sequence[Any]) -> dict[Any, list[int]]:
    """Indices of equal keys, in the order of first appearance."""
    groups: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return groups
