"""What the tasks ask of data: examples with labels, batches of like length, and a fingerprint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class Example(NamedTuple):
    """One raw example.

    Attributes:
        item: a picture ``[C, H, W]``, a wave ``[S]`` (mono, float in [-1, 1]) or a ``str``.
        label: index into the class names.
        relevant: where the answer lies, when that is known: ``(top, left, bottom, right)`` in pixels,
            ``(start, stop)`` in samples, or ``(start, stop)`` in characters; stops are exclusive.
    """

    item: Any
    label: int
    relevant: tuple[int, ...] | None = None


class Batch(NamedTuple):
    """Examples of one step: B raw items, labels ``[B]`` (int64) and, where known, B relevant regions."""

    items: Any
    labels: Tensor
    relevant: list[tuple[int, ...] | None]


class Pair(NamedTuple):
    """One raw example of a task that gives text: a wave or a ``str``, and the text that belongs to it."""

    item: Any
    target: str


class PairBatch(NamedTuple):
    """Pairs of one step: B raw items and B texts."""

    items: list[Any]
    targets: list[str]


class SizedSet(Dataset[Any], ABC):
    """A map-style data set that can tell the size of an item without loading it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    @abstractmethod
    def size(self, index: int) -> int:
        """Length of item ``index`` in pixels, samples or characters; batches are made of like sizes."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest of the content: equal for equal data, whatever machine or folder it lies in."""


class ExampleSet(SizedSet):
    """A :class:`SizedSet` of :class:`Example`, which have classes."""

    class_names: tuple[str, ...]

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...


def collate(examples: Sequence[Example]) -> Batch:
    """Put examples into one batch without padding: pictures of one shape are stacked, all else stays a list."""
    items: Any = [example.item for example in examples]
    if isinstance(items[0], Tensor) and items[0].ndim == 3 and len({item.shape for item in items}) == 1:
        items = torch.stack(items)
    labels = torch.tensor([example.label for example in examples], dtype=torch.long)
    return Batch(items, labels, [example.relevant for example in examples])


def collate_pairs(pairs: Sequence[Pair]) -> PairBatch:
    """Put pairs into one batch without padding."""
    return PairBatch([pair.item for pair in pairs], [pair.target for pair in pairs])


class LengthBatchSampler(Sampler[list[int]]):
    """Shuffled batches of items of like size, of equally many items or of about equally much work.

    The indices are shuffled, cut into pools, sorted by size inside a pool, cut into batches, and the batches are
    shuffled. ``pool=1`` leaves plain random batches. The order follows torch's global generator, so
    ``seed_everything`` fixes it.

    Args:
        sizes: size of each item.
        batch_size: most items in a batch; the last batch of a pool may be smaller.
        pool: batches sorted together; larger means fewer different lengths in a batch and less randomness.
        max_size: most size of a batch in all, e.g. tokens; a batch ends before it would exceed this. The whole
            set is then one pool, in which items of equal size are shuffled, so that every epoch has equally
            many batches. ``None``: no limit.

    Raises:
        ValueError: a number is below 1, or an item alone is larger than ``max_size``.
    """

    def __init__(
        self, sizes: Sequence[int], batch_size: int, pool: int = 16, max_size: int | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        if pool < 1:
            raise ValueError(f"pool must be at least 1: got {pool}")
        if max_size is not None and max(sizes, default=0) > max_size:
            raise ValueError(f"max_size must hold the largest item, of size {max(sizes)}: got {max_size}")
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self.pool = pool
        self.max_size = max_size

    def __len__(self) -> int:
        if self.max_size is None:
            return math.ceil(len(self.sizes) / self.batch_size)
        return len(self._cut(sorted(range(len(self.sizes)), key=self.sizes.__getitem__)))

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.sizes)).tolist()
        batches = []
        step = self.batch_size * self.pool if self.max_size is None else max(len(order), 1)
        for start in range(0, len(order), step):
            pooled = order[start : start + step]
            if self.pool > 1 or self.max_size is not None:
                pooled.sort(key=self.sizes.__getitem__)
            batches += self._cut(pooled)
        for i in torch.randperm(len(batches)).tolist():
            yield batches[i]

    def _cut(self, indices: list[int]) -> list[list[int]]:
        if self.max_size is None:
            return [indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size)]
        batches: list[list[int]] = []
        size = 0
        for index in indices:
            size += self.sizes[index]
            if not batches or len(batches[-1]) == self.batch_size or size > self.max_size:
                batches.append([])
                size = self.sizes[index]
            batches[-1].append(index)
        return batches


