"""``python -m benchmarks.attention``: every figure about speed and memory, in one process, interleaved.

Prints a table for each topic and ends with ``bars: N of M hold``; the status is 0 only if all hold. Peers must be
installed: timm, transformers and x-transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.attention import machine, tables
from benchmarks.attention.settings import Report, Settings
from benchmarks.bars import Bar, conclude

#: Each is a module with ``run(settings) -> Report``.
TOPICS = ("dense", "encoder", "best", "windows", "bf16", "decoding", "explain", "scaling")


def main(argv: list[str] | None = None) -> int:
    """Measure what is asked for and conclude."""
    args = _arguments(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda needs a CUDA device: found none", file=sys.stderr)
        return 2
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    options = {field.name: getattr(args, field.name) for field in fields(Settings)}
    settings = Settings(**options | {"match": tuple(args.match)})
    reports: list[Report] = []
    seconds: dict[str, float] = {}
    for topic in args.only or TOPICS:
        begin = time.perf_counter()
        reports.append(_report(topic, settings))
        seconds[topic] = round(time.perf_counter() - begin, 1)
        print(tables.markdown(reports[-1]), f"({seconds[topic]:.0f} s)", sep="\n", flush=True)
        if args.plots is not None:
            for path in tables.plot(reports[-1], args.plots):
                print(f"plot: {path}")
    bars = [bar for report in reports for bar in report.bars]
    if args.out is not None:
        _write(args.out, reports, seconds, options)
    if args.quick:
        print(f"\nquick run: tiny shapes, so nothing is concluded from its {len(bars)} figures")
        return int(any("error" in report.facts for report in reports))
    return conclude(bars, None)


def _report(topic: str, settings: Settings) -> Report:
    """A topic that fails becomes a bar that does not hold, so that the others still run."""
    try:
        return _runner(topic, settings.device)(settings)
    except Exception as error:
        traceback.print_exc()
        note = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        bar = Bar(f"{topic} runs", 0.0, 1.0, note=note)
        return Report(topic, f"{topic}: stopped by an error", bars=[bar], facts={"error": note})


def _runner(topic: str, device: str) -> Callable[[Settings], Report]:
    """On CUDA some topics have other opponents, which lie in a file of their own."""
    if device == "cuda" and topic in (runs := import_module("benchmarks.attention.cuda").RUNS):
        chosen: Callable[[Settings], Report] = runs[topic]
    else:
        chosen = import_module(f"benchmarks.attention.{topic}").run
    return chosen


def _write(path: Path, reports: list[Report], seconds: dict[str, float], options: dict[str, Any]) -> None:
    bars = [
        {
            "topic": report.topic, "name": bar.name, "value": bar.value, "limit": bar.limit,
            "at_least": bar.at_least, "note": bar.note, "holds": None if options["quick"] else bar.holds,
        }
        for report in reports
        for bar in report.bars
    ]  # fmt: skip
    content = {
        "machine": machine.facts(options["device"]),
        "options": options,
        "seconds": seconds,
        "topics": {report.topic: tables.as_json(report) for report in reports},
        "bars": bars,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=TOPICS, metavar="TOPIC", help=f"some of: {', '.join(TOPICS)}"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice by default")
    parser.add_argument(
        "--repeats", type=int, help="rounds of each race at most; each topic has its own number"
    )
    parser.add_argument(
        "--budget", type=float, default=20.0, help="seconds for each race, after three rounds"
    )
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave compiled peers out")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that everything runs")
    parser.add_argument(
        "--match", nargs="+", type=str, default=(), metavar="TEXT",
        help="of dense, encoder and best only settings with all of these in their name, e.g. FSDD D=144",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for everything that was measured")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="folder for pictures of time and memory over length"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
