"""Scenes: one answer among distractors, in the same form for pictures, speech and text.

A scene set holds plain items and composes what it gives out of them. Its ``level`` says how much distracts:
0 is the plain item, more is harder, and the evidence that distracts speaks for wrong classes. Where the
answer lies is kept with each example, so that what a model attends to can be judged.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from mmattn.training.data import ClassificationData, Example, ExampleSet

TrainLevels = Literal["fixed", "mixed"]

VAL_SEED, TEST_SEED = 20011, 30011
"""With the index, what the scenes of validation and test are drawn from: the same in every run."""


class SceneSet(ExampleSet):
    """Scenes around plain items.

    Args:
        class_names: names of the classes in the order of their labels.
        labels: class of each plain item; the set has one scene for each.
        level: how much distracts; 0 gives the plain items.
        train_levels: ``"fixed"``: each fresh scene is of ``level``; ``"mixed"``: its level is drawn uniformly
            from 0 to ``level``.
        seed: None composes a fresh scene at each access, drawn from torch's global generator, so that
            ``seed_everything`` fixes it; a number fixes scene ``i`` by ``(seed, i)``, always at ``level``.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        labels: Sequence[int],
        level: int,
        train_levels: TrainLevels = "fixed",
        seed: int | None = None,
    ) -> None:
        check_levels(level, train_levels)
        self.class_names = tuple(class_names)
        self.labels = list(labels)
        self.level = level
        self.train_levels = train_levels
        self.seed = seed
        self._of_class = [np.flatnonzero(np.equal(self.labels, c)) for c in range(len(self.class_names))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}: got {index}")
        if self.seed is not None:
            return self.compose(index, self.level, np.random.default_rng((self.seed, index)))
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        level = int(rng.integers(self.level + 1)) if self.train_levels == "mixed" else self.level
        return self.compose(index, level, rng)

    def fingerprint(self) -> str:
        """Digest of the plain items and of what makes scenes out of them."""
        how = f"{self.level} {self.train_levels if self.seed is None else 'fixed'} {self.seed}"
        return hashlib.sha256(f"{self.content()} {how}".encode()).hexdigest()

    @abstractmethod
    def content(self) -> str:
        """Digest of the plain items and their labels."""

    def other(self, label: int, rng: np.random.Generator) -> int:
        """Index of an item of another class than ``label``: the class is drawn first, then the item."""
        drawn = (label + 1 + int(rng.integers(len(self.class_names) - 1))) % len(self.class_names)
        items = self._of_class[drawn]
        return int(items[rng.integers(len(items))])

    @abstractmethod
    def compose(self, index: int, level: int, rng: np.random.Generator) -> Example:
        """Put plain item ``index`` among the distractors of ``level``; all chance comes from ``rng``."""


class SceneData(ClassificationData):
    """A data module of scenes.

    Args:
        level: how much distracts; see :class:`SceneSet`.
        train_levels: level of the training scenes, ``"fixed"`` or ``"mixed"``; the others keep ``level``.
        batch_size: examples per step.
        num_workers: worker processes of each loader; 0 loads in the main process.
        length_pool: batches sorted by length together in training.
    """

    def __init__(
        self,
        level: int,
        train_levels: TrainLevels = "fixed",
        batch_size: int = 64,
        num_workers: int = 0,
        length_pool: int = 16,
    ) -> None:
        super().__init__(batch_size, num_workers, length_pool)
        check_levels(level, train_levels)
        self.level = level
        self.train_levels: TrainLevels = train_levels

    @abstractmethod
    def scenes(self, name: str, level: int, seed: int | None) -> SceneSet:
        """The scenes of ``train``, ``val`` or ``test`` at a level; ``seed`` as in :class:`SceneSet`.

        Raises:
            ImportError: a package that the items come from is not installed.
        """

    def build(self) -> dict[str, ExampleSet]:
        """The sets ``train``, ``val`` and ``test``, and ``test_plain``: the test items without distractors."""
        sets: dict[str, ExampleSet] = {
            "train": self.scenes("train", self.level, None),
            "val": self.scenes("val", self.level, VAL_SEED),
            "test": self.scenes("test", self.level, TEST_SEED),
        }
        if self.level > 0:
            sets["test_plain"] = self.scenes("test", 0, TEST_SEED)
        return sets


def check_levels(level: int, train_levels: str) -> None:
    """Refuse a level or a way of drawing levels that does not exist.

    Raises:
        ValueError: ``level`` is negative or ``train_levels`` unknown.
    """
    if level < 0:
        raise ValueError(f"level must be at least 0: got {level}")
    if train_levels not in ("fixed", "mixed"):
        raise ValueError(f"train_levels must be 'fixed' or 'mixed': got {train_levels!r}")
