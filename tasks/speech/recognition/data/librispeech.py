"""LibriSpeech: read English of audio books, in torchaudio's layout and with the published subsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.checks import Problems, missing
from tasks.speech.recognition.data.files import Entry, file_sets, locate_all
from tasks.speech.recognition.data.transcribed import RecognitionData, TranscribedSet

FOLDER = "LibriSpeech"
SUBSETS = (
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
)


class LibriSpeech(RecognitionData):
    """LibriSpeech (Panayotov et al. 2015): 1,000 hours of read English at 16 kHz.

    ``root/LibriSpeech/<subset>/<speaker>/<chapter>/`` holds ``<speaker>-<chapter>-<number>.flac`` and
    ``<speaker>-<chapter>.trans.txt``, as torchaudio lays it out. The first subset of ``test`` is the set ``test``,
    another one the set ``test_<subset>``, such as ``test_test_other``.

    Args:
        root: folder that holds ``LibriSpeech``.
        train: subsets of ``train``.
        val: subsets of ``val``.
        test: subsets of the test sets.
        lowercase: fold the case of transcripts, which are in capitals.
        max_seconds: clips that are longer are left out of ``train``; ``None`` keeps all.
        download: fetch subsets that are not there (360 MB to 30 GB each).
        **kwargs: ``sample_rate``, the changes in training and the arguments of the base; see RecognitionData.

    Raises:
        ValueError: a subset is unknown, in two sets, or a set has none.
    """

    def __init__(
        self,
        root: str,
        train: Sequence[str] = ("train-clean-100",),
        val: Sequence[str] = ("dev-clean",),
        test: Sequence[str] = ("test-clean",),
        lowercase: bool = True,
        max_seconds: float | None = 17.0,
        download: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)
        self.subsets = {"train": tuple(train), "val": tuple(val), "test": tuple(test)}
        wanted = [subset for subsets in self.subsets.values() for subset in subsets]
        if unknown := sorted(set(wanted) - set(SUBSETS)):
            raise ValueError(f"a subset must be one of {', '.join(SUBSETS)}: got {', '.join(unknown)}")
        if len(set(wanted)) < len(wanted) or not all(self.subsets.values()):
            raise ValueError(f"every set must have subsets of its own: got {self.subsets}")
        self.lowercase = lowercase
        self.max_seconds = max_seconds
        self.download = download

    def build(self) -> dict[str, TranscribedSet]:
        """Find the clips and their transcripts, and check every file.

        Raises:
            FileNotFoundError: a subset is absent and ``download`` is off.
            ValueError: clips are unreadable or have no transcript; the message names all of them.
            RuntimeError: the download failed.
        """
        problems = Problems("every clip must be readable and have a transcript")
        entries: list[Entry] = []
        splits: dict[str, list[int]] = {}
        for name, subsets in self._named().items():
            start = len(entries)
            for subset in subsets:
                entries += list_subset(self._folder(subset), problems)
            splits[name] = list(range(start, len(entries)))
        if self.lowercase:
            entries = [entry._replace(text=entry.text.lower()) for entry in entries]
        spans = locate_all(entries, problems)
        return file_sets(entries, spans, splits, self.sample_rate, self.augment, self.max_seconds)

    def _named(self) -> dict[str, tuple[str, ...]]:
        first, *others = self.subsets["test"]
        named = {"train": self.subsets["train"], "val": self.subsets["val"], "test": (first,)}
        return named | {f"test_{subset.replace('-', '_')}": (subset,) for subset in others}

    def _folder(self, subset: str) -> Path:
        """The folder of a subset, fetched if it is absent and may be."""
        folder = self.root / FOLDER / subset
        if not folder.is_dir():
            if not self.download:
                raise missing(f"{FOLDER}/{subset}/<speaker>/<chapter>/*.flac", self.root, self.download)
            from torchaudio.datasets import LIBRISPEECH

            self.root.mkdir(parents=True, exist_ok=True)
            try:
                LIBRISPEECH(self.root, url=subset, download=True)
            except (OSError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                raise RuntimeError(
                    f"a download must succeed before training: got {reason[0]} for {subset}"
                ) from error
        return folder


def list_subset(folder: Path, problems: Problems) -> list[Entry]:
    """The clips of a subset and their transcripts, sorted by name.

    Args:
        folder: ``<subset>``, with ``<speaker>/<chapter>/`` below it.
        problems: what was found wrong so far; clips without transcript and transcripts without clip are added.

    Raises:
        FileNotFoundError: there is no clip.
    """
    clips = {path.stem: path for path in sorted(folder.glob("*/*/*.flac"))}
    if not clips:
        raise missing("<speaker>/<chapter>/*.flac", folder)
    texts = dict(_transcripts(folder))
    for key in sorted(texts.keys() ^ clips.keys()):
        problems.add(f"{folder.name}/{key}", "lacks its clip" if key in texts else "lacks its transcript")
    return [
        Entry(path, texts[key], name=f"{folder.name}/{key}") for key, path in clips.items() if key in texts
    ]


def _transcripts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, text = line.strip().partition(" ")
            if key:
                yield key, text.strip()
