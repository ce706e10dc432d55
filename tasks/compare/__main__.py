"""``python -m tasks.compare``: train every arm of the suite in every domain, and write one report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmattn.report import (
    ATTENTION,
    LINEAR,
    MAJORITY,
    UNIFORM,
    DomainReport,
    ExampleFile,
    ReportInput,
    ResultRow,
    RunRecord,
    write_report,
)
from tasks.compare import worker
from tasks.compare.jobs import Job, done
from tasks.compare.suite import ARMS, SUITE, DomainTask

SUMMARY = (
    "One attention core and one encoder, trained once for each sense on the same kind of task: find it among "
    "distractors. Does attention, weights that let a model spend itself on what matters and ignore the rest, earn "
    "its place? Beside it stand the same encoder with uniform attention, a linear model and the majority class."
)


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; arguments after ``--`` go to every training's command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings side by side")
    parser.add_argument("extra", nargs="*", help="after --: arguments for every training")
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers must be at least 1: got {args.workers}")
    begin = time.perf_counter()
    folder = args.out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    # the longest first, so that no worker idles at the end
    jobs = [Job(part.domain, arm, args.seed) for part in reversed(SUITE) for arm in ARMS]
    jobs += [Job(part.domain, "controls", args.seed) for part in SUITE]
    todo = [job for job in jobs if not done(job, folder, args.extra)]
    if len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are there already, made by this very code")
    if todo:
        run_all(todo, folder, args.extra, args.workers)
    report = ReportInput(
        title="Does attention find what matters? Pictures, speech and text",
        summary=SUMMARY,
        command=command_line(args),
        domains=[domain_report(part, folder, args.seed) for part in SUITE],
    )
    page = write_report(report, args.out)
    print(f"\nReport: {page} ({time.perf_counter() - begin:.0f} s)")
    for part in report.domains:
        print(result_line(part))
    return 0


def command_line(args: argparse.Namespace) -> str:
    """How to make the report again."""
    given = ([f"--seed {args.seed}"] if args.seed else []) + (["--", *args.extra] if args.extra else [])
    return "make report" + (f" ARGS='{' '.join(given)}'" if given else "")


def run_all(jobs: list[Job], folder: Path, extra: list[str], workers: int) -> None:
    """Do the jobs in ``workers`` processes, under one progress bar."""
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(jobs))
    threads = max(1, (os.cpu_count() or 1) // workers)
    messages: Any = context.Queue()
    shares = dict.fromkeys((job.name for job in jobs), 0.0)
    weights = {job.name: 0.15 if job.arm == "controls" else 1.0 for job in jobs}
    total = sum(weights.values())
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with (
        tqdm(total=100.0, desc="starting", bar_format=form, file=sys.stdout, mininterval=0.5) as bar,
        ProcessPoolExecutor(workers, context, worker.start, (messages, threads)) as pool,
    ):
        names = {pool.submit(worker.work, job, folder, extra): job.name for job in jobs}
        pending = set(names)
        while pending:
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                _raise(future, names[future])
            while True:
                try:
                    name, share = messages.get_nowait()
                except queue.Empty:
                    break
                shares[name] = max(shares[name], share)
            running = [name for name, share in shares.items() if 0 < share < 1]
            bar.set_description_str(", ".join(name.rsplit("-", 1)[0] for name in running) or "starting")
            bar.update(100 * sum(weights[n] * share for n, share in shares.items()) / total - bar.n)
        bar.set_description_str("all runs done")
        bar.update(100 - bar.n)


def _raise(future: Future[None], name: str) -> None:
    """End with one sentence, and with what else is running, when a job failed."""
    error = future.exception()
    if error is not None:
        for child in multiprocessing.active_children():
            child.terminate()
        raise SystemExit(f"error: {name} failed: {' '.join(str(error).split())}") from error


def domain_report(part: DomainTask, folder: Path, seed: int) -> DomainReport:
    """What the report says of one domain, from the results in ``folder``."""
    runs = {arm: RunRecord.load(folder / Job(part.domain, arm, seed).name / "record.json") for arm in ARMS}
    controls = json.loads((folder / Job(part.domain, "controls", seed).name / "controls.json").read_text())
    n_test = controls["n_test"]
    rows = [
        ResultRow(
            name=name, kind="model" if arm == "attention" else "control", n_test=n_test, arm=arm,
            plain=runs[arm].metrics["test_plain/accuracy"], standard=runs[arm].metrics["test/accuracy"],
        )
        for arm, name in (("attention", ATTENTION), ("uniform", UNIFORM))
    ]  # fmt: skip
    rows += [
        ResultRow(
            LINEAR, "control", controls["linear_plain"], controls["linear_standard"], n_test,
            seconds=controls["linear_seconds"],
        ),
        ResultRow(MAJORITY, "control", controls["majority"], controls["majority"], n_test),
    ]  # fmt: skip
    metrics = runs["attention"].metrics
    level = controls["level"]
    mass, share = metrics["relevant/mass"], metrics["relevant/share"]
    looked = (
        f" Over 100 test scenes the pooling heads put {100 * (mass or 0):.1f} % of their attention on the tokens "
        f"that matter, which are {100 * (share or 0):.1f} % of all."
    )
    return DomainReport(
        domain=part.domain,
        title=part.title,
        description=part.description + looked,
        synthetic=part.synthetic,
        metric="accuracy",
        standard_level=f"{level} {part.distractors}",
        rows=rows,
        runs=list(runs.values()),
        examples=ExampleFile.load(
            folder / Job(part.domain, "attention", seed).name / "examples.json"
        ).examples,
    )


def result_line(part: DomainReport) -> str:
    """One line of result for a domain."""
    by_name = {row.name: row for row in part.rows}
    shown = []
    for name, short in ((ATTENTION, "attention"), (UNIFORM, "uniform"), (LINEAR, "linear")):
        row = by_name[name]
        shown.append(f"{short} {100 * (row.plain or 0):.1f} / {100 * (row.standard or 0):.1f} %")
    return f"{part.domain:7} plain / among distractors: " + ", ".join(shown)


if __name__ == "__main__":
    sys.exit(main())
