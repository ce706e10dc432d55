"""Waves in memory, read once: what all speech data share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample
from tqdm import tqdm

from mmattn.training.data import ClassificationData, Example, ExampleSet
from tasks.checks import Problems, digest
from tasks.speech.data.augment import Chain, WaveTransform

INT16_SCALE = 32768


class Clip(NamedTuple):
    """A sound file, its label and its split (``train``, ``val`` or ``test``)."""

    path: Path
    label: str
    split: str


@lru_cache(maxsize=32)
def resampler(source: int, target: int) -> Resample:
    """The filter of ``torchaudio.functional.resample`` from one rate to another, computed once per pair."""
    return Resample(source, target)


def read_wave(path: Path, sample_rate: int) -> tuple[Tensor, bytes]:
    """A sound file as a mono wave ``[S]`` at ``sample_rate``, and the sha256 of its bytes.

    Channels are averaged. 16-bit mono that needs no resampling stays int16, which is exact and takes half the
    memory; all else is float32 in [-1, 1].

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no sound, is cut short, holds no sample or a sample that is not finite.
    """
    data = path.read_bytes()
    check_riff(data)
    try:
        with soundfile.SoundFile(path) as file:
            exact = file.subtype == "PCM_16" and file.channels == 1 and file.samplerate == sample_rate
            rate, expected = file.samplerate, file.frames
            samples = file.read(dtype="int16" if exact else "float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from error
    if not len(samples):
        raise ValueError("holds no sample")
    if len(samples) < expected:
        raise ValueError(f"holds {len(samples)} of {expected} samples")
    sha256 = hashlib.sha256(data).digest()
    if exact:
        return torch.from_numpy(samples[:, 0].copy()), sha256
    wave = torch.from_numpy(samples).mean(dim=1)
    if not bool(wave.isfinite().all()):
        raise ValueError("holds samples that are not finite")
    return wave if rate == sample_rate else resampler(rate, sample_rate)(wave), sha256


def check_riff(data: bytes) -> None:
    """Compare a WAV file with the length in its header, which libsndfile passes over in silence.

    Raises:
        ValueError: the file is empty or shorter than it says.
    """
    if not data:
        raise ValueError("the file is empty")
    stated = int.from_bytes(data[4:8], "little")
    # 0 and all ones stand for an unknown length; the last odd byte's padding is often left out.
    if data[:4] == b"RIFF" and 0 < stated < 0xFFFFFFFF and len(data) + 1 < stated + 8:
        raise ValueError(f"holds {len(data)} of {stated + 8} bytes")


@dataclass(frozen=True)
class WaveAugment:
    """Random changes of training waves; each is left out at 0.

    Attributes:
        time_shift: move the sound by up to so many samples either way; zeros fill the gap.
        gain_db: change the level by up to so many decibels either way.
        speed: play faster or slower by this share, or leave as it is, one third each; changes the length.
        noise: add white noise of up to this share of the wave's own root mean square.
    """

    time_shift: int = 0
    gain_db: float = 0.0
    speed: float = 0.0
    noise: float = 0.0

    def __call__(self, wave: Tensor, sample_rate: int) -> Tensor:
        """A changed copy of a wave ``[S]`` (float)."""
        if self.speed:
            factor = 1 + self.speed * int(torch.randint(-1, 2, ()))
            rate = round(sample_rate * factor)
            wave = wave if rate == sample_rate else resampler(rate, sample_rate)(wave)
        if self.time_shift:
            most = min(self.time_shift, len(wave) - 1)
            moved = int(torch.randint(-most, most + 1, ()))
            kept = wave[max(0, -moved) : len(wave) - max(0, moved)]
            wave = torch.nn.functional.pad(kept, (max(0, moved), max(0, -moved)))
        if self.noise:
            level = self.noise * float(torch.rand(())) * wave.square().mean().sqrt()
            wave = wave + level * torch.randn_like(wave)
        if self.gain_db:
            wave = wave * 10 ** (self.gain_db * float(2 * torch.rand(()) - 1) / 20)
        return wave


def chain(first: WaveAugment, others: Sequence[WaveTransform]) -> Chain | None:
    """Changes of a wave one after the other; ``None`` when there are none."""
    parts = (*(() if first == WaveAugment() else (first,)), *others)
    return Chain(parts) if parts else None


def wave_changes(
    sample_rate: int,
    time_shift: float,
    gain_db: float,
    speed: float,
    noise: float,
    transforms: Sequence[WaveTransform],
) -> Chain | None:
    """The changes in training that data modules take as numbers, see :class:`WaveData`, and others behind them.

    Raises:
        ValueError: a number is out of range.
    """
    if sample_rate < 1:
        raise ValueError(f"sample_rate must be at least 1: got {sample_rate}")
    if not 0 <= speed < 1:
        raise ValueError(f"speed must lie in [0, 1): got {speed}")
    for name, value in (("time_shift", time_shift), ("gain_db", gain_db), ("noise", noise)):
        if value < 0:
            raise ValueError(f"{name} must not be negative: got {value}")
    return chain(WaveAugment(round(time_shift * sample_rate), gain_db, speed, noise), transforms)


class WaveSet(ExampleSet):
    """Waves in memory: items ``[S]``, float32.

    Args:
        waves: mono waves, int16 or float32.
        labels: label of each wave.
        digests: sha256 of each source.
        class_names: names of the classes; a label is looked up here.
        sample_rate: samples per second of all waves.
        augment: random changes of a wave at a sample rate; None for evaluation.
    """

    def __init__(
        self,
        waves: Sequence[Tensor],
        labels: Sequence[str],
        digests: Sequence[bytes],
        class_names: Sequence[str],
        sample_rate: int,
        augment: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        self.waves = list(waves)
        self.labels = list(labels)
        self.digests = list(digests)
        self.class_names = tuple(class_names)
        self.sample_rate = sample_rate
        self.augment = augment
        self._index = {name: i for i, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, index: int) -> Example:
        wave = self.waves[index]
        # A copy in both cases: whoever changes an item in place must not change the data.
        wave = wave.float().div_(INT16_SCALE) if wave.dtype == torch.int16 else wave.clone()
        if self.augment is not None:
            wave = self.augment(wave, self.sample_rate)
        return Example(wave, self._index[self.labels[index]])

    def plain(self) -> WaveSet:
        """The same waves without random changes."""
        return WaveSet(self.waves, self.labels, self.digests, self.class_names, self.sample_rate)

    def joined(self, other: WaveSet) -> WaveSet:
        """These waves and those of another set, with the classes and random changes of this one."""
        return WaveSet(
            [*self.waves, *other.waves], [*self.labels, *other.labels], [*self.digests, *other.digests],
            self.class_names, self.sample_rate, self.augment,
        )  # fmt: skip

    def size(self, index: int) -> int:
        """Samples of wave ``index``, before any change of speed."""
        return len(self.waves[index])

    def fingerprint(self) -> str:
        """sha256 over the sound files' bytes, their labels and the sample rate."""
        content = zip(self.labels, self.digests, strict=True)
        return digest(content, self.class_names, f"sample_rate={self.sample_rate}")


