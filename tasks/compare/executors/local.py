"""Runs in processes of this machine, which share its cores fairly."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from tasks.compare.executors.base import Event, cores
from tasks.compare.jobs import Job
from tasks.compare.store import RunFolder
from tasks.compare.worker import WORK, serve

_PATIENCE = 2.0  # seconds before a run that another process is at is looked at again
_TRIES = 2  # of a run whose process dies


class _Worker:
    """A process, what it does, and the way to talk to it."""

    def __init__(self, work: str) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.connection: Connection = here
        self.process: SpawnProcess = context.Process(target=serve, args=(there, os.getpid(), work))
        self.process.start()
        there.close()
        self.job: Job | None = None

    def give(self, job: Job, runs: Path, threads: int) -> None:
        self.job = job
        self.connection.send({"job": job.plain(), "runs": str(runs), "threads": threads})

    def close(self) -> None:
        self.connection.close()
        if self.job is not None:
            self.process.kill()
        self.process.join()


class LocalExecutor:
    """Runs side by side in processes that live on from run to run.

    A run whose process dies is tried once more, from its last epoch; the others go on.

    Args:
        jobs: runs side by side; one for each core unless given. The cores are divided among them as threads.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.places = cores() if jobs is None else jobs

    def run(self, jobs: Sequence[Job], runs: Path, hear: Callable[[Event], None], work: str = WORK) -> None:
        """See :class:`~tasks.compare.executors.base.Executor`."""
        beside = [job for job in jobs if not job.alone]
        _Round(runs, hear, work, min(self.places, len(beside)), max(1, cores() // self.places)).run(beside)
        _Round(runs, hear, work, 1, cores()).run([job for job in jobs if job.alone])


class _Round:
    """Jobs that may run side by side."""

    def __init__(
        self, runs: Path, hear: Callable[[Event], None], work: str, places: int, threads: int
    ) -> None:
        self.runs, self.hear, self.work = runs, hear, work
        self.places, self.threads = places, threads
        self.waiting: deque[tuple[float, Job]] = deque()
        self.deaths: dict[str, int] = {}
        self.workers: list[_Worker] = []

    def run(self, jobs: Sequence[Job]) -> None:
        self.waiting.extend((0.0, job) for job in jobs)
        try:
            while self.waiting or any(worker.job for worker in self.workers):
                self._give()
                self._listen()
        finally:
            for worker in self.workers:
                worker.close()

    def _give(self) -> None:
        now = time.monotonic()
        for _ in range(len(self.waiting)):
            since, job = self.waiting.popleft()
            idle = next((worker for worker in self.workers if worker.job is None), None)
            if since > now or (idle is None and len(self.workers) >= self.places):
                self.waiting.append((since, job))
                continue
            if idle is None:
                idle = _Worker(self.work)
                self.workers.append(idle)
            idle.give(job, self.runs, self.threads)
            self.hear(Event("start", job.name))

    def _listen(self) -> None:
        talking = {worker.connection: worker for worker in self.workers if worker.job is not None}
        ready: list[Any] = wait(list(talking), timeout=0.5) if talking else []
        if not talking:
            time.sleep(0.2)
        for connection in ready:
            worker = talking[connection]
            assert worker.job is not None
            try:
                answer = connection.recv()
            except (EOFError, OSError):
                self._died(worker, worker.job)
                continue
            self._heard(worker, worker.job, *answer)
        self.hear(Event("tick"))

    def _heard(self, worker: _Worker, job: Job, kind: Any, value: Any) -> None:
        if kind == "share":
            self.hear(Event("share", job.name, value))
            return
        worker.job = None
        if kind == "busy":
            self.waiting.append((time.monotonic() + _PATIENCE, job))
        if kind in ("busy", "failed"):
            self.hear(Event(kind, job.name, text=value))
        else:
            self.hear(Event(kind, job.name, value))

    def _died(self, worker: _Worker, job: Job) -> None:
        worker.close()
        self.workers.remove(worker)
        self.deaths[job.name] = self.deaths.get(job.name, 0) + 1
        said = f"its process ended with status {worker.process.exitcode}"
        if self.deaths[job.name] < _TRIES:
            self.waiting.appendleft((0.0, job))
            self.hear(Event("retry", job.name, text=said))
        else:
            RunFolder(self.runs, job).fail(f"{said}, twice", "")
            self.hear(Event("failed", job.name, text=f"{said}, twice"))
