"""Keyword spotting, with SpecAugment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmattn.adapters.audio import AudioFrames
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch
from mmattn.training.data import TaskData
from mmattn.training.module import ClassificationTask


class SpecAugment(nn.Module):
    """Zeroes random stretches of time and bands of frequency in each clip's log-mel frames (Park et al. 2019).

    Args:
        time_masks: stretches of time masked in each clip.
        time_share: longest stretch, as a share of the clip.
        frequency_masks: bands masked in each clip.
        frequency_bands: widest band, in mel bands.

    Raises:
        ValueError: time_share is outside [0, 1].
    """

    def __init__(
        self,
        time_masks: int = 2,
        time_share: float = 0.1,
        frequency_masks: int = 2,
        frequency_bands: int = 8,
    ) -> None:
        super().__init__()
        if not 0 <= time_share <= 1:
            raise ValueError(f"time_share must lie in [0, 1]: got {time_share}")
        self.time_masks = time_masks
        self.time_share = time_share
        self.frequency_masks = frequency_masks
        self.frequency_bands = frequency_bands

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """Log-mel frames ``[T, n_mels]``, packed, to the same; nothing changes outside training."""
        if not self.training:
            return frames
        count, n_mels = len(frames), frames.values.shape[1]
        widest = torch.full((count,), float(self.frequency_bands))
        bands = _stretches(self.frequency_masks, widest, torch.full((count,), float(n_mels)))
        longest = (self.time_share * frames.lengths).floor()
        stretches = _stretches(self.time_masks, longest, frames.lengths.float())
        ids = torch.arange(count).repeat_interleave(frames.lengths)
        places = torch.arange(len(ids)) - (frames.lengths.cumsum(0) - frames.lengths)[ids]
        kept = ~_covered(torch.arange(n_mels), bands)[ids] & ~_covered(places[:, None], stretches[ids])
        return frames.replace(frames.values * kept.to(frames.values))


def _stretches(masks: int, longest: Tensor, sizes: Tensor) -> Tensor:
    """Start and exclusive stop of random stretches, ``[B, masks, 2]``, drawn as torchaudio's ``mask_along_axis``
    does: a width below ``longest`` [B], and a place where it lies inside ``sizes`` [B]."""
    widths = torch.rand(len(sizes), masks) * longest.minimum(sizes)[:, None]
    starts = (torch.rand(len(sizes), masks) * (sizes[:, None] - widths)).floor()
    return torch.stack([starts, starts + widths.floor()], dim=-1)


def _covered(places: Tensor, stretches: Tensor) -> Tensor:
    """Whether each place ``[N]`` or ``[B, N]`` lies in one of the stretches ``[B, masks, 2]``: ``[B, N]``."""
    starts, stops = stretches[..., None].unbind(-2)
    inside = (starts <= places[..., None, :]) & (places[..., None, :] < stops)
    return inside.any(-2)


class KeywordSpotting(ClassificationTask):
    """Classify short clips.

    Args:
        adapter: waves -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        num_classes: number of classes; the command line takes it from the data.
        spec_augment: masking of the log-mel frames in training; ``None`` masks nothing.
        frame_augment: other changes of the packed log-mel frames in training, in this order and before the masking,
            such as :class:`~tasks.speech.frames.VocalTractWarp`.
        **kwargs: as :class:`~mmattn.training.module.ClassificationTask`.
    """

    domain = "speech"

    def __init__(
        self,
        adapter: AudioFrames,
        encoder: Encoder,
        num_classes: int,
        spec_augment: SpecAugment | None = None,
        frame_augment: Sequence[nn.Module] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(adapter, encoder, num_classes, **kwargs)
        self.frame_augment = nn.ModuleList(frame_augment)
        self.spec_augment = spec_augment

    def check_data(self, data: TaskData) -> None:
        """Refuse waves of another sample rate than the adapter's."""
        rate = getattr(data, "sample_rate", None)
        expected = cast(AudioFrames, self.adapter).sample_rate
        if rate is not None and rate != expected:
            raise ValueError(
                f"data and adapter must have the same sample_rate: got {rate} and {expected} samples a second"
            )

    def tokens(self, items: Any) -> TokenBatch:
        """Waves -> tokens, with log-mel frames changed and masked in training."""
        assert isinstance(self.adapter, AudioFrames)
        frames = self.adapter.features(items)
        for augment in self.frame_augment:
            frames = augment(frames)
        if self.spec_augment is not None:
            frames = self.spec_augment(frames)
        return self.adapter.embed(frames)
