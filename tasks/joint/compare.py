"""``python -m tasks.joint.compare``: one trunk against three, and what a trunk learned elsewhere is worth.

The results of each training stay in the folder; those that are there already, made by the same code and
configuration, are not made again. At the end ``joint.json`` and ``joint.md`` are written there.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from mmattn.training.memory import quick_memory
from tasks.joint.arms import CONFIG, Arm, Settings, arms, load, run, steps_of
from tasks.joint.findings import BEHIND, ROWS, bar, table, verdicts


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and write what was found; arguments after ``--`` go to every training."""
    args = _parser().parse_args(argv)
    if args.workers < 1:
        _parser().error(f"--workers must be at least 1: got {args.workers}")
    settings = Settings(args.config, args.steps, tuple(args.extra))
    if settings.steps is None:
        settings = Settings(args.config, steps_of(settings, args.out), settings.extra)
    wanted = [arm for seed in args.seeds for arm in arms(seed) if arm.kind in {"joint", *args.kinds}]
    needed = {arm.trunk for arm in wanted if arm.trunk is not None}
    wanted = [arm for seed in args.seeds for arm in arms(seed) if arm in {*wanted, *needed}]
    missing = [arm for arm in wanted if load(arm, settings, args.out) is None]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are there, {settings.steps} steps each")
    run_all(missing, settings, args.out, args.workers)
    results = [found for arm in wanted if (found := load(arm, settings, args.out)) is not None]
    found = {"bar": bar(results), "verdicts": verdicts(results), "runs": results}
    (args.out / "joint.json").write_text(json.dumps(found, indent=1))
    (args.out / "joint.md").write_text(table(results) + "\n")
    print(table(results))
    compared = any(found["kind"] == "separate" for found in results)
    told = ("holds" if bar(results) else "no") if compared else "not run"
    print(f"within {BEHIND} points of three trunks, at a third of their parameters: {told}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.joint.compare", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/joint"), help="folder of the results")
    parser.add_argument("--config", type=Path, default=CONFIG, help="of the joint run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="of every training; those of the joint run unless given")
    parser.add_argument(
        "--kinds", nargs="*", choices=list(ROWS), default=list(ROWS), help="what to set beside the joint run"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings side by side")
    parser.add_argument("extra", nargs="*", help="after --: arguments for every training")
    return parser


def run_all(missing: Sequence[Arm], settings: Settings, folder: Path, workers: int) -> None:
    """Do the arms in several processes, none before the one whose trunk it takes up.

    Raises:
        SystemExit: an arm failed; those that are running are ended.
    """
    if not missing:
        return
    workers = min(workers, len(missing))
    threads = max(1, (os.cpu_count() or 1) // workers)
    left = list(missing)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, start, (threads,)) as pool:
        running: dict[Future[None], Arm] = {}
        while left or running:
            open_arms = {*left, *running.values()}
            # no more at a time than there are workers: what becomes possible later may be more urgent
            for arm in [arm for arm in left if arm.trunk not in open_arms][: workers - len(running)]:
                running[pool.submit(run, arm, settings, folder)] = arm
                left.remove(arm)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                arm = running.pop(future)
                _raise(future, arm)
                print(f"{arm.name} done, {len(left) + len(running)} to go", flush=True)


def start(threads: int) -> None:
    """Prepare a worker process."""
    torch.set_num_threads(threads)
    quick_memory()
    # Set for this process alone: what Lightning tells of each of many trainings hides what is done.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def _raise(future: Future[None], arm: Arm) -> None:
    error = future.exception()
    if error is not None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise SystemExit(f"error: {arm.name} failed: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    sys.exit(main())
