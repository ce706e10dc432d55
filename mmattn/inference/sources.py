"""What a user names: files, folders, globs and lines from standard input, one after the other."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmattn.inference.inputs import Inputs

STDIN = "-"


class Source(NamedTuple):
    """One item to be read, or why it cannot be.

    Attributes:
        name: how it is called in what is written: a path, or a path and the number of a line.
        path: of a file that is one item; ``None`` for a line.
        line: the text of a line.
        problem: why there is nothing to read; empty where there is.
    """

    name: str
    path: Path | None = None
    line: str | None = None
    problem: str = ""


def sources(names: Sequence[str], inputs: Inputs, stdin: Iterable[str]) -> Iterator[Source]:
    """The items behind the names, in the order of the names, sorted within a folder and a glob.

    Args:
        names: files, folders (searched to the bottom for the endings of ``inputs``; hidden files are passed over),
            globs (``**`` goes through folders), or ``-`` for standard input, which holds texts or paths line by line.
        inputs: what is looked for.
        stdin: lines of standard input, read as they come.
    """
    for name in names:
        if name != STDIN:
            for path in _paths(name, inputs):
                yield from _of_path(path, inputs)
        elif inputs.by_line:
            yield from _lines("stdin", stdin)
        else:
            for line in stdin:
                if line.strip():
                    yield from _of_path(Path(line.rstrip("\r\n")), inputs)


def _paths(name: str, inputs: Inputs) -> Iterator[Path]:
    path = Path(name)
    found = [path] if path.exists() else [Path(one) for one in sorted(glob.glob(name, recursive=True))]
    for one in found or [path]:
        if one.is_dir():
            files = (p for p in one.rglob("*") if p.suffix.lower() in inputs.suffixes and p.is_file())
            yield from sorted(
                p for p in files if not any(n.startswith(".") for n in p.relative_to(one).parts)
            )
        else:
            yield one


def _of_path(path: Path, inputs: Inputs) -> Iterator[Source]:
    if not path.exists():
        pattern = any(sign in str(path) for sign in "*?[")
        yield Source(str(path), problem="fits no file" if pattern else "does not exist")
    elif inputs.by_line:
        try:
            with path.open(encoding="utf-8-sig") as file:
                yield from _lines(str(path), file)
        except (OSError, UnicodeDecodeError) as error:
            yield Source(str(path), path, problem=str(error))
    else:
        yield Source(str(path), path)


def _lines(name: str, lines: Iterable[str]) -> Iterator[Source]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Source(f"{name}:{number}", line=line.rstrip("\r\n"))
