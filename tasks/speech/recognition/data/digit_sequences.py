"""Sequences of digits joined from single recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmattn.training.data import Pair
from tasks.speech.data.augment import Chain
from tasks.speech.data.waves import INT16_SCALE
from tasks.speech.recognition.data.transcribed import Spoken, TranscribedSet, digest, drawn_from, shortest

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Transcript = Literal["digits", "words"]

_FLOOR_DB = -40.0  # of the noise under a sequence, against its speech: gaps must not give themselves away


class Recording(NamedTuple):
    """One spoken digit.

    Attributes:
        wave: ``[S]``, mono, int16 or float32.
        digit: 0 to 9.
        speaker: who says it.
        sha256: digest of its file.
    """

    wave: Tensor
    digit: int
    speaker: str
    sha256: bytes


class DigitSequences(TranscribedSet):
    """Sequences of digits by one speaker each, with random gaps before, between and after.

    How many digits a sequence has and who speaks follow from its index; which recordings, which gaps and which
    changes is chance.

    Args:
        recordings: what the sequences are joined of.
        count: number of sequences.
        digits: fewest and most digits.
        max_gap: longest gap in samples.
        sample_rate: of the recordings.
        transcript: ``"digits"``: ``"3 1 4"``; ``"words"``: ``"three one four"``.
        each: random changes of each clip; ``None`` for evaluation.
        whole: random changes of a sequence; ``None`` for evaluation.
        seed: a number fixes the sequences of evaluation; ``None`` follows the :class:`Draw`.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        count: int,
        digits: tuple[int, int],
        max_gap: int,
        sample_rate: int,
        transcript: Transcript = "digits",
        each: Chain | None = None,
        whole: Chain | None = None,
        seed: int | None = None,
    ) -> None:
        self.recordings = list(recordings)
        self.count = count
        self.digits = digits
        self.max_gap = max_gap
        self.sample_rate = sample_rate
        self.names = WORDS if transcript == "words" else tuple("0123456789")
        self.seed = seed
        self.each = each
        self.whole = whole
        self.speakers = sorted({recording.speaker for recording in recordings})
        self._of_speaker = {
            speaker: [i for i, recording in enumerate(self.recordings) if recording.speaker == speaker]
            for speaker in self.speakers
        }
        self._mean = {
            speaker: sum(len(self.recordings[i].wave) for i in found) / len(found)
            for speaker, found in self._of_speaker.items()
        }

    def __len__(self) -> int:
        return self.count

    def plan(self, index: int) -> tuple[str, int]:
        """Speaker and number of digits of sequence ``index``."""
        fewest, most = self.digits
        turn, place = divmod(index, most - fewest + 1)
        return self.speakers[turn % len(self.speakers)], fewest + place

    def draw(self, index: int) -> Pair:
        """Sequence ``index``."""
        if self.seed is None:
            return self._join(index)
        with drawn_from(self.seed, index):
            return self._join(index)

    def chosen(self, index: int) -> list[int]:
        """Numbers of the recordings of a sequence; the first thing that is drawn for it."""
        speaker, count = self.plan(index)
        own = self._of_speaker[speaker]
        return [own[i] for i in torch.randint(len(own), (count,)).tolist()]

    def _join(self, index: int) -> Pair:
        chosen = self.chosen(index)
        gaps = torch.randint(self.max_gap + 1, (len(chosen) + 1,)).tolist()
        parts = [torch.zeros(gaps[0])]
        for number, gap in zip(chosen, gaps[1:], strict=True):
            parts += [self._wave(number), torch.zeros(gap)]
        wave = torch.cat(parts)
        level = wave.square().mean().sqrt() * 10 ** (_FLOOR_DB / 20)
        wave = wave + level * torch.randn(len(wave))
        if self.whole is not None:
            wave = self.whole(wave, self.sample_rate)
        return Pair(wave.clamp(-1, 1), self._text(chosen))

    def _wave(self, number: int) -> Tensor:
        wave = self.recordings[number].wave
        wave = wave.float() / INT16_SCALE if wave.dtype == torch.int16 else wave
        return wave if self.each is None else self.each(wave, self.sample_rate)

    def _text(self, chosen: Sequence[int]) -> str:
        return " ".join(self.names[self.recordings[number].digit] for number in chosen)

    def size(self, index: int) -> int:
        """Samples of sequence ``index`` as they are on average over what may be drawn."""
        speaker, count = self.plan(index)
        return round(count * self._mean[speaker] + (count + 1) * self.max_gap / 2)

    def spoken(self) -> Iterator[Spoken]:
        """The single digits: a sequence has room for its text when each clip has room for its digit and a space."""
        for recording in self.recordings:
            name = f"{recording.digit} by {recording.speaker} ({recording.sha256.hex()[:8]})"
            samples = shortest(shortest(len(recording.wave), self.each), self.whole)
            yield Spoken(name, samples, f"{self.names[recording.digit]} ")

    def texts(self) -> list[str]:
        """Transcripts of some sequences, and of one with every digit that there is."""
        known = {recording.digit for recording in self.recordings}
        texts = [" ".join(self.names[digit] for digit in sorted(known))]
        for index in range(len(self)):
            with drawn_from(0, 0, index):
                texts.append(self._text(self.chosen(index)))
        return texts

    def fingerprint(self) -> str:
        how = f"{self.count} {self.digits} {self.max_gap} {self.sample_rate} {self.names} {self.seed}"
        return digest([how, *(recording.sha256.hex() for recording in self.recordings)])
