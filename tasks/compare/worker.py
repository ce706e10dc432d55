"""What a worker process of a grid does; the heavy parts are imported with the first job."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tasks.compare.jobs import Job
from tasks.compare.store import Busy, RunFolder

WORK = "tasks.compare.training:work"
"""The function that does a job: job, scratch folder, folder of results, what to tell the share done, threads."""

Answer = tuple[str, Any]
"""``("done", seconds)``, ``("there", 0)`` where it was done by another process, ``("busy", who)`` or
``("failed", sentence)``."""


def execute(job: Job, runs: Path, threads: int, tell: Callable[[float], None], work: str = WORK) -> Answer:
    """Do a job in this process, unless another one does, and leave its results as a whole.

    Args:
        job: what to do.
        runs: folder of all runs.
        threads: for this job.
        tell: is told the share that is done.
        work: the function that does it, ``module:name``.
    """
    folder = RunFolder(runs, job)
    begin = time.perf_counter()
    try:
        with folder.lock():
            folder.begin()
            if folder.finished():
                folder.clean()
                return "there", 0
            try:
                with _output(folder.work / "log.txt"):
                    _function(work)(job, folder.work, folder.result, tell, threads)
            except (Exception, SystemExit) as error:
                return "failed", _failed(folder, error)
            seconds = time.perf_counter() - begin
            folder.finish({"seconds": round(seconds, 3), "threads": threads})
            folder.clean()
            return "done", seconds
    except Busy as busy:
        return "busy", str(busy)


def serve(connection: Connection, parent: int, work: str) -> None:
    """The life of a local worker process: do what is sent until nothing more comes, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked as well, and ends this process
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        job, runs, threads = Job.read(task["job"]), Path(task["runs"]), task["threads"]
        answer = execute(job, runs, threads, lambda share: _send(connection, ("share", share)), work)
        _send(connection, answer)


def _send(connection: Connection, answer: Answer) -> None:
    """Answer the parent; without one this process ends at once, which is no failure of the job."""
    try:
        connection.send(answer)
    except OSError:
        os._exit(1)


def _leave_with(parent: int) -> None:
    """End this process soon after its parent, whose results nobody waits for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


@contextlib.contextmanager
def _output(path: Path) -> Iterator[None]:
    """What is printed goes into a file, not through the table."""
    with (
        open(path, "a", encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def _failed(folder: RunFolder, error: BaseException) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        # the parser of a command line says why before it ends the process
        lines = (folder.work / "log.txt").read_text(encoding="utf-8").split("error: ")
        said = " ".join(lines[-1].split()) or said
    sentence = f"{type(error).__name__}: {said}"
    folder.fail(sentence, "".join(traceback.format_exception(error)))
    return sentence