class TaskData(LightningDataModule, ABC):
    """Base of every data module: ``build`` makes the sets, the loaders are the same for all.

    Args:
        batch_size: examples per step.
        num_workers: worker processes of each loader; 0 loads in the main process.
        length_pool: batches sorted by length together in training; see :class:`LengthBatchSampler`.
        max_size: most pixels, samples or characters of a training batch in all; ``None``: no limit.
    """

    #: Whether the items were computed rather than collected; the report says so.
    synthetic = False

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        length_pool: int = 16,
        max_size: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.length_pool = length_pool
        self.max_size = max_size
        self._sets: dict[str, Any] | None = None

    @abstractmethod
    def build(self) -> dict[str, Any]:
        """Make the sets ``train``, ``val`` and ``test``; further test sets have names ``test_...``.

        Raises:
            FileNotFoundError: the data are absent and may not be downloaded.
            ValueError: files are unreadable or mislabelled; the message names all of them.
        """

    @property
    def inputs(self) -> dict[str, Any]:
        """How raw items become the model's, where the model does not say it, as plain data that goes into each
        checkpoint: of pictures ``mean``, ``std``, and ``size`` or ``longer_side``, see
        :class:`mmattn.inference.Pictures`."""
        return {}

    def collate(self, examples: Sequence[Any]) -> Any:
        """Put examples into one batch: pairs, unless a subclass knows better."""
        return collate_pairs(examples)

    @property
    def sets(self) -> dict[str, Any]:
        """The sets ``train``, ``val`` and ``test``, built once on first use."""
        if self._sets is None:
            self._sets = dict(self.build())
        return self._sets

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names of the test sets, ``test`` first."""
        return ("test", *(name for name in self.sets if name.startswith("test_")))

    def training_texts(self) -> list[str]:
        """The training items, for a tokenizer that learns from them.

        Raises:
            TypeError: the items are no strings.
        """
        examples = self.sets["train"]
        texts = [examples[i].item for i in range(len(examples))]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"a tokenizer learns from strings: got {type(texts[0]).__name__}")
        return texts

    def fingerprint(self) -> dict[str, str]:
        """Digest of each set's content."""
        return {name: examples.fingerprint() for name, examples in self.sets.items()}

    def setup(self, stage: str | None = None) -> None:
        """Build the sets, so that what is wrong with the data is said before training starts."""
        _ = self.sets

    def training_batches(self) -> Any:
        """What draws the training batches: an iterable of lists of what the training set is asked for."""
        examples = self.sets["train"]
        sizes = [examples.size(i) for i in range(len(examples))]
        return LengthBatchSampler(sizes, self.batch_size, self.length_pool, self.max_size)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of like length."""
        return DataLoader(
            self.sets["train"],
            batch_sampler=self.training_batches(),
            num_workers=self.num_workers,
            collate_fn=self.collate,
            persistent_workers=self.num_workers > 0,
        )

    def _in_order(self, name: str) -> DataLoader[Any]:
        return DataLoader(
            self.sets[name], batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=self.collate
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation examples in order."""
        return self._in_order("val")

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Examples of each test set in order."""
        return [self._in_order(name) for name in self.test_names]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Test examples in order."""
        return self._in_order("test")


class ClassificationData(TaskData):
    """Base of every classification data module; the arguments are those of :class:`TaskData`."""

    @abstractmethod
    def build(self) -> dict[str, ExampleSet]:
        """Make the sets ``train``, ``val`` and ``test``; further test sets have names ``test_...``.

        Raises:
            FileNotFoundError: the data are absent and may not be downloaded.
            ValueError: files are unreadable or mislabelled; the message names all of them.
        """

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Put examples into one batch."""
        return collate(examples)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels."""
        names: tuple[str, ...] = self.sets["train"].class_names
        return names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
