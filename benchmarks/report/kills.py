"""``python -m benchmarks.report.kills``: a grid killed at random moments ends as one left alone, and loses no run."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar, conclude
from tasks.compare.executors import LocalExecutor
from tasks.compare.grid import Grid
from tasks.compare.running import run_grid
from tasks.compare.worker import WORK

CONFIG = Path(__file__).with_suffix(".yaml")
#: What two runs of the same training never share.
TIMINGS = ("samples_per_second", "peak_memory_bytes", "wall_seconds", "started", "outside_share")


@dataclass
class Survival:
    """What became of a grid.

    Attributes:
        kills: how often it was killed.
        runs: in all.
        lost: finished runs that were gone, changed or made again after a kill.
        broken: runs without all their files, or with files that are no JSON, after a kill.
        different: runs that ended otherwise than in a grid left alone.
        finished_before: how many runs were finished at each kill.
    """

    kills: int = 0
    runs: int = 0
    lost: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    finished_before: list[int] = field(default_factory=list)


def survive(
    config: Path, folder: Path, kills: int = 10, longest: float = 12.0, seed: int = 0, work: str = WORK
) -> Survival:
    """Kill a grid (SIGKILL) at random moments, let it end, and compare it with one that nobody killed.

    Every other time only the process that was started is killed, not its workers.

    Args:
        config: of the grid.
        folder: where both grids are made.
        kills: how often.
        longest: most seconds until a kill.
        seed: of the moments.
        work: the function that does a job, ``module:name``.
    """
    moments = random.Random(seed)
    found = Survival(kills=kills)
    killed = folder / "killed"
    before: dict[str, tuple[int, int]] = {}
    for kill in range(kills):
        process = _start(config, killed, work)
        time.sleep(moments.uniform(0.0, longest))
        if kill % 2:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.0 if kill % 2 else 0.0)  # for orphans to notice
        _look(killed / "runs", before, found)
        found.finished_before.append(len(before))
    _finish(config, killed, work)
    _look(killed / "runs", before, found)
    _finish(config, folder / "alone", work)
    names = [job.name for job in Grid.load(config).jobs()]
    found.runs = len(names)
    found.different = [
        name for name in names if results(killed / "runs" / name) != results(folder / "alone" / "runs" / name)
    ]
    return found


def results(run: Path) -> dict[str, Any]:
    """All that a run came to, timings aside; empty where there is no finished run."""
    if not (run / "done.txt").exists():
        return {}
    read = {path.name: json.loads(path.read_text()) for path in sorted(run.glob("*.json"))}
    read.pop("job.json", None)
    for name in TIMINGS:
        read.get("record.json", {}).pop(name, None)
    read.get("record.json", {}).pop("config", None)  # it names the folder
    read["measures.json"].pop("repeats", None)
    return read


def _look(runs: Path, before: dict[str, tuple[int, int]], found: Survival) -> None:
    """Check what is there after a kill, and remember which runs are finished."""
    now: dict[str, tuple[int, int]] = {}
    for run in sorted(path for path in runs.glob("*") if path.is_dir()):
        try:
            results(run)
            mark = (run / "done.txt").stat()
        except (OSError, ValueError, KeyError):
            found.broken.append(run.name)
            continue
        now[run.name] = (mark.st_ino, mark.st_mtime_ns)
    found.lost += [name for name, mark in before.items() if now.get(name) != mark]
    before.update(now)


def _start(config: Path, out: Path, work: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.report.kills", "--child", str(config), str(out), work]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[2], start_new_session=True, stdout=nowhere, stderr=nowhere
    )


def _finish(config: Path, out: Path, work: str) -> None:
    process = _start(config, out, work)
    if process.wait() != 0:
        raise RuntimeError(f"the grid must end without a failed run: got status {process.returncode}")


def _child(config: str, out: str, work: str) -> int:
    outcome = run_grid(Grid.load(config), Path(out), LocalExecutor(2), work)
    return 1 if outcome.failed else 0


def main(argv: list[str] | None = None) -> int:
    """Kill, compare and conclude."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.kills", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=9.0, help="most seconds until a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(*args.child)
    with tempfile.TemporaryDirectory() as folder:
        found = survive(CONFIG, Path(folder), args.kills, args.longest, args.seed)
    return conclude(bars(found), args.out)


def bars(found: Survival) -> list[Bar]:
    """What a grid must survive without harm."""
    note = f"{found.kills} kills, finished before each: {found.finished_before}"
    midway = sum(count < found.runs for count in found.finished_before)
    return [
        Bar("kills that met an unfinished grid", midway, found.kills),
        Bar("kills: finished runs lost", len(found.lost), 0, at_least=False, note=note),
        Bar("kills: half-written runs", len(found.broken), 0, at_least=False),
        Bar(f"kills: runs of {found.runs} that end otherwise", len(found.different), 0, at_least=False),
    ]


if __name__ == "__main__":
    sys.exit(main())
