"""Pairs of texts from files of two columns, and from two files line by line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.checks import Problems, missing

DELIMITERS = {".csv": ",", ".tsv": "\t"}
LINES_OF_JSON = (".jsonl", ".ndjson")


class Line(NamedTuple):
    """A text, its translation, its split and where it stands (``file line``)."""

    item: str
    target: str
    split: str
    where: str


def present(path: Path) -> Path | None:
    """The file itself or its compressed form, ``.gz``; None where there is neither."""
    compressed = path.with_name(path.name + ".gz")
    return path if path.is_file() else compressed if compressed.is_file() else None


def read_lines(source: Path, target: Path, problems: Problems, split: str = "train") -> list[Line]:
    """Pairs of two files in which lines of the same number belong together; wrong ones are added to ``problems``.

    Raises:
        FileNotFoundError: a file is absent.
    """
    texts = [_text(path, problems) for path in (source, target)]
    # str.splitlines would also cut at characters that stand inside of lines, such as U+2028
    sides = [[line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] for text in texts]
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0])} lines against {len(sides[1])} of {target.name}"
        problems.add(source.name, counts)
        return []
    lines = []
    for number, (item, translation) in enumerate(zip(*sides, strict=True), 1):
        where = f"{source.name} line {number}"
        fault = _fault(item, translation)
        if fault:
            problems.add(where, fault)
        else:
            lines.append(Line(item.strip(), translation.strip(), split, where))
    return lines


def read_pairs(
    path: Path,
    pair_columns: tuple[str, str],
    problems: Problems,
    split: str = "train",
    columns: Sequence[str] | None = None,
    quoted: bool = True,
) -> list[Line]:
    """Pairs of a CSV, TSV or JSONL file (UTF-8); wrong rows are added to ``problems``.

    Raises:
        FileNotFoundError: the file is absent.
        ValueError: a column is absent, or the ending is not known.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in (*DELIMITERS, *LINES_OF_JSON):
        known = ", ".join((*DELIMITERS, *LINES_OF_JSON))
        raise ValueError(f"a table must end with one of {known}, or have a target file: got {path.name}")
    text = _text(path, problems)
    if not text.strip():
        problems.add(path.name, "holds no text")
        return []
    records = _from_json(text) if ending in LINES_OF_JSON else _from_csv(text, ending, columns, quoted)
    lines: list[Line] = []
    checked = False
    try:
        for number, record in records:
            where = f"{path.name} line {number}"
            if isinstance(record, ValueError):
                problems.add(where, record)
                continue
            absent = [name for name in pair_columns if name not in record]
            if absent and not checked:  # the first stands for the table; JSONL objects can each differ
                present, asked = ", ".join(map(repr, record)) or "none", ", ".join(map(repr, absent))
                raise ValueError(f"columns must be among {present} in {path}: got {asked}")
            checked = True
            if number == 0:
                continue
            item, translation = (record.get(name) for name in pair_columns)
            fault = f"lacks {', '.join(absent)}" if absent else _fault(item, translation)
            if fault:
                problems.add(where, fault)
            else:
                lines.append(Line(str(item).strip(), str(translation).strip(), split, where))
    except csv.Error as error:
        problems.add(path.name, error)
    return lines


def _text(path: Path, problems: Problems) -> str:
    if not path.is_file():
        raise missing("a file of texts", path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        problems.add(path.name, error)
        return ""


def _fault(item: object, target: object) -> str | None:
    """What is wrong with a pair, or None."""
    for name, text in (("text", item), ("translation", target)):
        if not isinstance(text, str):
            return f"the {name} is no string"
        if not text.strip():
            return f"the {name} is empty"
    return None


def _from_json(text: str) -> Iterator[tuple[int, Any]]:
    """Line number and columns of each row; a ``ValueError`` in their place for a line that is no row."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            record: Any
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                record = error
            yield number, record if isinstance(record, dict | ValueError) else ValueError("is no object")


def _from_csv(
    text: str, ending: str, columns: Sequence[str] | None, quoted: bool
) -> Iterator[tuple[int, Any]]:
    """As :func:`_from_json`; line 0 stands for the header."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[ending], quoting=quoting)
    names = list(columns) if columns is not None else next(rows, [])
    yield 0, dict.fromkeys(names)
    for row in rows:
        if len(row) == len(names):
            yield rows.line_num, dict(zip(names, row, strict=True))
        elif row:
            yield rows.line_num, ValueError(f"holds {len(row)} columns instead of {len(names)}")
