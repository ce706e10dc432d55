"""Keyword spotting, with SpecAugment."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torchaudio.functional import mask_along_axis

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
        clips = []
        for clip in frames.values.split(frames.sizes):
            spectrogram = clip.T[None]  # [1, n_mels, n]
            for _ in range(self.frequency_masks):
                spectrogram = mask_along_axis(spectrogram, self.frequency_bands, 0.0, axis=1)
            for _ in range(self.time_masks):
                longest = int(self.time_share * len(clip))
                spectrogram = mask_along_axis(spectrogram, longest, 0.0, axis=2)
            clips.append(spectrogram[0].T)
        return frames.replace(torch.cat(clips))


class KeywordSpotting(ClassificationTask):
    """Classify short clips.

    Args:
        adapter: waves -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        num_classes: number of classes; the command line takes it from the data.
        spec_augment: masking of the log-mel frames in training; ``None`` masks nothing.
        **kwargs: as :class:`~mmattn.training.module.ClassificationTask`.
    """

    domain = "speech"

    def __init__(
        self,
        adapter: AudioFrames,
        encoder: Encoder,
        num_classes: int,
        spec_augment: SpecAugment | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(adapter, encoder, num_classes, **kwargs)
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
        """Waves -> tokens, with log-mel frames masked in training."""
        assert isinstance(self.adapter, AudioFrames)
        frames = self.adapter.features(items)
        if self.spec_augment is not None:
            frames = self.spec_augment(frames)
        return self.adapter.embed(frames)
