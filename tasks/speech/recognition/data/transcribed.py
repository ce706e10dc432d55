"""What all recordings with transcripts share: sets that say their texts, and training that repeats."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.data import Sampler

from mmattn.training.data import LengthBatchSampler, Pair, SizedSet, TaskData
from tasks.speech.data.augment import Chain, Speed, WaveTransform
from tasks.speech.data.waves import WaveAugment, wave_changes


class Draw(NamedTuple):
    """Which example, and all that its random changes depend on."""

    seed: int
    epoch: int
    example: int


class Spoken(NamedTuple):
    """What is known of an example without its samples.

    Attributes:
        name: what to call it in a message, such as a path.
        samples: fewest samples that it may have after the changes in training.
        text: its transcript.
    """

    name: str
    samples: int
    text: str


@contextmanager
def drawn_from(*numbers: int) -> Iterator[None]:
    """Inside, torch's CPU generator starts from these numbers; afterwards it goes on as if nothing had been."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would start every other device's generator anew as well
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
        yield


class TranscribedSet(SizedSet):
    """Waves with transcripts: items ``[S]`` (float32, mono, in [-1, 1]), targets ``str``.

    An example is asked for by its index, or by a :class:`Draw` for the changes that belong to one epoch of one
    training run; an index alone stands for seed 0 and epoch 0. Random changes thus depend on nothing else: not on the
    order of the batches, on worker processes, or on whether a run was interrupted.
    """

    def __getitem__(self, key: int | Draw) -> Pair:
        draw = key if isinstance(key, Draw) else Draw(0, 0, int(key))
        if not 0 <= draw.example < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}: got {draw.example}")
        with drawn_from(*draw):
            return self.draw(draw.example)

    @abstractmethod
    def draw(self, index: int) -> Pair:
        """Example ``index``; all chance comes from torch's generator."""

    @abstractmethod
    def spoken(self) -> Iterator[Spoken]:
        """Every example, or every part that examples are joined of, without reading its samples."""

    def texts(self) -> list[str]:
        """The transcripts, for units that learn from them."""
        return [spoken.text for spoken in self.spoken()]


class EpochBatches(Sampler[list[Draw]]):
    """Batches of like length, in an order that depends on the seed and the epoch alone.

    Lightning tells the epoch to what it finds under ``batch_sampler.sampler``.

    Args:
        batches: cuts the set into batches.
        seed: of the run.
    """

    def __init__(self, batches: LengthBatchSampler, seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.epoch = 0
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Draw the next batches for this epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        with drawn_from(self.seed, self.epoch):
            order = list(self.batches)
        for batch in order:
            yield [Draw(self.seed, self.epoch, index) for index in batch]


class RecognitionData(TaskData):
    """Base of the data of speech recognition.

    In training the order of the batches and all changes of waves depend on the run's seed, the epoch and the index
    of the example alone, so that a run that was interrupted goes on as it would have.

    Args:
        sample_rate: samples per second of all waves; other rates are resampled on reading.
        speed: in training, play a third each faster and slower by this share, such as 0.1.
        gain_db: in training, change the level by up to so many decibels either way.
        noise: in training, add white noise of up to this share of the wave's root mean square.
        transforms: further changes in training, in this order and after the others; see
            :mod:`tasks.speech.data.augment`.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        speed: float = 0.0,
        gain_db: float = 0.0,
        noise: float = 0.0,
        transforms: Sequence[WaveTransform] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.augment = wave_changes(sample_rate, 0.0, gain_db, speed, noise, transforms)
        self.sample_rate = sample_rate
        self.noise = noise
        self.transforms = tuple(transforms)

    @abstractmethod
    def build(self) -> dict[str, TranscribedSet]:
        """Make the sets ``train``, ``val`` and ``test``; further test sets have names ``test_...``.

        Raises:
            FileNotFoundError: the data are absent and may not be downloaded.
            ValueError: files are unreadable or transcripts empty; the message names all of them.
        """

    def training_targets(self) -> list[str]:
        """The transcripts of ``train``, for units that learn from them."""
        texts: list[str] = self.sets["train"].texts()
        return texts

    def training_batches(self) -> EpochBatches:
        """Shuffled batches of like length, drawn anew for each epoch."""
        return EpochBatches(super().training_batches(), torch.initial_seed() % 2**63)


def shortest(samples: int, augment: Chain | None) -> int:
    """Fewest samples that a wave may have left after its changes in training."""
    left = float(samples)
    for part in () if augment is None else augment.parts:
        if isinstance(part, WaveAugment):
            left /= 1 + part.speed
        elif isinstance(part, Speed):
            left /= 1 + part.most
    return int(left)


def digest(rows: Iterable[str]) -> str:
    """Hexadecimal sha256 of lines of text."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(row.encode() + b"\n")
    return whole.hexdigest()
