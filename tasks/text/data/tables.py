"""Labelled texts from CSV, TSV and JSONL files with named columns, and the text set of all table data."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmattn.training.data import ClassificationData, Example, ExampleSet
from tasks.checks import Problems, check_fraction, check_known, complete_splits, digest, missing

Format = Literal["auto", "csv", "tsv", "jsonl"]
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
DELIMITERS = {"csv": ",", "tsv": "\t"}


class Row(NamedTuple):
    """A text, its label, its split and where it stands (``file line``)."""

    text: str
    label: str
    split: str
    where: str


class TextSet(ExampleSet):
    """Texts in memory: items are ``str``.

    Args:
        texts: the texts.
        labels: label of each text.
        class_names: names of the classes.
        label_names: the label of each class as it stands in the data; the class names themselves if None.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        class_names: Sequence[str],
        label_names: Sequence[str] | None = None,
    ) -> None:
        self.texts = list(texts)
        self.class_names = tuple(class_names)
        index = {label: i for i, label in enumerate(label_names or class_names)}
        self.labels = [index[label] for label in labels]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Example:
        return Example(self.texts[index], self.labels[index])

    def size(self, index: int) -> int:
        """Characters of text ``index``."""
        return len(self.texts[index])

    def fingerprint(self) -> str:
        """sha256 over the texts and their labels."""
        pairs = zip(self.labels, self.texts, strict=True)
        return digest(((self.class_names[i], text.encode()) for i, text in pairs), self.class_names)


