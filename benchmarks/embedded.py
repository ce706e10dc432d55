"""``python -m benchmarks.embedded``: the embedded suite's bars, from trainings at full size."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.bars import Bar, conclude
from mmattn.report.measures import Measures
from tasks.compare.executors import LocalExecutor
from tasks.compare.grid import Grid
from tasks.compare.running import run_grid

PLAIN = {"vision": 97.0, "speech": 95.0, "text": 93.0}
AHEAD = 10.0
CONTROLS = {"uniform": "uniform attention (control)", "linear": "linear model (control)"}


def main(argv: list[str] | None = None) -> int:
    """Train what is missing, read and conclude."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded", description=main.__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/embedded"), help="folder of the trainings")
    parser.add_argument("--jobs", type=int, help="trainings side by side; one for each core unless given")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    outcome = run_grid(Grid.load("embedded"), args.runs, LocalExecutor(args.jobs))
    if outcome.failed:
        parser.error(
            "every run must end: " + "; ".join(f"{name}: {why}" for name, why in outcome.failed.items())
        )
    return conclude(bars(args.runs / "runs"), args.out)


def bars(runs: Path) -> list[Bar]:
    """The nine bars, from the measures of the grid ``embedded``."""
    found = []
    for domain, limit in PLAIN.items():
        attention = Measures.load(runs / f"{domain}-attention-0" / "measures.json")
        note = f"{len(attention.correct['0'])} tests"
        found.append(Bar(f"{domain}, plain, %", _percent(attention, "0"), limit, note=note))
        for arm, name in CONTROLS.items():
            control = Measures.load(runs / f"{domain}-{arm}-0" / "measures.json")
            ahead = _percent(attention, attention.standard) - _percent(control, control.standard)
            found.append(Bar(f"{domain}, among distractors, points ahead of {name}", ahead, AHEAD))
    return found


def _percent(measures: Measures, level: str) -> float:
    answers = measures.correct[level]
    return 100 * answers.count("1") / len(answers)


if __name__ == "__main__":
    sys.exit(main())
