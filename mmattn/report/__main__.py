"""``python -m mmattn.report SOURCE --out report``: a report of runs, or again from its ``report.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmattn.report import ReportInput, gather, write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and print the path of its page; gives 2, with a sentence on stderr, if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m mmattn.report", description=__doc__)
    parser.add_argument(
        "source", type=Path, help="a report.json, a folder that holds one, or a folder of record.json files"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder to write to (default: report)"
    )
    args = parser.parse_args(argv)
    file = args.source / "report.json" if args.source.is_dir() else args.source
    try:
        report = gather(args.source) if args.source.is_dir() and not file.exists() else ReportInput.load(file)
        path = write_report(report, args.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
