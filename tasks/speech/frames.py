"""Random changes of log-mel frames in training, for speakers and microphones that were never heard.

All take and give packed frames ``[T, n_mels]``; a clip's result does not depend on its batch mates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmattn.tokens import TokenBatch


class VocalTractWarp(nn.Module):
    """Longer and shorter vocal tracts: the frequency axis of each clip's log-mel frames is stretched at random.

    Vocal tract length perturbation (Jaitly and Hinton 2013): what lay at f comes to lie at ``a f``, with a drawn for
    each clip from ``1 - most`` to ``1 + most``; above ``edge`` of the band the map goes straight to its end, so that
    nothing is lost. The warped frames are interpolated between mel bands (of torchaudio's default, HTK's scale).

    Args:
        most: largest change of a, e.g. 0.1.
        sample_rate: of the waves, in Hz.
        edge: frequency from which the map bends, as a share of half the sample rate.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, most: float = 0.1, sample_rate: int = 8000, edge: float = 0.8) -> None:
        super().__init__()
        if not 0 <= most < 1:
            raise ValueError(f"most must lie in [0, 1): got {most}")
        if not 0 < edge < 1:
            raise ValueError(f"edge must lie in (0, 1): got {edge}")
        self.most = most
        self.sample_rate = sample_rate
        self.edge = edge

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to the same; nothing changes outside training."""
        if not self.training or not self.most:
            return frames
        factors = 1 + self.most * (2 * torch.rand(len(frames), 1, device=frames.device) - 1)
        return self.warp(frames, factors)

    def warp(self, frames: TokenBatch, factors: Tensor) -> TokenBatch:
        """The frames with what lay at f at ``factors * f``; factors ``[B, 1]``."""
        values = frames.values
        n_mels = values.shape[1]
        step = _mel(torch.tensor(self.sample_rate / 2)) / (n_mels + 1)  # band b is centred at (b + 1) steps
        centres = 700 * torch.expm1((torch.arange(n_mels, device=values.device) + 1) * step)
        source = self._source(centres, factors, self.sample_rate / 2)
        places = (_mel(source) / step - 1).clamp(0, n_mels - 1)  # [B, n_mels]
        low = places.long().clamp(max=max(n_mels - 2, 0))
        share = (places - low)[frames.segment_ids].to(values.dtype)
        low = low[frames.segment_ids]
        high = (low + 1).clamp(max=n_mels - 1)
        return frames.replace(torch.lerp(values.gather(1, low), values.gather(1, high), share))

    def _source(self, target: Tensor, factors: Tensor, top: float) -> Tensor:
        """Where what now lies at ``target`` [F] lay before, [B, F] in Hz."""
        bend = self.edge * top * factors.clamp(max=1)  # after the warp; before it, the same over the factor
        beyond = top - (top - bend / factors) / (top - bend) * (top - target)
        return torch.where(target <= bend, target / factors, beyond)


class BandGains(nn.Module):
    """Other microphones: a random smooth curve over the mel bands is added to all log-mel frames of a clip.

    Filtering a wave multiplies its spectrum, which adds to each log-mel band: this is
    :class:`~tasks.speech.data.augment.Equalizer` at a hundredth of its cost.

    Args:
        deviation: standard deviation of the curve at its points, in standard deviations of a clip's log-mel values,
            as which the adapter gives the frames (one is about 12 dB in close speech).
        points: points where the curve is drawn, evenly over the bands; linear between them.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, deviation: float = 0.5, points: int = 6) -> None:
        super().__init__()
        if deviation < 0:
            raise ValueError(f"deviation must not be negative: got {deviation}")
        if points < 2:
            raise ValueError(f"points must be at least 2: got {points}")
        self.deviation = deviation
        self.points = points

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to the same; nothing changes outside training."""
        if not self.training or not self.deviation:
            return frames
        drawn = self.deviation * torch.randn(len(frames), 1, self.points, device=frames.device)
        n_mels = frames.values.shape[1]
        curves = nn.functional.interpolate(drawn, n_mels, mode="linear", align_corners=True)[:, 0]
        return frames.replace(frames.values + curves.to(frames.values)[frames.segment_ids])


class BandMix(nn.Module):
    """Other rooms and voices: mean and deviation of each band of a clip are mixed with those of another clip.

    What a microphone, a room and a voice do to all of a clip shows in these, and those of the other clips of a batch
    are real ones (MixStyle, Zhou et al. 2021, "Domain generalization with MixStyle", over bands instead of channels).

    Args:
        probability: share of the clips that are changed, in [0, 1].
        alpha: the share s of the clip's own is drawn from a beta distribution with both parameters alpha, and the
            larger of s and 1 - s taken; the smaller alpha, the less most clips are changed.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, probability: float = 0.7, alpha: float = 0.4) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1]: got {probability}")
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0: got {alpha}")
        self.probability = probability
        self.alpha = alpha

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to the same; nothing changes outside training."""
        if not self.training or not self.probability:
            return frames
        values, ids, count = frames.values, frames.segment_ids, len(frames)
        lengths = frames.lengths.to(values)[:, None].clamp(min=1)
        zeros = values.new_zeros(count, values.shape[1])
        mean = zeros.index_add(0, ids, values) / lengths
        centred = values - mean[ids]
        deviation = (zeros.index_add(0, ids, centred.square()) / lengths + 1e-4).sqrt()
        other = torch.randperm(count)
        drawn = torch.distributions.Beta(self.alpha, self.alpha).sample((count, 1))
        own = torch.where(torch.rand(count, 1) < self.probability, drawn.maximum(1 - drawn), 1.0).to(values)
        scale = torch.lerp(deviation[other], deviation, own) / deviation
        return frames.replace(centred * scale[ids] + torch.lerp(mean[other], mean, own)[ids])


class Tempo(nn.Module):
    """Speaks each clip's log-mel frames faster or slower at random; pitch and formants stay.

    Args:
        most: largest change; the factor is drawn between ``1 / (1 + most)`` and ``1 + most``, evenly in its
            logarithm.

    Raises:
        ValueError: most is out of range.
    """

    def __init__(self, most: float = 0.25) -> None:
        super().__init__()
        if most < 0:
            raise ValueError(f"most must not be negative: got {most}")
        self.most = most

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to as many clips of other lengths, in training alone."""
        if not self.training or not self.most:
            return frames
        factors = torch.exp(math.log1p(self.most) * (2 * torch.rand(len(frames)) - 1))
        lengths = (frames.lengths * factors).round().long().clamp(min=1) * (frames.lengths > 0)
        resized = TokenBatch(torch.empty(int(lengths.sum())), lengths)
        ids = resized.segment_ids
        # the first frame stays the first, the last the last
        scale = (frames.lengths - 1).clamp(min=0) / (lengths - 1).clamp(min=1)
        places = resized.coords[:, 0] * scale[ids]
        starts = (frames.lengths.cumsum(0) - frames.lengths)[ids]
        low = places.long().minimum((frames.lengths - 1)[ids])
        high = (low + 1).minimum((frames.lengths - 1)[ids])
        share = (places - low)[:, None].to(frames.values)
        low, high = (starts + low).to(frames.device), (starts + high).to(frames.device)
        return TokenBatch(torch.lerp(frames.values[low], frames.values[high], share), lengths)


