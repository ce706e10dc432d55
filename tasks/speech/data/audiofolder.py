"""Labelled clips from a folder per class or a CSV manifest."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mmattn.training.data import ExampleSet
from tasks.checks import SPLITS, Problems, check_fraction, check_known, complete_splits, missing
from tasks.speech.data.waves import Clip, WaveData

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


class AudioFolder(WaveData):
    """Clips in one folder per class, or listed in a CSV manifest.

    Either ``root/{train,val,test}/<class>/*``, ``root/<class>/*``, or a manifest with the columns ``path``
    (below ``root``), ``label`` and, if wanted, ``split``. A split that is not there is cut from ``train``,
    stratified by class.

    Args:
        root: the folder.
        manifest: CSV file that lists the clips; None takes the folder's tree.
        val_fraction: share of ``train`` that becomes ``val`` where there is none.
        test_fraction: share of ``train`` that becomes ``test`` where there is none.
        split_seed: seed of the cut.
        **kwargs: ``sample_rate``, the changes in training and the arguments of the base; see WaveData.
    """

    def __init__(
        self,
        root: str,
        manifest: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.root = Path(root)
        self.manifest = None if manifest is None else Path(manifest)
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed

    def build(self) -> dict[str, ExampleSet]:
        """List the clips, cut the splits and read every clip.

        Raises:
            FileNotFoundError: there is no clip below ``root``, or no manifest.
            ValueError: clips are unreadable, rows are wrong, or a label of val or test is not in train.
        """
        problems = Problems("every clip must be readable and of a class of train")
        if self.manifest is not None:
            clips = read_manifest(self.manifest, self.root, problems)
        else:
            clips = list_clips(self.root)
        if not clips:
            problems.raise_any()
        labels = [clip.label for clip in clips]
        splits = complete_splits(labels, [clip.split for clip in clips], *self.fractions, self.split_seed)
        check_known(problems, [clip.path for clip in clips], labels, splits)
        return self.load(clips, splits, sorted(set(labels)), problems)


def list_clips(root: Path) -> list[Clip]:
    """Clips of ``root/{train,val,test}/<class>/*`` or ``root/<class>/*``, sorted by path.

    Raises:
        FileNotFoundError: there is none.
    """
    tops = {name: root / name for name in SPLITS if (root / name).is_dir()}
    clips = []
    for split, top in (tops or {"train": root}).items():
        files = sorted(path for path in top.glob("*/*") if path.suffix.lower() in SUFFIXES)
        clips += [
            Clip(path, path.parent.name, split)
            for path in files
            if path.parent.name[0] not in "._" and not path.name.startswith(".")
        ]
    if not clips:
        raise missing("clips as {train,val,test}/<class>/* or <class>/*", root)
    return clips


def read_manifest(manifest: Path, root: Path, problems: Problems) -> list[Clip]:
    """Clips listed in a CSV file with the columns path, label and perhaps split, sorted by path.

    Raises:
        FileNotFoundError: the manifest is absent.
        ValueError: a column is absent.
    """
    if not manifest.is_file():
        raise missing("a CSV manifest with the columns path, label and perhaps split", manifest)
    clips = []
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        present = list(reader.fieldnames or [])
        if not {"path", "label"} <= set(present):
            raise ValueError(f"a manifest must have the columns path and label: got {', '.join(present)}")
        for row in reader:
            # Of a short row, csv gives None for what is absent.
            path, label, split = row["path"], row["label"], row.get("split") or "train"
            where = f"{manifest.name} line {reader.line_num}"
            if not path or not label:
                problems.add(where, "lacks its path or label")
            elif split not in SPLITS:
                problems.add(where, f"split {split!r} is none of {', '.join(SPLITS)}")
            else:
                clips.append(Clip(root / path, label, split))
    return sorted(clips)
