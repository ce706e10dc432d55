"""``python -m benchmarks.report``: the cross-domain report in its time, right, readable, hard to kill, reproduced.

The standard grid is made first time it is asked for: up to two hours, which may be interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bars import Bar, conclude
from benchmarks.report import kills, pages
from mmattn.report import write_report
from mmattn.report.claims.simulate import Design, calibrate
from tasks.compare import __main__ as compare
from tasks.compare.verify import verify

QUICK_MINUTES, STANDARD_MINUTES = 8.0, 120.0
NULL_GRIDS = 200
TOPICS = ("quick", "page", "verify", "statistics", "kills", "standard")


def main(argv: list[str] | None = None) -> int:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TOPICS, default=list(TOPICS))
    parser.add_argument(
        "--quick",
        type=Path,
        help="folder for the quick report (default: one that goes away); time is that of its runs",
    )
    parser.add_argument(
        "--standard",
        type=Path,
        default=Path("runs/standard"),
        help="folder of the standard report; what is missing there is done",
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        quick = args.quick or Path(scratch) / "quick"
        topics: dict[str, Callable[[], list[Bar]]] = {
            "quick": lambda: quick_bars(quick),
            "page": lambda: [*pages.bars(quick / "index.html"), same_bytes(quick, Path(scratch) / "again")],
            "verify": lambda: verify_bars(quick),
            "statistics": statistics_bars,
            "kills": lambda: kills_bars(Path(scratch) / "kills"),
            "standard": lambda: standard_bars(args.standard),
        }
        if (
            not (quick / "index.html").exists()
            and {"page", "verify"} & set(args.only)
            and "quick" not in args.only
        ):
            parser.error(
                "page and verify look at the quick report: add quick to --only, or name its folder by --quick"
            )
        bars = [bar for topic in TOPICS if topic in args.only for bar in topics[topic]()]
    return conclude(bars, args.out)


def quick_bars(folder: Path) -> list[Bar]:
    """What ``make report`` does, from an empty folder, and how long it takes."""
    begin = time.perf_counter()
    status = compare.main(["run", "--config", "quick", "--out", str(folder)])
    minutes = (time.perf_counter() - begin) / 60
    return [
        Bar("quick: minutes", minutes, QUICK_MINUTES, at_least=False, note=f"{os.cpu_count()} cores"),
        Bar("quick: exit status", status, 0, at_least=False),
    ]


def same_bytes(folder: Path, again: Path) -> Bar:
    """Whether the same runs give the same files."""
    write_report(folder / "runs", again)
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    different = [str(path) for path in files if (folder / path).read_bytes() != (again / path).read_bytes()]
    note = f"{len(files)} files"
    return Bar("files that another writing changes", len(different), 0, at_least=False, note=note)


def verify_bars(folder: Path) -> list[Bar]:
    """A sample of the grid, made again."""
    found = verify(folder)
    states = [check.state for check in found.checks]
    note = f"{len(states)} numbers of 3 runs, {states.count('exactly')} of them exactly the same"
    return [
        Bar("verify: numbers outside their interval", states.count("outside"), 0, at_least=False, note=note),
        Bar("verify: runs that fail", len(found.failed), 0, at_least=False),
    ]


def statistics_bars() -> list[Bar]:
    """Grids without effects, and with effects of the size that they claim to detect."""
    found = []
    for seeds in (3, 5):
        made = calibrate(Design(seeds=seeds), grids=NULL_GRIDS)
        found += [
            Bar(
                f"{seeds} seeds: null grids with anything supported, %",
                100 * made.false / made.grids, 5.0, at_least=False, note=f"{made.false} of {made.grids}",
            ),
            Bar(
                f"{seeds} seeds: planted effects found, %",
                100 * made.found, 80.0, note=f"least {100 * made.least[1]:.1f}: {made.least[0]}",
            ),
        ]  # fmt: skip
    return found


def kills_bars(folder: Path) -> list[Bar]:
    """A small grid, killed ten times."""
    return kills.bars(kills.survive(kills.CONFIG, folder, longest=9.0))


def standard_bars(folder: Path) -> list[Bar]:
    """How long the runs of the standard grid took together, over as many cores as they shared."""
    status = compare.main(["run", "--config", "standard", "--out", str(folder)])
    asked = folder / "runs" / "grid.json"
    names = json.loads(asked.read_text())["runs"] if asked.exists() else []
    jobs = [folder / "runs" / name / "job.json" for name in names]
    done = [json.loads(path.read_text()) for path in jobs if path.exists()]
    seconds = sum(
        job["seconds"] / (1 if job["job"]["domain"] == "speed" else os.cpu_count() or 1) for job in done
    )
    minutes = seconds / 60 if names and len(done) == len(names) else math.nan
    return [
        Bar(
            "standard: minutes",
            minutes,
            STANDARD_MINUTES,
            False,
            f"{len(done)} of {len(names)} runs are there",
        ),
        Bar("standard: exit status", status, 0, at_least=False),
    ]


if __name__ == "__main__":
    sys.exit(main())
