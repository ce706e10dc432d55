"""``python -m benchmarks.import_time``: ``import mmattn`` beside ``import torch``, fresh processes, interleaved."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.bars import Bar, conclude


def seconds(statement: str) -> float:
    """Wall time of a fresh process that runs one statement."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main() -> int:
    """Measure and conclude."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pairs = [(seconds("import torch"), seconds("import mmattn")) for _ in range(args.repeats)]
    ratios = [ours / theirs for theirs, ours in pairs]
    note = f"median of {args.repeats}, {min(ratios):.2f} to {max(ratios):.2f}"
    ratio = median(ours for _, ours in pairs) / median(theirs for theirs, _ in pairs)
    return conclude([Bar("import mmattn / import torch", ratio, 1.15, False, note)], args.out)


if __name__ == "__main__":
    sys.exit(main())
