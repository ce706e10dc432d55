"""Waves of any length as packed log-mel frames."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.adapters.base import Adapter, keep_variance, require
from mmattn.tokens import TokenBatch

Waves = Tensor | Sequence[Tensor]


class AudioFrames(Adapter):
    """Waves -> log-mel spectrogram (torchaudio) -> subsampled frames, packed, with exact lengths.

    All clips of a batch go through one spectrogram and one convolution, laid end to end with gaps of zeros;
    nothing is padded to the longest clip, and a clip's frames do not change with its batch mates.
    The log-mel values of each clip are shifted and scaled to mean 0 and deviation 1.

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

    Raises:
        ImportError: torchaudio is missing.
        ValueError: an argument does not fit.

    Example:
        >>> frames = AudioFrames(embed_dim=8, sample_rate=8000)
        >>> frames([torch.randn(8000), torch.randn(4000)])
        TokenBatch(2 sequences, 39 tokens, lengths 13..26, values [39, 8] float32, coords [39, 1], cpu)
    """

    def __init__(
        self,
        embed_dim: int,
        sample_rate: int = 16_000,
        n_mels: int = 64,
        n_fft: int | None = None,
        hop_length: int | None = None,
        subsampling: int = 4,
        stem: str = "conv",
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

    def forward(self, items: Waves) -> TokenBatch:
        """Tokens of waves ``[B, S]``, or of a sequence of B waves ``[S]`` of any lengths (float, mono)."""
        return self.embed(self.features(items))

    def features(self, items: Waves) -> TokenBatch:
        """Normalised log-mel frames ``[T, n_mels]``, before subsampling.

        Raises:
            ValueError: a wave is not one-dimensional, or empty.
            TypeError: a wave is not floating-point.
        """
        waves = list(items)
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
        with torch.autocast(line.device.type, enabled=False):
            parts = torch.view_as_real(self.spectrogram(line.float()))
            frames = self.mel_scale(parts.square().sum(-1)).T.clamp(min=1e-6).log()
        rows = TokenBatch(torch.arange(int(counts.sum())), counts)
        places = rows.coords[:, 0] + starts.repeat_interleave(counts)
        return _standardised(TokenBatch(frames[places.to(frames.device)], counts))

    def embed(self, frames: TokenBatch) -> TokenBatch:
        """Tokens of log-mel frames; between the two is where SpecAugment belongs."""
        tokens: TokenBatch = self.stem(frames)
        return tokens

    def regions(self, items: Waves) -> list[Tensor]:
        """For each wave the samples ``[n, 2]`` that its tokens stand for: start, stop."""
        step = self.hop_length * self.subsampling
        spans = []
        for wave in items:
            count = math.ceil((1 + len(wave) // self.hop_length) / self.subsampling)
            # frames are centred at multiples of the hop, convolved tokens at their first frame
            before = step // 2 if isinstance(self.stem, ConvSubsampling) else self.hop_length // 2
            starts = torch.arange(count) * step - before
            span = torch.stack([starts, starts + step], dim=1).clamp(0, len(wave))
            span[-1, 1] = len(wave)  # less than a step behind the last frame
            spans.append(span)
        return spans


class FramePatches(nn.Module):
    """Embeds each run of ``size`` frames on its own; the last run of a clip is filled up with zeros.

    Args:
        in_features: features of a frame.
        embed_dim: width D of the tokens.
        size: frames in a run.
    """

    def __init__(self, in_features: int, embed_dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(in_features * size, embed_dim)

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """``[T, F] -> [T', D]`` with lengths ``ceil(n / size)``."""
        counts = (frames.lengths + self.size - 1) // self.size
        line = frames.values.new_zeros(int(counts.sum()) * self.size, frames.values.shape[1])
        starts = (counts.cumsum(0) - counts) * self.size
        places = _places(frames, starts)
        line = line.index_copy(0, places, frames.values)
        return TokenBatch(self.linear(line.reshape(-1, self.size * line.shape[1])), counts)


class ConvSubsampling(nn.Module):
    """Convolutions of width 3 and stride 2 over time, each with a GELU, on clips laid end to end.

    Between two clips lies at least one frame of zeros at every layer, just what padding a clip alone gives.

    Args:
        in_features: features of a frame.
        embed_dim: width D of the tokens.
        factor: total stride, a power of two; 1 is a convolution of stride 1.
    """

    def __init__(self, in_features: int, embed_dim: int, factor: int) -> None:
        super().__init__()
        steps = int(math.log2(factor))
        if 2**steps != factor:
            raise ValueError(f"subsampling must be a power of two for a conv stem: got {factor}")
        strides = [2] * steps or [1]
        widths = [in_features] + [embed_dim] * len(strides)
        self.factor = factor
        self.convs = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], 3, stride, padding=1) for i, stride in enumerate(strides)
        )
        self.linear = nn.Linear(embed_dim, embed_dim)

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """``[T, F] -> [T', D]`` with lengths ``ceil(n / factor)``."""
        slots = ((frames.lengths + self.factor - 1) // self.factor + 1) * self.factor
        starts = slots.cumsum(0) - slots
        line = frames.values.new_zeros(int(slots.sum()), frames.values.shape[1])
        line = line.index_copy(0, _places(frames, starts), frames.values)
        layout, x = frames, line.T[None]
        for conv in self.convs:
            stride = cast(nn.Conv1d, conv).stride[0]
            x = nn.functional.gelu(conv(x))
            counts = (layout.lengths + stride - 1) // stride
            starts = starts // stride
            layout = TokenBatch(torch.empty(int(counts.sum()), device=x.device), counts)
            real = torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device)
            places = _places(layout, starts)
            real[places] = 1  # biases and GELU would fill the gaps
            x = x * real
        return TokenBatch(self.linear(x[0].T[places]), layout.lengths)


def _places(layout: TokenBatch, starts: Tensor) -> Tensor:
    """Where each token of a batch goes when sequence b starts at ``starts[b]``."""
    offsets = starts.repeat_interleave(layout.lengths).to(layout.device)
    return layout.coords[:, 0] + offsets


def _standardised(frames: TokenBatch) -> TokenBatch:
    """Each clip's values with mean 0 and deviation 1 over all its frames and bands."""
    lengths = frames.lengths.to(frames.device).unsqueeze(1).to(frames.values.dtype)
    ids = frames.segment_ids
    zeros = frames.values.new_zeros(len(frames), 1)
    mean = zeros.index_add(0, ids, frames.values.mean(1, keepdim=True)) / lengths
    centred = frames.values - mean[ids]
    variance = zeros.index_add(0, ids, centred.square().mean(1, keepdim=True)) / lengths
    return frames.replace(centred / (variance + 1e-5).sqrt()[ids])
