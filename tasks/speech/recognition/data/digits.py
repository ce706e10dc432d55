"""Connected digits: clips of the Free Spoken Digit Dataset joined into sequences of one speaker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmattn.training.data import ExampleSet
from tasks.checks import Problems
from tasks.speech.data.augment import WaveTransform
from tasks.speech.data.fsdd import FSDD, NAME
from tasks.speech.data.waves import Clip, WaveAugment, WaveSet, chain
from tasks.speech.recognition.data.digit_sequences import DigitSequences, Recording, Transcript
from tasks.speech.recognition.data.transcribed import RecognitionData, TranscribedSet

VAL_SEED, TEST_SEED = 21011, 31011
"""With the index, what the sequences of validation and test are drawn from: the same in every run."""


class FSDDSpeakers(FSDD):
    """:class:`FSDD`, whose recordings also say who speaks; for the arguments see there."""

    def recordings(self) -> dict[str, list[Recording]]:
        """The recordings of ``train``, ``val`` and ``test``.

        Raises:
            FileNotFoundError: the recordings are absent and ``download`` is off.
            ValueError: recordings are unreadable or misnamed; the message names all of them.
        """
        return {name: self._of(name, part) for name, part in self.sets.items()}

    def load(
        self,
        clips: Sequence[Clip],
        splits: dict[str, list[int]],
        class_names: Sequence[str],
        problems: Problems,
    ) -> dict[str, ExampleSet]:
        """Read all clips and remember where each came from."""
        self._paths = {name: [clips[i].path for i in indices] for name, indices in splits.items()}
        return super().load(clips, splits, class_names, problems)

    def _of(self, name: str, part: WaveSet) -> list[Recording]:
        found = []
        for path, wave, sha256 in zip(self._paths[name], part.waves, part.digests, strict=True):
            match = NAME.fullmatch(path.name)
            assert match is not None, "FSDD refused other names"
            found.append(Recording(wave, int(match["digit"]), match["speaker"], sha256))
        return found


class ConnectedDigits(RecognitionData):
    """Sequences of three to seven digits joined from the Free Spoken Digit Dataset, one speaker each.

    Training draws its sequences anew in every epoch from takes 8 and up; ``val`` (from takes 5 to 7) and ``test``
    (from takes 0 to 4 alone, the official test set) are the same in every run.

    Args:
        root: folder that holds ``recordings/{digit}_{speaker}_{take}.wav``.
        min_digits: digits of the shortest sequence.
        max_digits: digits of the longest.
        max_gap: longest gap in seconds.
        transcript: ``"digits"``: ``"3 1 4"``; ``"words"``: ``"three one four"``.
        train_sequences: sequences in an epoch.
        val_sequences: sequences of ``val``.
        test_sequences: sequences of ``test``.
        val_takes: takes 5, 6, ... of each speaker and digit, so many of them, are for ``val``.
        clip_transforms: changes of each clip in training, before ``transforms`` change the sequence.
        gain_db: in training, change the level of each clip by up to so many decibels either way.
        speed: in training, play a third of the clips each faster and slower by this share.
        download: fetch the recordings from GitHub if they are not there.
        **kwargs: ``sample_rate``, ``noise``, ``transforms`` and the arguments of the base; see RecognitionData.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        root: str,
        min_digits: int = 3,
        max_digits: int = 7,
        max_gap: float = 0.2,
        transcript: Transcript = "digits",
        train_sequences: int = 2000,
        val_sequences: int = 200,
        test_sequences: int = 300,
        val_takes: int = 3,
        clip_transforms: Sequence[WaveTransform] = (),
        gain_db: float = 0.0,
        speed: float = 0.0,
        download: bool = False,
        sample_rate: int = 8000,
        **kwargs: Any,
    ) -> None:
        super().__init__(sample_rate=sample_rate, speed=speed, gain_db=gain_db, **kwargs)
        if not 1 <= min_digits <= max_digits:
            raise ValueError(
                f"min_digits must lie between 1 and max_digits: got {min_digits} and {max_digits}"
            )
        if not (math.isfinite(max_gap) and max_gap >= 0):
            raise ValueError(f"max_gap must not be negative: got {max_gap}")
        if transcript not in ("digits", "words"):
            raise ValueError(f"transcript must be 'digits' or 'words': got {transcript!r}")
        counts = {"train": train_sequences, "val": val_sequences, "test": test_sequences}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}_sequences must be at least 1: got {count}")
        self.fsdd = FSDDSpeakers(root, val_takes=val_takes, download=download, sample_rate=sample_rate)
        self.digits = (min_digits, max_digits)
        self.max_gap = max_gap
        self.transcript: Transcript = transcript
        self.counts = counts
        self.each = chain(WaveAugment(0, gain_db, speed), clip_transforms)
        self.augment = chain(WaveAugment(noise=self.noise), self.transforms)

    def build(self) -> dict[str, TranscribedSet]:
        """Read the recordings and plan the sequences.

        Raises:
            FileNotFoundError: the recordings are absent and ``download`` is off.
            ValueError: recordings are unreadable or misnamed; the message names all of them.
            RuntimeError: the download failed.
        """
        recordings = self.fsdd.recordings()
        return {
            name: DigitSequences(
                recordings[name],
                count,
                self.digits,
                round(self.max_gap * self.sample_rate),
                self.sample_rate,
                self.transcript,
                self.each if name == "train" else None,
                self.augment if name == "train" else None,
                {"train": None, "val": VAL_SEED, "test": TEST_SEED}[name],
            )
            for name, count in self.counts.items()
        }