def _records(path: Path, kind: str, columns: Sequence[str] | None, quoted: bool) -> Iterator[tuple[int, Any]]:
    """Line number and columns of each row; a ``ValueError`` in their place for a line that is no row."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        if kind == "jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        record = json.loads(line)
                    except json.JSONDecodeError as error:
                        record = error
                    yield (
                        number,
                        record if isinstance(record, dict | ValueError) else ValueError("is no object"),
                    )
            return
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        rows = csv.reader(file, delimiter=DELIMITERS[kind], quoting=quoting)
        names = list(columns) if columns is not None else next(rows, [])
        yield 0, dict.fromkeys(names)
        for row in rows:
            if len(row) == len(names):
                yield rows.line_num, dict(zip(names, row, strict=True))
            elif row:
                yield rows.line_num, ValueError(f"holds {len(row)} columns instead of {len(names)}")


def read_table(
    path: Path,
    text_columns: Sequence[str],
    label_column: str,
    problems: Problems,
    split: str = "train",
    kind: Format = "auto",
    columns: Sequence[str] | None = None,
    quoted: bool = True,
    separator: str = " ",
) -> list[Row]:
    r"""Rows of a CSV, TSV or JSONL file (UTF-8); wrong rows are added to ``problems``.

    Args:
        path: the file.
        text_columns: columns that make up the text, joined by ``separator``.
        label_column: column of the label, a string or an integer.
        problems: takes every row without text or label.
        split: split that the rows belong to.
        kind: format; ``auto`` goes by the file's ending.
        columns: names of the columns of a CSV or TSV file that has no header.
        quoted: a CSV or TSV field may stand in ``"``; False takes quotation marks as they are.
        separator: what stands between the text columns.

    Raises:
        FileNotFoundError: the file is absent.
        ValueError: a column is absent, or the format is not known.
    """
    if not path.is_file():
        raise missing("a CSV, TSV or JSONL file", path)
    form = FORMATS.get(path.suffix.lower()) if kind == "auto" else kind
    if form is None:
        raise ValueError(f"format must be given for endings other than {', '.join(FORMATS)}: got {path.name}")
    wanted = [*text_columns, label_column]
    rows = []
    checked = False
    try:
        for number, record in _records(path, form, columns, quoted):
            where = f"{path.name} line {number}"
            if isinstance(record, ValueError):
                problems.add(where, record)
                continue
            absent = [name for name in wanted if name not in record]
            # JSONL objects can each differ: the first stands for the table, later ones are bad rows.
            if absent and not checked:
                present = ", ".join(map(repr, record)) or "none"
                asked = ", ".join(map(repr, absent))
                raise ValueError(f"columns must be among {present} in {path}: got {asked}")
            checked = True
            if number == 0:
                continue
            texts, label = [record.get(name) for name in text_columns], record.get(label_column)
            reason = _fault(texts, label, absent)
            if reason:
                problems.add(where, reason)
            else:
                rows.append(Row(separator.join(texts), str(label).strip(), split, where))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.add(path.name, error)
    return rows


def _fault(texts: Sequence[object], label: object, absent: Sequence[str]) -> str | None:
    """What is wrong with a row, or None."""
    if absent:
        return f"lacks {', '.join(absent)}"
    if not all(isinstance(text, str) for text in texts):
        return "the text is no string"
    if not any(str(text).strip() for text in texts):
        return "the text is empty"
    if isinstance(label, bool) or not isinstance(label, str | int):
        return f"the label {label!r} is neither string nor integer"
    return None if str(label).strip() else "the label is empty"


def sort_labels(labels: Sequence[str]) -> list[str]:
    """Different labels in order: by number if all are integers, by letter otherwise."""
    different = set(labels)
    if all(label.removeprefix("-").isdecimal() for label in different):
        return sorted(different, key=lambda label: (int(label), label))
    return sorted(different)


def make_sets(
    rows: Sequence[Row],
    problems: Problems,
    fractions: tuple[float | None, float | None],
    seed: int,
    names: dict[str, str] | None = None,
) -> dict[str, ExampleSet]:
    """Cut the splits that are not there and make the text sets.

    Args:
        rows: rows of all files.
        problems: what was found wrong so far; labels not in ``train``, or in ``names``, are added.
        fractions: shares of ``train`` that become ``val`` and ``test``; None cuts nothing.
        seed: seed of the cut.
        names: class name of each label, in order; None takes the labels of ``train``, sorted.

    Raises:
        ValueError: there are problems; the message names all of them.
    """
    labels = [row.label for row in rows]
    if not rows:
        problems.raise_any()
    splits = complete_splits(labels, [row.split for row in rows], *fractions, seed)
    if names is None:
        check_known(problems, [row.where for row in rows], labels, splits)
    else:
        for row in rows:
            if row.label not in names:
                problems.add(row.where, f"label {row.label!r} is none of {', '.join(names)}")
    problems.raise_any()
    order = sort_labels(labels) if names is None else list(names)
    shown = order if names is None else list(names.values())
    return {
        split: TextSet([rows[i].text for i in indices], [labels[i] for i in indices], shown, order)
        for split, indices in splits.items()
    }


class TextTable(ClassificationData):
    """Texts and labels in named columns of CSV, TSV or JSONL files.

    A split whose file is not given is cut from the training file, stratified by label. Labels may be strings
    or integers; the classes are the labels in order.

    Args:
        train_file: file of the training texts, or of all texts.
        val_file: file of the validation texts; None cuts them from the training file.
        test_file: file of the test texts; None cuts them from the training file.
        text_columns: columns that make up the text.
        label_column: column of the label.
        separator: what stands between the text columns.
        format: format of the files; ``auto`` goes by their endings.
        columns: names of the columns of CSV or TSV files without a header; None reads the header.
        quoted: fields may stand in quotation marks; False takes quotation marks as they are.
        val_fraction: share of the training texts that becomes ``val`` where there is no file.
        test_fraction: share of the training texts that becomes ``test`` where there is no file.
        split_seed: seed of the cut.
        **kwargs: ``batch_size``, ``num_workers`` and ``length_pool`` of the base.
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
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.files = {"train": train_file, "val": val_file, "test": test_file}
        self.text_columns = ["text"] if text_columns is None else text_columns
        self.label_column = label_column
        self.separator = separator
        self.format = format
        self.columns = columns
        self.quoted = quoted
        self.fractions = (
            val_fraction if val_file is None else None,
            test_fraction if test_file is None else None,
        )
        self.split_seed = split_seed

    def build(self) -> dict[str, ExampleSet]:
        """Read the files and cut the splits.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: a column is absent, rows lack text or label, or train lacks a label of val or test.
        """
        problems = Problems("every row must hold a text and a label of train")
        rows = []
        for split, file in self.files.items():
            if file is not None:
                rows += read_table(
                    Path(file),
                    self.text_columns,
                    self.label_column,
                    problems,
                    split,
                    self.format,
                    self.columns,
                    self.quoted,
                    self.separator,
                )
        return make_sets(rows, problems, self.fractions, self.split_seed)
