"""What the tests of the explorer are made with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from mmattn.inference import Classification

WIDTH = 16


class Labelled(NamedTuple):
    """As the tasks' examples are."""

    item: Any
    label: int
    relevant: tuple[int, ...] | None = None


class Tiny(Classification):
    """A classification model that knows its classes, as a task does."""

    class_names: list[str]

    def named(self, names: Sequence[str]) -> Tiny:
        self.class_names = list(names)
        return self.eval()


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def wave(seconds: float = 0.5, rate: int = 8000) -> torch.Tensor:
    time = torch.arange(int(seconds * rate)) / rate
    return 0.4 * torch.sin(2 * torch.pi * 440 * time) * (time > seconds / 2)


SPEECH = Labelled(wave(), 1, (2000, 4000))
TEXT = Labelled("a café <b>is</b> warm", 1, (17, 21))
