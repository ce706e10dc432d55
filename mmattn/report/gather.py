"""A report's contents from folders of runs."""

from __future__ import annotations

import json
from pathlib import Path

from mmattn.explore import Exploration
from mmattn.explore import load as load_explorations
from mmattn.report.claims.judge import judge
from mmattn.report.contents import Report, contents
from mmattn.report.names import domain_order
from mmattn.report.runs import load_runs, unmeasured


def failures(*folders: str | Path) -> list[str]:
    """What went wrong with runs that are not there, one sentence each: those that left ``failed.json``."""
    found = []
    for folder in folders:
        for file in sorted(Path(folder).rglob("failed.json")):
            if file.with_name("measures.json").exists():
                continue
            try:
                error = str(json.loads(file.read_text(encoding="utf-8"))["error"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"failed.json must hold an object with an error: got {file}") from None
            found.append(f"The run {file.parent.name} failed: {' '.join(error.split())}")
    return found


def explorations(*folders: str | Path) -> list[Exploration]:
    """All that can be looked into, in the order of the page's domains."""
    files = [file for folder in folders for file in sorted(Path(folder).rglob("exploration.json"))]
    found = [each for file in files for each in load_explorations(file)]
    return sorted(found, key=lambda each: domain_order(each.domain))


def gather(folder: str | Path, *more: str | Path) -> tuple[Report, list[Exploration]]:
    """The report on all runs below the folders, and what can be looked into.

    Raises:
        ValueError: there is no run, or a file does not fit; it is named.
    """
    runs = load_runs(folder, *more)
    lost = [
        f"The run {path} has a record but no measures: it counts for nothing."
        for path in unmeasured(folder, *more)
    ]
    return contents(runs, judge(runs), failures(folder, *more) + lost), explorations(folder, *more)
