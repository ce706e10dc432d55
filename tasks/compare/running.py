"""Doing a grid: what is there is kept, what is missing is done, what fails does not stop the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from tasks.compare.executors import Executor
from tasks.compare.grid import Grid
from tasks.compare.jobs import Job
from tasks.compare.progress import Progress
from tasks.compare.store import RunFolder, write
from tasks.compare.suite import SUITE
from tasks.compare.worker import WORK


@dataclass(frozen=True)
class Outcome:
    """What came of a grid.

    Attributes:
        done: names of the runs that are there now, by this very code and configuration.
        failed: for the others, why.
    """

    done: tuple[str, ...]
    failed: dict[str, str]


def run_grid(
    grid: Grid, out: Path, executor: Executor, work: str = WORK, stream: TextIO | None = None
) -> Outcome:
    """Do all runs of a grid that are missing in ``out / "runs"``.

    Args:
        grid: what to do.
        out: folder of the report.
        executor: where to do it.
        work: the function that does a job, ``module:name``.
        stream: where progress is shown; the standard output unless given.
    """
    runs = out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    jobs = grid.jobs()
    _describe(grid, jobs, runs)
    outcome = run_jobs(jobs, runs, executor, work, stream)
    strange = sorted({path.parent.name for path in runs.glob("*/measures.json")} - {job.name for job in jobs})
    if strange:
        print(
            f"runs of no part of this grid, which its report shows as well: {', '.join(strange)}", file=stream
        )
    return outcome


def run_jobs(
    jobs: Sequence[Job], runs: Path, executor: Executor, work: str = WORK, stream: TextIO | None = None
) -> Outcome:
    """Do the jobs that are missing in ``runs``; see :func:`run_grid`."""
    progress = Progress(jobs, executor.places, stream)
    missing = []
    for job in jobs:
        if RunFolder(runs, job).finished():
            progress.known(job.name, "done", seconds_of(runs / job.name))
        else:
            missing.append(job)
    if len(missing) < len(jobs):
        there = len(jobs) - len(missing)
        print(f"{there} of {len(jobs)} runs are there already, made by this very code", file=progress.stream)
    if missing:
        executor.run(missing, runs, progress.hear, work)
    print(progress.summary(), file=progress.stream)
    failed = {name: run.text for name, run in progress.runs.items() if run.state == "failed"}
    done = tuple(name for name, run in progress.runs.items() if run.state == "done")
    return Outcome(done, failed)


def standing(grid: Grid, out: Path) -> Progress:
    """How far a grid is, from its folder alone."""
    jobs = grid.jobs()
    progress = Progress(jobs)
    for job in jobs:
        folder = RunFolder(out / "runs", job)
        holder = folder.holder()
        failure = folder.failure()
        if folder.finished():
            progress.known(job.name, "done", seconds_of(folder.path))
        elif holder is not None:
            progress.known(job.name, "running", text=holder)
        elif failure is not None:
            progress.known(job.name, "failed", text=failure)
    return progress


def seconds_of(folder: Path) -> float | None:
    """How long a finished run took."""
    try:
        seconds: float = json.loads((folder / "job.json").read_text())["seconds"]
    except (OSError, ValueError, KeyError):
        return None
    return seconds


def _describe(grid: Grid, jobs: Sequence[Job], runs: Path) -> None:
    """Leave beside the runs what was asked for, so that a reader of the folder knows what is missing."""
    domains = {
        part.domain: {
            "title": part.title, "description": part.description, "distractors": part.distractors,
            "synthetic": part.synthetic,
        }
        for part in SUITE if part.domain in grid.domains
    }  # fmt: skip
    said = {"grid": asdict(grid), "domains": domains, "runs": [job.name for job in jobs]}
    write(runs / "grid.json", json.dumps(said, indent=1) + "\n")
