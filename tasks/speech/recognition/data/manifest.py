"""Lists of sound files and transcripts as NeMo, ESPnet and Kaldi write them, and as CSV."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.checks import SPLITS, Problems, check_fraction, complete_splits, missing
from tasks.speech.recognition.data.files import Entry, file_sets, locate_all
from tasks.speech.recognition.data.transcribed import RecognitionData, TranscribedSet

LAYOUTS = "a .json or .jsonl file (NeMo), a .csv file, or a folder with wav.scp and text (Kaldi, ESPnet)"


class Manifest(RecognitionData):
    """Sound files and transcripts from lists of your own.

    A list is one of

    - NeMo's: a line of JSON for each clip with ``audio_filepath``, ``text`` and, if wanted, ``duration`` and
      ``offset`` in seconds;
    - CSV with the columns ``path``, ``text`` and, if wanted, ``split`` (``train``, ``val``, ``test``);
    - a folder as Kaldi and ESPnet have it: ``wav.scp`` (``<id> <path>``), ``text`` (``<id> <words>``) and, if wanted,
      ``segments`` (``<id> <recording> <start> <end>``). Commands in place of paths (``... |``) are not run.

    Relative paths are taken from the folder of their list, or from ``root``.

    Args:
        train: the list of ``train``.
        val: the list of ``val``; ``None`` cuts a share off ``train`` where no split says otherwise.
        test: the list of ``test``; likewise.
        root: folder that relative paths start from; ``None`` takes the folder of each list.
        lowercase: fold the case of transcripts.
        max_seconds: clips that are longer are left out of ``train``; ``None`` keeps all.
        val_fraction: share of ``train`` that becomes ``val`` where there is none.
        test_fraction: share of ``train`` that becomes ``test`` where there is none.
        split_seed: seed of the cut.
        **kwargs: ``sample_rate``, the changes in training and the arguments of the base; see RecognitionData.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        root: str | None = None,
        lowercase: bool = True,
        max_seconds: float | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.lists = {"train": Path(train)}
        self.lists |= {name: Path(path) for name, path in (("val", val), ("test", test)) if path is not None}
        self.root = None if root is None else Path(root)
        self.lowercase = lowercase
        self.max_seconds = max_seconds
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed

    def build(self) -> dict[str, TranscribedSet]:
        """Read the lists, cut the splits and check every file.

        Raises:
            FileNotFoundError: a list is absent.
            ValueError: files are unreadable, transcripts empty or lines wrong; the message names all of them.
        """
        problems = Problems("every clip must be readable and have a transcript")
        entries: list[Entry] = []
        for split, path in self.lists.items():
            found = read_list(path, self.root, problems)
            entries += found if split == "train" else [entry._replace(split=split) for entry in found]
        spans = locate_all(entries, problems)
        if self.lowercase:
            entries = [entry._replace(text=entry.text.lower()) for entry in entries]
        splits = complete_splits(
            [""] * len(entries), [entry.split for entry in entries], *self.fractions, self.split_seed
        )
        return file_sets(entries, spans, splits, self.sample_rate, self.augment, self.max_seconds)


def read_list(path: Path, root: Path | None, problems: Problems) -> list[Entry]:
    """The entries of a list of any of the layouts.

    Args:
        path: the list.
        root: folder that relative paths start from; ``None`` takes the folder of the list.
        problems: what was found wrong so far; wrong lines are added.

    Raises:
        FileNotFoundError: the list is absent.
        ValueError: it is of no known layout.
    """
    if not path.exists():
        raise missing(LAYOUTS, path)
    base = (path if path.is_dir() else path.parent) if root is None else root
    if path.is_dir():
        return list(_kaldi(path, base, problems))
    if path.suffix.lower() in (".json", ".jsonl"):
        return list(_json_lines(path, base, problems))
    if path.suffix.lower() == ".csv":
        return list(_table(path, base, problems))
    raise ValueError(f"a list must be {LAYOUTS}: got {path}")


def _json_lines(path: Path, base: Path, problems: Problems) -> Iterator[Entry]:
    for number, line in _lines(path):
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
            text, file = row["text"], row["audio_filepath"]
            offset, duration = row.get("offset"), row.get("duration")
            times = float(offset or 0.0), None if duration is None else float(duration)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else f"is not as expected: {error}"
            problems.add(where, reason)
            continue
        yield Entry(base / str(file), str(text).strip(), *times, name=f"{where}: {file}")


def _table(path: Path, base: Path, problems: Problems) -> Iterator[Entry]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        present = list(reader.fieldnames or [])
        if not {"path", "text"} <= set(present):
            raise ValueError(f"a CSV list must have the columns path and text: got {', '.join(present)}")
        for row in reader:
            # of a short row, csv gives None for what is absent
            name, text, split = row["path"], row["text"] or "", row.get("split") or "train"
            where = f"{path.name} line {reader.line_num}"
            if not name:
                problems.add(where, "lacks its path")
            elif split not in SPLITS:
                problems.add(where, f"split {split!r} is none of {', '.join(SPLITS)}")
            else:
                yield Entry(base / name, text.strip(), split=split, name=f"{where}: {name}")


def _kaldi(folder: Path, base: Path, problems: Problems) -> Iterator[Entry]:
    for needed in ("wav.scp", "text"):
        if not (folder / needed).is_file():
            raise missing("wav.scp and text", folder)
    files = dict(_keyed(folder / "wav.scp"))
    texts = dict(_keyed(folder / "text"))
    segments = folder / "segments"
    times = dict(_keyed(segments)) if segments.is_file() else {key: f"{key} 0 -1" for key in files}
    for key in sorted(times.keys() | texts.keys()):
        where = f"{folder.name}/{key}"
        if key not in texts or key not in times:
            problems.add(where, "lacks its transcript" if key not in texts else "lacks its sound")
            continue
        match = re.fullmatch(r"(\S+)\s+(\S+)\s+(\S+)", times[key])
        recording, begin, end = match.groups() if match else ("", "", "")
        if recording not in files or not _is_number(begin) or not _is_number(end):
            problems.add(
                where, f"its segment must be a recording of wav.scp, start and end: got {times[key]}"
            )
        elif files[recording].endswith("|"):
            problems.add(where, "is a command, and commands are not run")
        else:
            duration = None if float(end) < 0 else float(end) - float(begin)
            yield Entry(base / files[recording], texts[key], float(begin), duration, name=where)


def _keyed(path: Path) -> Iterator[tuple[str, str]]:
    """Key and rest of each line."""
    for _, line in _lines(path):
        key, *rest = line.split(maxsplit=1)
        yield key, rest[0].strip() if rest else ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
