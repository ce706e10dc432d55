"""Random changes of waves that make other speakers, microphones and rooms out of the recordings at hand.

Each change works in the Fourier domain, needs nothing but torch, draws from torch's global generator, and takes and
gives one wave ``[S]``. They are applied in the order given::

    [Speed(0.15), Equalizer(6.0), Reverb(0.2), Noise((5.0, 40.0))]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_STEP = 100  # lengths of transforms are multiples of it: short factors, and few different lengths


class WaveTransform(ABC):
    """A random change of a wave.

    Args:
        probability: share of the waves that are changed.

    Raises:
        ValueError: probability lies outside [0, 1].
    """

    def __init__(self, probability: float = 1.0) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1]: got {probability}")
        self.probability = probability

    def __call__(self, wave: Tensor, sample_rate: int) -> Tensor:
        """A changed copy of a wave ``[S]`` (float), or the wave itself."""
        if self.probability < 1 and float(torch.rand(())) >= self.probability:
            return wave
        return self.change(wave, sample_rate)

    @abstractmethod
    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """A changed copy of a wave ``[S]``."""


@dataclass(frozen=True)
class Chain:
    """Changes of a wave one after the other.

    Attributes:
        parts: each takes a wave ``[S]`` and its sample rate and gives a wave.
    """

    parts: tuple[Callable[[Tensor, int], Tensor], ...]

    def __call__(self, wave: Tensor, sample_rate: int) -> Tensor:
        """A changed copy of a wave ``[S]`` (float)."""
        for part in self.parts:
            wave = part(wave, sample_rate)
        return wave


class Speed(WaveTransform):
    """Plays faster or slower: duration, pitch and formants change together (Ko et al. 2015, "Audio augmentation for
    speech recognition").

    The factor is drawn between ``1 / (1 + most)`` and ``1 + most``, evenly in its logarithm, in steps of about one
    per cent of the duration.

    Args:
        most: largest change, e.g. 0.15.
        probability: share of the waves that are changed.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> 800 / 1.2 - 10 <= len(Speed(0.2)(torch.randn(800), 8000)) <= 800 * 1.2 + 10
        True
    """

    def __init__(self, most: float = 0.15, probability: float = 1.0) -> None:
        super().__init__(probability)
        if not 0 <= most < 1:
            raise ValueError(f"most must lie in [0, 1): got {most}")
        self.most = most

    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Resample by cutting off or filling up the spectrum."""
        percent = round(100 * (1 + self.most) ** _between(-1.0, 1.0))  # of the duration
        blocks = -(-len(wave) // _STEP)
        changed = torch.fft.irfft(torch.fft.rfft(wave, blocks * _STEP), blocks * percent)
        return changed[: -(-len(wave) * percent // 100)] * (percent / 100)


class Equalizer(WaveTransform):
    """A random smooth frequency response, as microphones and sound cards differ.

    Gains are drawn at points that lie evenly on the mel scale from 0 to half the sample rate, and interpolated in
    decibels; the phase stays as it is.

    Args:
        deviation_db: standard deviation of the gains, in decibels.
        points: number of points.
        probability: share of the waves that are changed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, deviation_db: float = 6.0, points: int = 6, probability: float = 1.0) -> None:
        super().__init__(probability)
        if deviation_db < 0:
            raise ValueError(f"deviation_db must not be negative: got {deviation_db}")
        if points < 2:
            raise ValueError(f"points must be at least 2: got {points}")
        self.deviation_db = deviation_db
        self.points = points

    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Multiply the spectrum."""
        gains = self.deviation_db * torch.randn(self.points + 1)
        places = _mel_places(_size(len(wave)), sample_rate) * (self.points - 1)
        low = places.long()
        response = torch.lerp(gains[low], gains[low + 1], places - low)  # the last gain is never heard
        return _filtered(wave, response)


class BandLimit(WaveTransform):
    """Cuts low and high frequencies off, as small microphones, telephones and codecs do.

    Args:
        low_hz: highest edge below which sound is damped; drawn from 0 to this.
        high_hz: lowest edge above which sound is damped; drawn from this to half the sample rate.
        slope_db: damping in decibels an octave beyond the edges.
        probability: share of the waves that are changed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        low_hz: float = 300.0,
        high_hz: float = 3000.0,
        slope_db: float = 24.0,
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        if not 0 <= low_hz < high_hz:
            raise ValueError(f"low_hz must lie in [0, high_hz): got low_hz={low_hz}, high_hz={high_hz}")
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.slope_db = slope_db

    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Multiply the spectrum."""
        low = _between(0.0, self.low_hz)
        high = _between(min(self.high_hz, sample_rate / 2), sample_rate / 2)
        octaves = _octaves(_size(len(wave)), sample_rate)
        below = (math.log2(max(low, 1.0)) - octaves).clamp(min=0)
        above = (octaves - math.log2(high)).clamp(min=0)
        return _filtered(wave, -self.slope_db * (below + above))


class Reverb(WaveTransform):
    """A random short room: echoes of noise that die away, behind the direct sound; the length stays.

    Args:
        seconds: longest reverberation time (the sound has fallen by 60 dB); drawn from 0.02 s to this.
        direct_db: lowest and highest energy of the direct sound over that of all echoes, in decibels.
        probability: share of the waves that are changed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        seconds: float = 0.3,
        direct_db: tuple[float, float] = (0.0, 15.0),
        probability: float = 0.3,
    ) -> None:
        super().__init__(probability)
        if seconds < 0.02:
            raise ValueError(f"seconds must be at least 0.02: got {seconds}")
        self.seconds = seconds
        self.direct_db = _range("direct_db", direct_db)

    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Convolve with an impulse and its echoes."""
        length = max(2, round(_between(0.02, self.seconds) * sample_rate))
        fall = torch.logspace(0, -3, length)  # amplitudes: 60 dB
        echoes = torch.randn(length) * fall
        echoes[0] = 0
        echoes *= 10 ** (-_between(*self.direct_db) / 20) / echoes.norm()
        echoes[0] = 1
        size = _size(len(wave) + length)
        spectrum = torch.fft.rfft(wave, size) * torch.fft.rfft(echoes, size)
        return torch.fft.irfft(spectrum, size)[: len(wave)]


class Noise(WaveTransform):
    """Adds steady noise of a random colour at a random level.

    Args:
        snr_db: lowest and highest power of the wave over that of the noise, in decibels.
        tilt_db: lowest and highest slope of the noise's spectrum in decibels an octave: 0 is white, -3 pink,
            -6 brown.
        probability: share of the waves that are changed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        snr_db: tuple[float, float] = (5.0, 40.0),
        tilt_db: tuple[float, float] = (-6.0, 0.0),
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        self.snr_db = _range("snr_db", snr_db)
        self.tilt_db = _range("tilt_db", tilt_db)

    def change(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Add noise made in the Fourier domain."""
        octaves = _octaves(_size(len(wave)), sample_rate).clamp(
            min=math.log2(50.0)
        )  # brown noise has no end at 0
        noise = _filtered(torch.randn(len(wave)), octaves * _between(*self.tilt_db))
        power = wave.square().mean() / noise.square().mean().clamp(min=1e-30)
        return wave + noise * (power.sqrt() * 10 ** (-_between(*self.snr_db) / 20))


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _range(name: str, values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if low > high:
        raise ValueError(f"{name} must be lowest and highest: got {low} and {high}")
    return low, high


def _size(length: int) -> int:
    """Samples of a transform that holds a wave and at least 10 ms of silence at the usual rates."""
    return (length // _STEP + 2) * _STEP


def _filtered(wave: Tensor, response_db: Tensor) -> Tensor:
    size = 2 * (len(response_db) - 1)
    spectrum = torch.fft.rfft(wave, size) * torch.pow(10.0, response_db / 20)
    return torch.fft.irfft(spectrum, size)[: len(wave)]


@lru_cache(maxsize=256)
def _frequencies(size: int, sample_rate: int) -> Tensor:
    """Hz of each of the ``size / 2 + 1`` bins."""
    return torch.linspace(0, sample_rate / 2, size // 2 + 1)


@lru_cache(maxsize=256)
def _mel_places(size: int, sample_rate: int) -> Tensor:
    """Place of each bin on the mel scale, 0 to 1."""
    mel = torch.log1p(_frequencies(size, sample_rate) / 700)
    return mel / mel[-1]


@lru_cache(maxsize=256)
def _octaves(size: int, sample_rate: int) -> Tensor:
    """Logarithm of each bin's frequency to the base 2; of the first, of 1 Hz."""
    return _frequencies(size, sample_rate).clamp(min=1.0).log2()