class WaveData(ClassificationData):
    """Base of the speech data: reads every clip once, resampled, into memory.

    Args:
        sample_rate: samples per second of all waves; other rates are resampled on reading.
        time_shift: in training, move the sound by up to so many seconds either way.
        gain_db: in training, change the level by up to so many decibels either way.
        speed: in training, play a third each faster and slower by this share, such as 0.1.
        noise: in training, add white noise of up to this share of the clip's root mean square.
        transforms: further changes in training, in this order and after the others; see
            :mod:`tasks.speech.data.augment`.
        **kwargs: ``batch_size``, ``num_workers`` and ``length_pool`` of the base.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        time_shift: float = 0.0,
        gain_db: float = 0.0,
        speed: float = 0.0,
        noise: float = 0.0,
        transforms: Sequence[WaveTransform] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.augment = wave_changes(sample_rate, time_shift, gain_db, speed, noise, transforms)
        self.sample_rate = sample_rate

    def load(
        self,
        clips: Sequence[Clip],
        splits: dict[str, list[int]],
        class_names: Sequence[str],
        problems: Problems,
    ) -> dict[str, ExampleSet]:
        """Read all clips and make the sets.

        Args:
            clips: every clip; those of no split are read and checked too.
            splits: indices of the clips of each split.
            class_names: names of the classes.
            problems: what was found wrong so far; unreadable clips are added.

        Raises:
            ValueError: there are problems; the message names all of them.
        """
        waves, digests = [], []
        for clip in tqdm(clips, "reading clips", disable=None):
            try:
                wave, sha256 = read_wave(clip.path, self.sample_rate)
            except (OSError, ValueError) as error:
                problems.add(clip.path, error)
                continue
            waves.append(wave)
            digests.append(sha256)
        problems.raise_any()
        return {
            split: WaveSet(
                [waves[i] for i in indices],
                [clips[i].label for i in indices],
                [digests[i] for i in indices],
                class_names,
                self.sample_rate,
                self.augment if split == "train" else None,
            )
            for split, indices in splits.items()
        }