class EdgeCut(nn.Module):
    """Cuts frames off both ends of clips at random, as recordings that were trimmed by their level lose weak sounds.

    Many trimmed recordings lack the first or the last consonant: an "s", an "f" or a "t" is no louder than the
    noise. Each end of each clip is cut with ``probability``, by a share of the clip drawn evenly below ``most``; at
    least one frame is left.

    Args:
        most: largest share cut off each end, in [0, 0.5).
        probability: share of the ends that are cut, in [0, 1].

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, most: float = 0.25, probability: float = 0.5) -> None:
        super().__init__()
        if not 0 <= most < 0.5:
            raise ValueError(f"most must lie in [0, 0.5): got {most}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1]: got {probability}")
        self.most = most
        self.probability = probability

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to as many shorter clips, in training alone."""
        if not self.training or not self.most:
            return frames
        shares = self.most * torch.rand(2, len(frames)) * (torch.rand(2, len(frames)) < self.probability)
        first, last = (shares * frames.lengths).long()
        ids = torch.arange(len(frames)).repeat_interleave(frames.lengths)
        places = torch.arange(len(ids)) - (frames.lengths.cumsum(0) - frames.lengths)[ids]
        kept = (first[ids] <= places) & (places < (frames.lengths - last)[ids])
        return TokenBatch(frames.values[kept.to(frames.device)], frames.lengths - first - last)


def _mel(hertz: Tensor) -> Tensor:
    """Natural mels: HTK's scale but for its factor."""
    return torch.log1p(hertz / 700)
