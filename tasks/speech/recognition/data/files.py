"""Sound files with transcripts, checked before training and read when they are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from torch import Tensor
from tqdm import tqdm

from mmattn.training.data import Pair
from tasks.checks import Problems
from tasks.speech.data.augment import Chain
from tasks.speech.data.waves import resampler
from tasks.speech.recognition.data.transcribed import Spoken, TranscribedSet, digest, shortest

_HEAD = (
    4096  # bytes of a file that its digest covers; the head of a FLAC file has a digest of all its samples
)


class Entry(NamedTuple):
    """A transcript and where its sound lies.

    Attributes:
        path: the sound file.
        text: its transcript.
        offset: seconds before the sound begins in the file.
        duration: seconds that it lasts; ``None``: to the end of the file.
        split: ``train``, ``val`` or ``test``.
        name: what to call it in a message.
    """

    path: Path
    text: str
    offset: float = 0.0
    duration: float | None = None
    split: str = "train"
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.path)


class Span(NamedTuple):
    """Where the sound of an entry lies in its file, in samples of the file, and a digest of the file."""

    start: int
    length: int
    rate: int
    sha256: str


def locate(entry: Entry) -> Span:
    """Find an entry's sound by the head of its file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no sound, is shorter than its head says, or ends before the entry does.
    """
    with entry.path.open("rb") as file:
        head = file.read(_HEAD)
    size = entry.path.stat().st_size
    if not size:
        raise ValueError("the file is empty")
    stated = int.from_bytes(head[4:8], "little") + 8
    # 0 and all ones stand for an unknown length; the last odd byte's padding is often left out
    if head[:4] == b"RIFF" and 8 < stated < 0xFFFFFFFF and size + 1 < stated:
        raise ValueError(f"holds {size} of {stated} bytes")
    try:
        info = soundfile.info(str(entry.path))
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from error
    start = round(entry.offset * info.samplerate)
    rest = info.frames - start
    count = rest if entry.duration is None else round(entry.duration * info.samplerate)
    if entry.offset < 0 or rest < 1:
        raise ValueError(f"offset {entry.offset} s lies outside its {info.duration:.2f} s")
    # durations in manifests are rounded: a hundredth of a second may be missing
    if count < 1 or count > rest + info.samplerate // 100:
        raise ValueError(f"duration {entry.duration} s does not fit into its {info.duration:.2f} s")
    sha256 = hashlib.sha256(head + size.to_bytes(8, "little")).hexdigest()
    return Span(start, min(count, rest), info.samplerate, sha256)


def read_span(path: Path, span: Span, sample_rate: int) -> Tensor:
    """The samples of a span ``[S]``, mono, float32, at ``sample_rate``.

    Raises:
        ValueError: the file is cut short or holds samples that are not finite; the message names it.
    """
    try:
        samples, _ = soundfile.read(
            path, frames=span.length, start=span.start, dtype="float32", always_2d=True
        )
    except soundfile.LibsndfileError as error:
        raise ValueError(f"a sound file must be readable: got {path} ({error.error_string})") from error
    if len(samples) < span.length:
        raise ValueError(
            f"a sound file must be whole: got {path} with {len(samples)} of {span.length} samples"
        )
    wave = torch.from_numpy(samples).mean(dim=1)
    if not bool(wave.isfinite().all()):
        raise ValueError(f"samples must be finite: got others in {path}")
    return wave if span.rate == sample_rate else resampler(span.rate, sample_rate)(wave)


class FileSet(TranscribedSet):
    """Sound files with transcripts; each is read when it is asked for.

    Args:
        entries: what is said where.
        spans: of each entry, from :func:`locate`.
        sample_rate: samples per second of the items.
        augment: random changes; ``None`` for evaluation.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        spans: Sequence[Span],
        sample_rate: int,
        augment: Chain | None = None,
    ) -> None:
        self.entries = list(entries)
        self.spans = list(spans)
        self.sample_rate = sample_rate
        self.augment = augment

    def __len__(self) -> int:
        return len(self.entries)

    def draw(self, index: int) -> Pair:
        entry = self.entries[index]
        wave = read_span(entry.path, self.spans[index], self.sample_rate)
        if self.augment is not None:
            wave = self.augment(wave, self.sample_rate).clamp(-1, 1)
        return Pair(wave, entry.text)

    def size(self, index: int) -> int:
        """Samples of item ``index``, before any change of speed."""
        span = self.spans[index]
        return -(-span.length * self.sample_rate // span.rate)  # as torchaudio's resampling rounds

    def spoken(self) -> Iterator[Spoken]:
        for index, entry in enumerate(self.entries):
            yield Spoken(str(entry), shortest(self.size(index), self.augment), entry.text)

    def fingerprint(self) -> str:
        """Digest of transcripts, places and the heads of the files, whatever their order and names."""
        pairs = zip(self.entries, self.spans, strict=True)
        rows = sorted(f"{span.sha256} {span.start} {span.length} {entry.text}" for entry, span in pairs)
        return digest([f"sample_rate={self.sample_rate}", *rows])


def locate_all(entries: Sequence[Entry], problems: Problems) -> list[Span]:
    """The span of each entry.

    Args:
        entries: what is said where.
        problems: what was found wrong so far; unreadable files and empty transcripts are added.

    Raises:
        ValueError: there are problems; the message names all of them.
    """
    spans = []
    for entry in tqdm(entries, "checking files", disable=None):
        if not entry.text.strip():
            problems.add(entry, "its transcript is empty")
        try:
            spans.append(locate(entry))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            problems.add(entry, reason)
    problems.raise_any()
    return spans


def file_sets(
    entries: Sequence[Entry],
    spans: Sequence[Span],
    splits: dict[str, list[int]],
    sample_rate: int,
    augment: Chain | None,
    max_seconds: float | None,
) -> dict[str, TranscribedSet]:
    """Make the sets.

    Args:
        entries: what is said where.
        spans: of each entry, from :func:`locate_all`.
        splits: indices of the entries of each set.
        sample_rate: samples per second of the items.
        augment: random changes of ``train``.
        max_seconds: what is longer is left out of ``train``.

    Raises:
        ValueError: nothing is left to train on.
    """
    sets: dict[str, TranscribedSet] = {}
    for name, indices in splits.items():
        most = float("inf") if name != "train" or max_seconds is None else max_seconds
        kept = [i for i in indices if spans[i].length <= most * spans[i].rate]
        if not kept:
            raise ValueError(f"max_seconds must leave something to train on: got {max_seconds}")
        chosen = [entries[i] for i in kept], [spans[i] for i in kept]
        sets[name] = FileSet(*chosen, sample_rate, augment if name == "train" else None)
    return sets
