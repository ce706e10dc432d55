"""Scenes of a comparison, made once, and as the tokens that enter a trunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mmattn.tokens import TokenBatch
from mmattn.training.data import Example
from mmattn.training.module import ClassificationTask
from tasks.scenes import TEST_SEED, VAL_SEED, SceneData

_SEEDS = {"val": VAL_SEED, "test": TEST_SEED}
_BATCH = 64
_DRAW = 80021


class Source:
    """The scenes of a data module by split, level and number; each is composed once.

    Args:
        data: what composes them.
    """

    def __init__(self, data: SceneData) -> None:
        self.data = data
        self._made: dict[tuple[str, int, int], Example] = {}

    def examples(self, split: str, level: int, most: int | None = None) -> list[Example]:
        """At most so many scenes of a split, drawn by chance; ``None``: all."""
        scenes = self.data.scenes(split, level, _SEEDS[split])
        for index in drawn(len(scenes), most):
            if (split, level, index) not in self._made:
                self._made[split, level, index] = scenes[index]
        return [self._made[split, level, index] for index in drawn(len(scenes), most)]

    def fingerprint(self, split: str, level: int) -> str:
        """Digest of all scenes of a split at a level."""
        return self.data.scenes(split, level, _SEEDS[split]).fingerprint()


def drawn(count: int, most: int | None) -> list[int]:
    """At most so many of ``count`` numbers in order, always the same; fewer are among more.

    By chance, since sets go through classes and voices in turn, which equal steps would meet again and again.
    """
    if most is None or most >= count:
        return list(range(count))
    return sorted(np.random.default_rng(_DRAW).permutation(count)[:most].tolist())


def relevant_tokens(regions: Tensor, relevant: tuple[int, ...]) -> Tensor:
    """Which tokens matter: those of which at least half lies inside the relevant region.

    Args:
        regions: ``[n, 2 A]``, where the tokens lie, starts first; see :meth:`mmattn.adapters.Adapter.regions`.
        relevant: the region that holds the answer, of the same form.

    Returns:
        ``[n]`` boolean.
    """
    axes = len(relevant) // 2
    starts, stops = regions[:, :axes], regions[:, axes:]
    begin, end = torch.tensor(relevant[:axes]), torch.tensor(relevant[axes:])
    shared = (torch.minimum(stops, end) - torch.maximum(starts, begin)).clamp(min=0).prod(1)
    return 2 * shared >= (stops - starts).prod(1).clamp(min=1)


@dataclass
class Scenes:
    """Scenes as a model's trunk gets them.

    Attributes:
        task: the model whose tokens they are.
        examples: the scenes.
        tokens: of all scenes, packed.
    """

    task: ClassificationTask
    examples: list[Example]
    tokens: TokenBatch

    @classmethod
    def of(cls, task: ClassificationTask, data: SceneData, examples: list[Example]) -> Scenes:
        """Put scenes through the adapter of a model in eval mode."""
        batches = [examples[start : start + _BATCH] for start in range(0, len(examples), _BATCH)]
        tokens = [task.tokens(data.collate(batch).items) for batch in batches]
        return cls(task, examples, TokenBatch.concat(tokens))

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> Tensor:
        """``[B]``."""
        return torch.tensor([example.label for example in self.examples])

    @cached_property
    def relevant(self) -> Tensor:
        """``[T]`` boolean: the tokens that matter.

        Raises:
            ValueError: a scene does not say where its answer lies.
        """
        regions = self.task.adapter.regions([example.item for example in self.examples])
        marks = []
        for example, region in zip(self.examples, regions, strict=True):
            if example.relevant is None:
                raise ValueError("a scene must say where its answer lies: got relevant=None")
            marks.append(relevant_tokens(region, example.relevant))
        return torch.cat(marks)
