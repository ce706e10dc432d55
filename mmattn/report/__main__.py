"""``python -m mmattn.report RUNS... --out report``: write the report of one or several folders of runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmattn.report import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and print the path of its page; gives 2, with a sentence on stderr, if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m mmattn.report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, of several machines perhaps")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder to write to (default: report)"
    )
    args = parser.parse_args(argv)
    try:
        path = write_report(args.runs[0], args.out, *args.runs[1:])
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
