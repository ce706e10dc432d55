"""``python -m benchmarks.embedded``: the embedded suite's bars, from the ``report.json`` of ``make report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.bars import Bar, conclude
from mmattn.report import ATTENTION, LINEAR, UNIFORM, ReportInput

PLAIN = {"vision": 97.0, "speech": 95.0, "text": 93.0}
AHEAD = 10.0


def main() -> int:
    """Read and conclude."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--report", type=Path, default=Path("report/report.json"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not args.report.exists():
        parser.error(
            f"--report must be a file: got {args.report}, which does not exist; run make report first"
        )
    bars = []
    for part in ReportInput.load(args.report).domains:
        rows = {row.name: row for row in part.rows}
        plain = 100 * (rows[ATTENTION].plain or 0.0)
        bars.append(
            Bar(f"{part.domain}, plain, %", plain, PLAIN[part.domain], note=f"{rows[ATTENTION].n_test} tests")
        )
        for control in (UNIFORM, LINEAR):
            ahead = 100 * ((rows[ATTENTION].standard or 0.0) - (rows[control].standard or 0.0))
            bars.append(Bar(f"{part.domain}, among distractors, points ahead of {control}", ahead, AHEAD))
    return conclude(bars, args.out)


if __name__ == "__main__":
    sys.exit(main())
