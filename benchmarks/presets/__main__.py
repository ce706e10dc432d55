"""``python -m benchmarks.presets --data FOLDER``: what each preset reaches, in what time, and whether the bars hold.

Each run is a process of its own; its results stay in ``--runs``, and a run whose results were made by this very code
and configuration is not repeated, so that the whole, several hours, can be done piece by piece. FOLDER holds
``fsdd``, ``sst2``, ``multi30k`` and ``cifar10``; presets whose data are absent are named and count as not held.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.bars import conclude
from benchmarks.presets import joint, results
from benchmarks.presets.presets import PRESETS, Preset
from benchmarks.presets.results import Run
from mmattn.training.precision import slow_precision


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, print the table, conclude."""
    args = _arguments(argv)
    chosen = [each for each in PRESETS if args.only is None or each.name in args.only]
    runs = [run for each in chosen for run in results.runs_of(each, args.seeds)]
    todo = [run for run in runs if not results.done(run, args.runs)]
    absent = {
        run.preset.data for run in todo if run.preset.data and not (args.data / run.preset.data).exists()
    }
    for name in sorted(absent):
        print(f"no data: {args.data / name} does not exist", file=sys.stderr)
    if not args.table:
        for told in _slow(todo):
            print(told, file=sys.stderr, flush=True)
        for index, run in enumerate(todo, 1):
            if run.preset.data not in absent:
                print(f"[{index} of {len(todo)}] {run.name}", file=sys.stderr, flush=True)
                _do(run, args)
    bars = results.bars(chosen, args.seeds, args.runs)
    tables = [results.table(chosen, args.seeds, args.runs)] if chosen else []
    if args.only is None or joint.NAME in args.only:
        if not args.table:
            joint.run(args.seeds, args.runs)
        bars += joint.bars(args.seeds, args.runs)
        tables.append(joint.table(args.runs))
    print("\n\n".join(filter(None, tables)))
    return conclude(bars, args.out)


def _slow(runs: list[Run]) -> list[str]:
    """A line for each precision that this CPU computes in more slowly than in float32: times mean little then."""
    presets: dict[str, set[str]] = {}
    for run in runs:
        if run.seed is not None:
            trainer = yaml.safe_load(run.preset.path.read_text())["trainer"]
            presets.setdefault(str(trainer.get("precision", "32-true")), set()).add(run.preset.name)
    told = {precision: slow_precision(precision) for precision in presets}
    return [f"{', '.join(sorted(presets[name]))}: {text}" for name, text in told.items() if text]


def _do(run: Run, args: argparse.Namespace) -> None:
    """One run in a process of its own; a failure is told and leaves the others alone."""
    folder = results.place(run, args.runs)
    command = [sys.executable, "-m", "benchmarks.presets.run", run.preset.name, str(folder)]
    command += [f"--variant={run.variant}"] if run.variant else []
    command += ["--control"] if run.seed is None else [f"--seed={run.seed}"]
    command += [f"--data={args.data / run.preset.data}"] if run.preset.data else []
    command += [f"--threads={args.threads}"] if args.threads else []
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        print(f"{run.name} failed, see {log}", file=sys.stderr, flush=True)
    else:
        results.mark(run, args.runs)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presets", description=__doc__)
    names = [*(each.name for each in PRESETS), joint.NAME]
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the real data sets")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="PRESET", help=f"some of: {', '.join(names)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, help="threads of each run; the default is torch's")
    parser.add_argument("--runs", type=Path, default=Path("runs/presets"), help="where results are kept")
    parser.add_argument("--table", action="store_true", help="run nothing, only read what is there")
    parser.add_argument("--out", type=Path, help="JSON file for the bars")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["Preset", "main"]
