"""``python -m mmattn.backends.cpu --out calibration.json``: time the kernels on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmattn.backends.cpu.calibration import Calibration, measure


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(prog="python -m mmattn.backends.cpu", description=main.__doc__)
    parser.add_argument("--out", type=Path, help="write the table here, for mmattn.use_calibration")
    parser.add_argument("--threads", type=int, help="number of threads; default: torch's")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each kernel and situation")
    args = parser.parse_args(arguments)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    table = measure(args.seconds)
    print(render(table))
    if args.out is not None:
        table.save(args.out)


def render(table: Calibration) -> str:
    """The table as Markdown, milliseconds, the fastest in bold."""
    lines = [
        f"{table.source}\n",
        "| dtype | pass | dropout | keys | head_dim | milliseconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        best = min(row.milliseconds, key=row.milliseconds.__getitem__)
        times = ", ".join(
            f"**{way} {ms:.3g}**" if way == best else f"{way} {ms:.3g}"
            for way, ms in row.milliseconds.items()
        )
        kind = "forward and backward" if row.train else "forward"
        lines.append(
            f"| {row.dtype} | {kind} | {'yes' if row.dropout else 'no'} | {row.keys} | {row.head_dim} | {times} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
