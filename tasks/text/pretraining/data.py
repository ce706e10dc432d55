"""Texts without labels: those of a labelled set, or a plain file with one text a line."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmattn.training.data import SizedSet, TaskData
from tasks.checks import check_fraction, check_splits, complete_splits, missing
from tasks.text.data.public import SST2
from tasks.text.data.tables import Format, TextTable


class Text(NamedTuple):
    """One text."""

    item: str


class TextBatch(NamedTuple):
    """B texts."""

    items: list[str]


class Texts(SizedSet):
    """Texts in memory: items are :class:`Text`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Text:
        return Text(self.texts[index])

    def size(self, index: int) -> int:
        """Characters of text ``index``."""
        return len(self.texts[index])

    def fingerprint(self) -> str:
        """sha256 over the texts, whatever their order."""
        rows = sorted(hashlib.sha256(text.encode()).digest() for text in self.texts)
        return hashlib.sha256(b"".join(rows)).hexdigest()


class TextData(TaskData):
    """Base of data that are texts alone; the arguments are those of :class:`~mmattn.training.data.TaskData`."""

    @abstractmethod
    def build(self) -> dict[str, Texts]:
        """Make the sets ``train``, ``val`` and ``test``."""

    def collate(self, examples: Sequence[Text]) -> TextBatch:
        """Put texts into one batch."""
        return TextBatch([example.item for example in examples])


class SST2Texts(TextData):
    """The sentences of SST-2 without their labels; see :class:`~tasks.text.data.SST2`.

    Only the training sentences are learnt from. Those of ``val`` and ``test`` tell how well hidden words are named.

    Args:
        root: folder of the three files.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.labelled = SST2(root)

    def build(self) -> dict[str, Texts]:
        """Read the three files.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: rows lack a sentence or a label.
        """
        return {name: Texts([e.item for e in _all(part)]) for name, part in self.labelled.sets.items()}


class TableTexts(TextData):
    """The texts of CSV, TSV or JSONL files with named columns; see :class:`~tasks.text.data.TextTable`.

    Args:
        train_file: file of the training texts, or of all texts.
        val_file: file of the validation texts; None cuts them from the training file.
        test_file: file of the test texts; None cuts them from the training file.
        text_columns: columns that make up the text.
        label_column: column of the label, which is not used but to cut the splits.
        separator: what stands between the text columns.
        format: format of the files; ``auto`` goes by their endings.
        columns: names of the columns of CSV or TSV files without a header; None reads the header.
        quoted: fields may stand in quotation marks; False takes quotation marks as they are.
        val_fraction: share of the training texts that becomes ``val`` where there is no file.
        test_fraction: share of the training texts that becomes ``test`` where there is no file.
        split_seed: seed of the cut: with the same one, a classifier sees the same splits.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.
    """

    def __init__(
        self,
        train_file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        text_columns: list[str] | None = None,
        label_column: str = "label",
        separator: str = " ",
        format: Format = "auto",
        columns: list[str] | None = None,
        quoted: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.labelled = TextTable(
            train_file, val_file, test_file, text_columns, label_column, separator, format, columns, quoted,
            val_fraction, test_fraction, split_seed,
        )  # fmt: skip

    def build(self) -> dict[str, Texts]:
        """Read the files and cut the splits.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: a column is absent, or rows lack text or label.
        """
        return {name: Texts([e.item for e in _all(part)]) for name, part in self.labelled.sets.items()}


class TextLines(TextData):
    """Plain UTF-8 files with one text a line; empty lines are left out.

    Args:
        train_file: file of the training texts, or of all texts.
        val_file: file of the validation texts; None cuts them from the training file.
        test_file: file of the test texts; None cuts them from the training file.
        val_fraction: share of the training texts that becomes ``val`` where there is no file.
        test_fraction: share of the training texts that becomes ``test`` where there is no file.
        split_seed: seed of the cut.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.

    Raises:
        ValueError: a fraction lies outside (0, 1).
    """

    def __init__(
        self,
        train_file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.files = {"train": train_file, "val": val_file, "test": test_file}
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed

    def build(self) -> dict[str, Texts]:
        """Read the files and cut the splits.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: a file is not UTF-8, or a split remains empty.
        """
        texts: list[str] = []
        splits: list[str] = []
        for split, file in self.files.items():
            found = [] if file is None else _lines(Path(file))
            texts += found
            splits += [split] * len(found)
        check_splits({"train": range(splits.count("train"))})
        cuts = {
            name: None if self.files[name] is not None else share for name, share in self.fractions.items()
        }
        sets = complete_splits([""] * len(texts), splits, cuts["val"], cuts["test"], self.split_seed)
        return {name: Texts([texts[i] for i in indices]) for name, indices in sets.items()}


def _all(examples: Any) -> list[Any]:
    return [examples[i] for i in range(len(examples))]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise missing("a text file with one text a line", path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"a file of texts must be UTF-8: got {path} ({error})") from error
