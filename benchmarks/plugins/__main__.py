"""``python -m benchmarks.plugins``: every figure about plugging in, looking, and pruning.

Prints a table for each topic and ends with ``bars: N of M hold``; the status is 0 only if all hold. The hosts must be
installed: timm, torchvision, torchaudio and transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.attention import machine
from benchmarks.bars import Bar, conclude
from benchmarks.plugins.topic import Topic

#: Each is a module with ``run() -> Topic``.
TOPICS = ("conformance", "timm_names", "transformers_types", "overhead", "observing", "pruning")


def main(argv: list[str] | None = None) -> int:
    """Measure what is asked for and conclude."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plugins", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=TOPICS, metavar="TOPIC", help=f"some of: {', '.join(TOPICS)}"
    )
    parser.add_argument("--threads", type=int, help="threads of torch; its own choice by default")
    parser.add_argument("--out", type=Path, help="JSON file for everything that was measured")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    topics: dict[str, Topic] = {}
    for name in args.only or TOPICS:
        begin = time.perf_counter()
        topics[name] = _topic(name)
        seconds = time.perf_counter() - begin
        print(f"\n## {topics[name].title}\n\n{topics[name].table}\n\n({seconds:.0f} s)", flush=True)
    if args.out is not None:
        content = {
            "machine": machine.facts("cpu"),
            "topics": {name: {"title": topic.title, "facts": topic.facts} for name, topic in topics.items()},
            "bars": [vars(bar) | {"holds": bar.holds} for topic in topics.values() for bar in topic.bars],
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(content, indent=1))
    return conclude([bar for topic in topics.values() for bar in topic.bars], None)


def _topic(name: str) -> Topic:
    """A topic that fails becomes a bar that does not hold, so that the others still run."""
    try:
        found: Topic = import_module(f"benchmarks.plugins.{name}").run()
    except Exception as error:
        traceback.print_exc()
        note = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return Topic(f"{name}: stopped by an error", note, [Bar(f"{name} runs", 0.0, 1.0, note=note)])
    return found


if __name__ == "__main__":
    sys.exit(main())
