"""Log-mel frames for speakers, microphones and rooms that were never heard."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmattn.adapters.audio import AudioFrames, Waves
from mmattn.tokens import TokenBatch

_SPREAD = 3.0  # brings log1p(power / floor) of speech near a deviation of 1
_MARGIN = 3  # hundredths of a second that are left around what is loud
_EMPHASIS = 0.97  # of the sample before, taken away: lifts hisses, such as the /s/ of "six", as the ear does


class BandNormFrames(AudioFrames):
    """:class:`~mmattn.adapters.audio.AudioFrames` of waves of one loudness, normalised band by band.

    A microphone and a room multiply the spectrum, which adds a constant to each log-mel band; so does, in part, a
    speaker. Subtracting each band's mean over the clip takes that away (cepstral mean normalisation, Atal 1974), and
    with it some of what a short word sounds like: which is better, the validation speaker must tell.

    Args:
        embed_dim: width D of the tokens.
        level: root mean square that each wave is scaled to; frames know nothing below a mel power of 1e-6, so that
            a low level hides the noise between the sounds: at 0.1 about 70 dB are heard, at 0.01 about 50 dB.
            ``None`` leaves the waves as they are.
        bands: share of each band's mean over the clip that is subtracted, in [0, 1].
        deviations: whether each band is then divided by its root mean square over the clip.
        floor: mel power below which nothing is told apart: values are ``log1p(power / floor) / 3``, 0 in silence, and
            not shifted and scaled clip by clip, which would make a clip's loud sounds depend on how quiet its pauses
            are. At 0.01 and a level of 0.1 about 40 dB are heard below the loudest bands of close speech; what noise
            a room adds below that no longer matters. ``None`` standardises each clip.
        trim_db: the ends of a wave that stay more than so many decibels below its loudest 20 ms are cut off, but for
            30 ms: recordings differ in the silence that was left around a word. It is judged with high frequencies
            raised (pre-emphasis 0.97), or else hisses would be cut off as silence. ``num_frames`` and ``num_tokens``
            are those of what is left. ``None`` leaves the waves whole.
        sample_rate: of all waves, in Hz.
        **kwargs: as :class:`~mmattn.adapters.audio.AudioFrames`.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> import torch
        >>> frames = BandNormFrames(embed_dim=8, sample_rate=8000, bands=1.0).features([torch.randn(4000)])
        >>> bool(frames.values.mean(0).abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        embed_dim: int,
        level: float | None = 0.1,
        bands: float = 1.0,
        deviations: bool = False,
        floor: float | None = None,
        trim_db: float | None = None,
        sample_rate: int = 16_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(embed_dim, sample_rate, **kwargs)
        if level is not None and level <= 0:
            raise ValueError(f"level must be above 0: got {level}")
        if not 0 <= bands <= 1:
            raise ValueError(f"bands must lie in [0, 1]: got {bands}")
        if floor is not None and floor <= 0:
            raise ValueError(f"floor must be above 0: got {floor}")
        if floor is not None and self.normalize != "clip":
            raise ValueError(f"with a floor, normalize must be 'clip': got {self.normalize!r}")
        if trim_db is not None and trim_db <= 0:
            raise ValueError(f"trim_db must be above 0: got {trim_db}")
        self.level = level
        self.bands = bands
        self.deviations = deviations
        self.floor = floor
        self.trim_db = trim_db

    def features(self, items: Waves) -> TokenBatch:
        """Normalised log-mel frames ``[T, n_mels]``, before subsampling."""
        return self._normalised([self._trimmed(wave)[0] for wave in items])

    def spectrum(self, wave: Tensor) -> Tensor:
        """Normalised log-mel frames ``[F, n_mels]`` of a whole wave ``[S]``, its ends included, to be drawn."""
        return self._normalised([wave]).values

    def _normalised(self, waves: list[Tensor]) -> TokenBatch:
        if self.level is not None:
            waves = [wave * (self.level / _loudness(wave)) if wave.numel() else wave for wave in waves]
        if self.floor is None:
            frames = super().features(waves)
        else:
            frames = self._raw(waves)
            frames = frames.replace((frames.values.exp() / self.floor).log1p() / _SPREAD)
        if self.bands:
            frames = frames.replace(frames.values - self.bands * _clip_means(frames)[frames.segment_ids])
        if self.deviations:
            powers = _clip_means(frames.replace(frames.values.square()))
            # a band that hardly moves, such as one that the microphone does not hear, is not blown up
            frames = frames.replace(frames.values / (powers + 0.01).sqrt()[frames.segment_ids])
        return frames

    def regions(self, items: Waves) -> list[Tensor]:
        """For each wave the samples ``[n, 2]`` that its tokens stand for: start, stop."""
        parts = [self._trimmed(wave) for wave in items]
        spans = super().regions([part for part, _ in parts])
        return [span + start for span, (_, start) in zip(spans, parts, strict=True)]

    def _trimmed(self, wave: Tensor) -> tuple[Tensor, int]:
        """What is left of a wave, and the samples cut off before it."""
        if self.trim_db is None or wave.ndim != 1:
            return wave, 0
        step = max(1, self.sample_rate // 100)
        if len(wave) < 2 * step:
            return wave, 0
        heard = wave.float()
        heard = torch.cat([heard[:1], heard[1:] - _EMPHASIS * heard[:-1]])
        powers = nn.functional.avg_pool1d(heard.square()[None], 2 * step, step)[0]
        loud = (powers >= powers.max() * 10 ** (-self.trim_db / 10)).nonzero()[:, 0].tolist()
        if not loud:  # samples that are no numbers
            return wave, 0
        start = max(0, loud[0] - _MARGIN) * step
        return wave[start : (loud[-1] + 2 + _MARGIN) * step], start


def _loudness(wave: Tensor) -> Tensor:
    return wave.square().mean().sqrt().clamp(min=1e-8)


def _clip_means(frames: TokenBatch) -> Tensor:
    """Mean of each band over each clip, ``[B, n_mels]``."""
    sums = frames.values.new_zeros(len(frames), frames.values.shape[1])
    counts = frames.lengths.to(frames.values)[:, None]
    return sums.index_add(0, frames.segment_ids, frames.values) / counts
