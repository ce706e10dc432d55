"""Texts and their translations: the base of all data of translation, and files of two columns or two languages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmattn.training.data import Pair, SizedSet, TaskData
from tasks.checks import Problems, check_fraction, complete_splits, digest, fetch, missing
from tasks.text.translation.data.files import Line, present, read_lines, read_pairs

MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
MULTI30K_FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}


class ParallelSet(SizedSet):
    """Texts and translations in memory: items are :class:`~mmattn.training.data.Pair` of ``str`` and ``str``.

    Args:
        pairs: text and translation of each.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def size(self, index: int) -> int:
        """Characters of both texts of pair ``index``."""
        item, target = self.pairs[index]
        return len(item) + len(target)

    def fingerprint(self) -> str:
        """sha256 over the texts and their translations, whatever their order."""
        return digest(((pair.target, pair.item.encode()) for pair in self.pairs), ())


class ParallelData(TaskData):
    """Base of the data of translation; the arguments are those of :class:`~mmattn.training.data.TaskData`.

    ``max_size`` counts characters of both sides.
    """

    @abstractmethod
    def build(self) -> dict[str, ParallelSet]:
        """Make the sets ``train``, ``val`` and ``test``; further test sets have names ``test_...``.

        Raises:
            FileNotFoundError: the data are absent and may not be downloaded.
            ValueError: files are unreadable or do not fit each other; the message names all of them.
        """

    def training_targets(self) -> list[str]:
        """The training translations, for a tokenizer that learns from them."""
        examples = self.sets["train"]
        return [examples[i].target for i in range(len(examples))]


class Multi30k(ParallelData):
    """Multi30k (Elliott et al. 2016): captions of pictures in several languages.

    ``train``, ``val`` and ``test_2016_flickr`` of task 1 with one caption a line, raw: 29,000, 1,014 and 1,000 pairs.
    The files end with the language (``train.de``) and may be compressed (``train.de.gz``).

    Args:
        root: folder of the six files.
        source: language to translate from, as the files end.
        target: language to translate to.
        download: fetch the files from the project's repository at GitHub if they are not there.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.
    """

    def __init__(
        self, root: str, source: str = "de", target: str = "en", download: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if source == target:
            raise ValueError(f"source and target must be two languages: got {source!r} twice")
        self.root = Path(root)
        self.languages = (source, target)
        self.download = download

    def build(self) -> dict[str, ParallelSet]:
        """Read the six files.

        Raises:
            FileNotFoundError: a file is absent and ``download`` is off.
            ValueError: two files differ in their number of lines, or lines are empty; all are named.
            RuntimeError: the download failed.
        """
        wanted = [f"{stem}.{language}" for stem in MULTI30K_FILES.values() for language in self.languages]
        absent = [name for name in wanted if not present(self.root / name)]
        if absent and not self.download:
            raise missing(", ".join(wanted) + " (plain or .gz)", self.root, self.download)
        for name in absent:
            fetch(f"{MULTI30K_URL}{name}.gz", self.root / f"{name}.gz")
        problems = Problems("every line must hold a text and its translation")
        lines: list[Line] = []
        for split, stem in MULTI30K_FILES.items():
            files = [present(self.root / f"{stem}.{language}") for language in self.languages]
            assert files[0] is not None
            assert files[1] is not None
            lines += read_lines(files[0], files[1], problems, split)
        return make_sets(lines, problems, (None, None), 0)


class ParallelText(ParallelData):
    """Texts and translations from files of two columns, or from two files line by line.

    A table is CSV, TSV or JSONL by its ending; two files of lines are any text. All may be compressed (``.gz``).
    A split whose file is not given is cut from the training file.

    Args:
        train_file: table of the training texts, or of all texts; or the file of the source lines.
        val_file, test_file: the same of the other splits; ``None`` cuts them from the training texts.
        target_train_file, target_val_file, target_test_file: file of the target lines for each file of source
            lines; ``None`` where the files are tables.
        source_column: column of the texts, by its name.
        target_column: column of their translations.
        columns: names of the columns of CSV or TSV files without a header; ``None`` reads the header.
        quoted: fields of CSV or TSV files may stand in quotation marks; False takes quotation marks as they are.
        val_fraction: share of the training texts that becomes ``val`` where there is no file.
        test_fraction: share of the training texts that becomes ``test`` where there is no file.
        split_seed: seed of the cut.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.

    Raises:
        ValueError: a share is out of range, or some splits are tables and others lines.
    """

    def __init__(
        self,
        train_file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        target_train_file: str | None = None,
        target_val_file: str | None = None,
        target_test_file: str | None = None,
        source_column: str = "source",
        target_column: str = "target",
        columns: list[str] | None = None,
        quoted: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.files = {"train": train_file, "val": val_file, "test": test_file}
        self.target_files = {"train": target_train_file, "val": target_val_file, "test": target_test_file}
        for split, file in self.files.items():
            if file is not None and (self.target_files[split] is None) != (target_train_file is None):
                raise ValueError(
                    f"each file of lines must have its target file: got none for {split} or train"
                )
            if file is None and self.target_files[split] is not None:
                raise ValueError(f"each target file must have its source file: got none for {split}")
        self.pair_columns = (source_column, target_column)
        self.columns = columns
        self.quoted = quoted
        self.fractions = (
            val_fraction if val_file is None else None,
            test_fraction if test_file is None else None,
        )
        self.split_seed = split_seed

    def build(self) -> dict[str, ParallelSet]:
        """Read the files and cut the splits.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: a column is absent, rows lack a text, or two files differ in their number of lines.
        """
        problems = Problems("every line must hold a text and its translation")
        lines: list[Line] = []
        for split, file in self.files.items():
            target = self.target_files[split]
            if file is not None and target is not None:
                lines += read_lines(Path(file), Path(target), problems, split)
            elif file is not None:
                lines += read_pairs(Path(file), self.pair_columns, problems, split, self.columns, self.quoted)
        return make_sets(lines, problems, self.fractions, self.split_seed)


def make_sets(
    lines: Sequence[Line], problems: Problems, fractions: tuple[float | None, float | None], seed: int
) -> dict[str, ParallelSet]:
    """Cut the splits that are not there and make the sets.

    Args:
        lines: of all files.
        problems: what was found wrong.
        fractions: shares of ``train`` that become ``val`` and ``test``; None cuts nothing.
        seed: seed of the cut.

    Raises:
        ValueError: there are problems, all of which the message names, or a split is empty.
    """
    problems.raise_any()
    splits = complete_splits([""] * len(lines), [line.split for line in lines], *fractions, seed)
    return {
        split: ParallelSet([Pair(lines[i].item, lines[i].target) for i in indices])
        for split, indices in splits.items()
    }
