"""Speech Commands: one-second clips of single words, in torchaudio's layout and with the published splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mmattn.training.data import ExampleSet
from tasks.checks import Problems, check_splits, fetch, missing
from tasks.speech.data.waves import Clip, WaveData

URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
FOLDER = Path("SpeechCommands") / "speech_commands_v0.02"
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
CORE_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHER_WORDS = ("backward", "bed", "bird", "cat", "dog", "follow", "forward", "happy", "house", "learn")
RARE_WORDS = ("marvin", "sheila", "tree", "visual", "wow")
WORDS = tuple(sorted(CORE_WORDS + DIGITS + OTHER_WORDS + RARE_WORDS))


class SpeechCommands(WaveData):
    """Speech Commands v0.02 (Warden, 2018): 105,829 clips of 35 words at 16 kHz.

    ``validation_list.txt`` and ``testing_list.txt`` say what is ``val`` and ``test``; all else is ``train``.
    With ten words the other clips are left out; there is no class for unknown words or silence.

    Args:
        root: folder that holds ``SpeechCommands/speech_commands_v0.02/<word>/*.wav``, as torchaudio lays it
            out, or that folder itself.
        num_words: all 35 words, or the ten core commands.
        download: fetch the archive (2.3 GB) if the clips are not there.
        **kwargs: ``sample_rate``, the changes in training and the arguments of the base; see WaveData.
    """

    def __init__(
        self, root: str, num_words: Literal[35, 10] = 35, download: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_words not in (35, 10):
            raise ValueError(f"num_words must be 35 or 10: got {num_words}")
        self.root = Path(root)
        self.words = WORDS if num_words == 35 else tuple(sorted(CORE_WORDS))
        self.download = download

    def build(self) -> dict[str, ExampleSet]:
        """List the clips, take the published splits and read every clip.

        Raises:
            FileNotFoundError: the clips or lists are absent and ``download`` is off.
            ValueError: clips are unreadable, of another word, or listed and absent; all of them are named.
            RuntimeError: the download failed.
        """
        folder = self._folder()
        problems = Problems("every clip must be readable, of a known word, and in one list at most")
        split_of = self._lists(folder, problems)
        clips = []
        for path in sorted(folder.glob("*/*.wav")):
            word = path.parent.name
            if word.startswith("_"):
                continue
            if word not in WORDS:
                problems.add(path, f"{word!r} is none of the 35 words")
            elif word in self.words:
                clips.append(Clip(path, word, split_of.get(f"{word}/{path.name}", "train")))
        splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        for i, clip in enumerate(clips):
            splits[clip.split].append(i)
        sets = self.load(clips, splits, self.words, problems)
        check_splits(splits)
        return sets

    def _lists(self, folder: Path, problems: Problems) -> dict[str, str]:
        """Split of every listed clip, by ``word/name.wav``."""
        split_of: dict[str, str] = {}
        for split, name in LISTS.items():
            for entry in (folder / name).read_text().split():
                if entry in split_of:
                    problems.add(entry, f"{name} lists it after {LISTS[split_of[entry]]} did")
                elif not (folder / entry).is_file():
                    problems.add(folder / entry, f"{name} lists it and it is absent")
                split_of[entry] = split
        return split_of

    def _folder(self) -> Path:
        places = (self.root, self.root / FOLDER)
        for place in places:
            if all((place / name).is_file() for name in LISTS.values()):
                return place
        if not self.download:
            layout = f"{FOLDER}/<word>/*.wav with {' and '.join(LISTS.values())}"
            raise missing(layout, self.root, self.download)
        fetch(URL, places[1], sha256=SHA256)
        return places[1]
