"""Waves of any length as packed log-mel frames."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from mmattn.adapters.base import Adapter, keep_variance, require
from mmattn.adapters.subsampling import ConvSubsampling, FramePatches
from mmattn.tokens import TokenBatch

Waves = Tensor | Sequence[Tensor]


class AudioFrames(Adapter):
    """Waves -> log-mel spectrogram (torchaudio) -> subsampled frames, packed, with exact lengths.

    All clips of a batch go through one spectrogram and one convolution, laid end to end with gaps of zeros;
    nothing is padded to the longest clip, and a clip's frames do not change with its batch mates.
    The log-mel values of each clip are shifted and scaled to mean 0 and deviation 1, or, with
    ``normalize="global"``, those of each band by the mean and deviation of a training set, so that a frame depends
    on nothing that is spoken later and can be made from a stream.

    A wave of S samples has ``1 + S // hop_length`` frames, centred at multiples of ``hop_length``, and
    ``ceil(frames / subsampling)`` tokens.

    Args:
        embed_dim: width D of the tokens.
        sample_rate: of all waves, in Hz.
        n_mels: mel bands.
        n_fft: window in samples; ``None`` takes 32 ms, rounded up to an even number.
        hop_length: step in samples; ``None`` takes 10 ms.
        subsampling: frames a token stands for.
        stem: ``"conv"``: overlapping convolutions of width 3 and stride 2 (subsampling is a power of two);
            ``"patch"``: each run of ``subsampling`` frames is embedded on its own.
        normalize: ``"clip"`` or ``"global"``; the latter needs :meth:`fit` or a checkpoint before use.

    Raises:
        ImportError: torchaudio is missing.
        ValueError: an argument does not fit.

    Example:
        >>> frames = AudioFrames(embed_dim=8, sample_rate=8000)
        >>> frames([torch.randn(8000), torch.randn(4000)])
        TokenBatch(2 sequences, 39 tokens, lengths 13..26, values [39, 8] float32, coords [39, 1], cpu)
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        embed_dim: int,
        sample_rate: int = 16_000,
        n_mels: int = 64,
        n_fft: int | None = None,
        hop_length: int | None = None,
        subsampling: int = 4,
        stem: str = "conv",
        normalize: Literal["clip", "global"] = "clip",
    ) -> None:
        super().__init__()
        require(importlib.util.find_spec("torchaudio") is not None, "torchaudio", "speech", "AudioFrames")
        from torchaudio.transforms import MelScale, Spectrogram

        for name, value in (("sample_rate", sample_rate), ("n_mels", n_mels), ("subsampling", subsampling)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        self.embed_dim = embed_dim
        self.sample_rate = sample_rate
        self.n_fft = 2 * math.ceil(sample_rate * 0.016) if n_fft is None else n_fft
        self.hop_length = sample_rate // 100 if hop_length is None else hop_length
        for name, value in (("n_fft", self.n_fft), ("hop_length", self.hop_length)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        self.subsampling = subsampling
        # the complex spectrogram: torchaudio's own power goes through a square root, half of the time here
        self.spectrogram = Spectrogram(self.n_fft, hop_length=self.hop_length, power=None, center=False)
        self.mel_scale = MelScale(n_mels, sample_rate, n_stft=self.n_fft // 2 + 1)
        if stem not in ("conv", "patch"):
            raise ValueError(f"stem must be 'conv' or 'patch': got {stem!r}")
        self.stem = (
            ConvSubsampling(n_mels, embed_dim, subsampling)
            if stem == "conv"
            else FramePatches(n_mels, embed_dim, subsampling)
        )
        keep_variance(self.stem)
        if normalize not in ("clip", "global"):
            raise ValueError(f"normalize must be 'clip' or 'global': got {normalize!r}")
        self.normalize = normalize
        if normalize == "global":
            self.register_buffer("mean", torch.zeros(n_mels))
            self.register_buffer("deviation", torch.zeros(n_mels))  # 0 until they are known

    def forward(self, items: Waves) -> TokenBatch:
        """Tokens of waves ``[B, S]``, or of a sequence of B waves ``[S]`` of any lengths (float, mono)."""
        return self.embed(self.features(items))

    def features(self, items: Waves) -> TokenBatch:
        """Normalised log-mel frames ``[T, n_mels]``, before subsampling.

        Raises:
            ValueError: a wave is not one-dimensional, or empty, or the normalisation is not known yet.
            TypeError: a wave is not floating-point.
        """
        frames = self._raw(list(items))
        if self.normalize == "clip":
            return _standardised(frames)
        return frames.replace(self.normalized(frames.values))

    def _raw(self, waves: list[Tensor]) -> TokenBatch:
        """Log-mel frames as they are."""
        if not waves:
            raise ValueError("AudioFrames needs at least one wave: got none")
        for wave in waves:
            if wave.ndim != 1 or len(wave) == 0:
                raise ValueError(f"a wave must be [S] with at least one sample: got shape {list(wave.shape)}")
            if not wave.is_floating_point():
                raise TypeError(f"a wave must be floating-point in [-1, 1]: got {wave.dtype}")
        counts = torch.tensor([1 + len(wave) // self.hop_length for wave in waves])
        margin = self.n_fft // 2
        # every clip starts at a multiple of the step, so that its frames fall where they fall alone
        reach = max(self.n_fft, margin + self.hop_length)  # of the last window, or of the wave behind it
        slots = counts - 1 + math.ceil(reach / self.hop_length)
        starts = slots.cumsum(0) - slots
        line = waves[0].new_zeros(int(slots.sum()) * self.hop_length)
        for wave, start in zip(waves, (starts * self.hop_length + margin).tolist(), strict=True):
            line[start : start + len(wave)] = wave
        frames = self.log_mel(line)
        rows = TokenBatch(torch.arange(int(counts.sum())), counts)
        places = rows.coords[:, 0] + starts.repeat_interleave(counts)
        return TokenBatch(frames[places.to(frames.device)], counts)

    def log_mel(self, samples: Tensor) -> Tensor:
        """Log-mel values ``[n, n_mels]`` of each whole window of samples ``[S]``, one every ``hop_length``."""
        with torch.autocast(samples.device.type, enabled=False):
            parts = torch.view_as_real(self.spectrogram(samples.float()))
            values: Tensor = self.mel_scale(parts.square().sum(-1)).T.clamp(min=1e-6).log()
        return values

    def fit(self, waves: Iterable[Tensor]) -> None:
        """Learn mean and deviation of each band from a training set; for ``normalize="global"``.

        Args:
            waves: ``[S]`` each, in any number; they are read once, one after the other.

        Raises:
            ValueError: ``normalize`` is ``"clip"``, or there is no wave.
        """
        if self.normalize != "global":
            raise ValueError(f"fit is for normalize='global': got {self.normalize!r}")
        count, sums = 0, torch.zeros(2, len(self.mean), dtype=torch.float64)
        with torch.no_grad():
            for wave in waves:
                values = self._raw([wave.to(self.mean.device)]).values.double().cpu()
                count, sums = count + len(values), sums + torch.stack([values.sum(0), values.square().sum(0)])
            if not count:
                raise ValueError("mean and deviation are learnt from waves: got none")
            mean, square = sums / count
            self.mean.copy_(mean)
            # above 0 for a band that never changes
            self.deviation.copy_(((square - mean.square()).clamp(min=0) + 1e-5).sqrt())

    @property
    def ready(self) -> bool:
        """Whether the normalisation is known; that of each clip always is."""
        return self.normalize == "clip" or bool((self.deviation > 0).all())

    def normalized(self, values: Tensor) -> Tensor:
        """Log-mel values ``[n, n_mels]`` by the mean and deviation of the training set.

        Raises:
            ValueError: these are not known yet, or ``normalize`` is ``"clip"``.
        """
        if self.normalize != "global" or not self.ready:
            raise ValueError(
                "mean and deviation of a training set must be learnt or loaded before use, call fit(waves): "
                f"got none, normalize={self.normalize!r}"
            )
        return (values - self.mean) / self.deviation

    def num_frames(self, samples: int) -> int:
        """Frames of a wave of so many samples."""
        return 1 + samples // self.hop_length

    def num_tokens(self, samples: int) -> int:
        """Tokens of a wave of so many samples."""
        return math.ceil(self.num_frames(samples) / self.subsampling)

    def embed(self, frames: TokenBatch) -> TokenBatch:
        """Tokens of log-mel frames; between the two is where SpecAugment belongs."""
        tokens: TokenBatch = self.stem(frames)
        return tokens

    def spectrum(self, wave: Tensor) -> Tensor:
        """Normalised log-mel frames ``[F, n_mels]`` of a whole wave ``[S]``, one each ``hop_length``, to be drawn."""
        return self.features([wave]).values

    def regions(self, items: Waves) -> list[Tensor]:
        """For each wave the samples ``[n, 2]`` that its tokens stand for: start, stop."""
        step = self.hop_length * self.subsampling
        spans = []
        for wave in items:
            count = self.num_tokens(len(wave))
            # frames are centred at multiples of the hop, convolved tokens at their first frame
            before = step // 2 if isinstance(self.stem, ConvSubsampling) else self.hop_length // 2
            starts = torch.arange(count) * step - before
            span = torch.stack([starts, starts + step], dim=1).clamp(0, len(wave))
            span[-1, 1] = len(wave)  # less than a step behind the last frame
            spans.append(span)
        return spans


def _standardised(frames: TokenBatch) -> TokenBatch:
    """Each clip's values with mean 0 and deviation 1 over all its frames and bands."""
    lengths = frames.lengths.to(frames.device).unsqueeze(1).to(frames.values.dtype)
    ids = frames.segment_ids
    zeros = frames.values.new_zeros(len(frames), 1)
    mean = zeros.index_add(0, ids, frames.values.mean(1, keepdim=True)) / lengths
    centred = frames.values - mean[ids]
    variance = zeros.index_add(0, ids, centred.square().mean(1, keepdim=True)) / lengths
    return frames.replace(centred / (variance + 1e-5).sqrt()[ids])
