"""Free Spoken Digit Dataset: ten digits by six speakers, 50 takes each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from mmattn.training.data import ExampleSet
from tasks.checks import Problems, check_splits, fetch, missing
from tasks.speech.data.waves import Clip, WaveData, WaveSet

URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
UNPACKED = "free-spoken-digit-dataset-master"
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<take>\d+)\.wav")
CLASSES = tuple("0123456789")
# The data set's own README: takes 0 to 4 of every speaker and digit are the test set.
TEST_TAKES = 5
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


class FSDD(WaveData):
    """Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset): 3,000 clips at 8 kHz.

    The test set is the official one, takes 0 to 4 of every speaker and digit (300 clips), or, with
    ``held_out_speaker``, all clips of that speaker; all others are for training then.

    Args:
        root: folder that holds ``recordings/{digit}_{speaker}_{take}.wav``.
        held_out_speaker: speaker whose clips are the test set, such as ``theo``; None takes the official one.
        val_speaker: with ``held_out_speaker``, another speaker, whose clips are ``val`` and not in ``train``, so
            that settings for unheard speakers are chosen on one. None takes ``val_takes`` of those in ``train``.
        val_takes: takes 5, 6, ... of each speaker and digit, so many of them, are ``val``.
        espeak_clips: so many digits spoken by the voices of eSpeak NG are added to ``train``.
        download: fetch the recordings from GitHub if they are not there.
        **kwargs: ``sample_rate``, the changes in training and the arguments of the base; see WaveData.
    """

    def __init__(
        self,
        root: str,
        held_out_speaker: str | None = None,
        val_speaker: str | None = None,
        val_takes: int = 3,
        espeak_clips: int = 0,
        download: bool = False,
        sample_rate: int = 8000,
        **kwargs: Any,
    ) -> None:
        super().__init__(sample_rate=sample_rate, **kwargs)
        if val_takes < 1:
            raise ValueError(f"val_takes must be at least 1: got {val_takes}")
        if espeak_clips < 0:
            raise ValueError(f"espeak_clips must not be negative: got {espeak_clips}")
        if val_speaker is not None and (held_out_speaker is None or held_out_speaker == val_speaker):
            raise ValueError(
                f"val_speaker must be another than held_out_speaker: got {val_speaker!r}, {held_out_speaker!r}"
            )
        self.root = Path(root)
        self.held_out_speaker = held_out_speaker
        self.val_speaker = val_speaker
        self.val_takes = val_takes
        self.espeak_clips = espeak_clips
        self.download = download

    def build(self) -> dict[str, ExampleSet]:
        """Find the recordings, split them by take or speaker and read them.

        Raises:
            FileNotFoundError: the recordings are absent and ``download`` is off.
            ValueError: recordings are unreadable or misnamed, or a speaker held out is not among them.
            RuntimeError: the download failed, or eSpeak NG does not start.
            ImportError: ``espeak_clips`` are wanted and espeakng-loader is not installed.
        """
        problems = Problems("every recording must be readable and named {digit}_{speaker}_{take}.wav")
        clips = []
        for path in sorted(self._recordings().glob("*.wav")):
            match = NAME.fullmatch(path.name)
            if match is None:
                problems.add(path, "the name does not tell digit, speaker and take")
            else:
                split = self._split(match["speaker"], int(match["take"]))
                clips.append(Clip(path, match["digit"], split))
        self._check_speakers(clips)
        splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for i, clip in enumerate(clips):
            splits[clip.split].append(i)
        sets = self.load(clips, splits, CLASSES, problems)
        check_splits(splits)
        if self.espeak_clips:
            from tasks.speech.data.spoken_digits import spoken_digits

            spoken = spoken_digits(self.espeak_clips, self.sample_rate)
            sets["train"] = cast(WaveSet, sets["train"]).joined(spoken)
        return sets

    def _split(self, speaker: str, take: int) -> str:
        held_out = take < TEST_TAKES if self.held_out_speaker is None else speaker == self.held_out_speaker
        if held_out:
            return "test"
        if self.val_speaker is not None:
            return "val" if speaker == self.val_speaker else "train"
        return "val" if TEST_TAKES <= take < TEST_TAKES + self.val_takes else "train"

    def _check_speakers(self, clips: list[Clip]) -> None:
        speakers = {clip.path.name.split("_")[1] for clip in clips}
        wanted = {"held_out_speaker": self.held_out_speaker, "val_speaker": self.val_speaker}
        for name, speaker in wanted.items():
            if speaker is not None and speaker not in speakers:
                raise ValueError(f"{name} must be one of {', '.join(sorted(speakers))}: got {speaker!r}")

    def _recordings(self) -> Path:
        """Folder of the recordings: in ``root``, or in the unpacked archive below it."""
        places = (self.root / "recordings", self.root / UNPACKED / "recordings")
        for place in places:
            if place.is_dir() and any(place.glob("*.wav")):
                return place
        if not self.download:
            raise missing("recordings/{digit}_{speaker}_{take}.wav", self.root, self.download)
        fetch(URL, self.root / UNPACKED, inner=UNPACKED)
        return places[1]
