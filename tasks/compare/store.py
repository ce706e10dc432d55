"""The folders of the runs: whole or not there at all, whenever a process is killed.

``<out>/runs/<name>`` appears by one renaming, with all files of a finished run. What is under way lies in
``<out>/.work/<name>``: the lock, the log, the last checkpoint, and the results so far.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.compare.jobs import Job, identity

DONE = "done.txt"
FAILED = "failed.json"


class Busy(Exception):
    """Another process does the job; the message says which."""


def write(path: Path, text: str) -> None:
    """Write ``text`` so that the file is there whole or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


class RunFolder:
    """Where one run is made and kept.

    Args:
        runs: folder of all runs.
        job: the run.

    Attributes:
        path: of the finished run.
        work: of the run under way.
        result: where the results are put, below ``work``.
    """

    def __init__(self, runs: Path, job: Job) -> None:
        self.job = job
        self.path = runs / job.name
        self.work = runs.parent / ".work" / job.name
        self.result = self.work / "result"

    def finished(self) -> bool:
        """Whether the results are there, made by this very code and configuration."""
        return _mark(self.path) == identity(self.job)

    def failure(self) -> str | None:
        """Why the last try failed, in a sentence; None where it did not."""
        try:
            error: str = json.loads((self.path / FAILED).read_text())["error"]
        except (OSError, ValueError, KeyError):
            return None
        return error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system frees it when the process ends, however that is.

        Raises:
            Busy: another process holds it.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        with open(self.work / "lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Busy(file.read().strip() or "another process") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def holder(self) -> str | None:
        """Which process is at work on the run; None where none is."""
        if not (self.work / "lock").exists():
            return None
        try:
            with self.lock():
                return None
        except Busy as busy:
            return str(busy)

    def begin(self) -> None:
        """Put aside what does not belong to this very job; call it with the lock held."""
        wanted = identity(self.job)
        made = self.work / "identity.txt"
        if _text(made) != wanted:
            for path in self.work.iterdir():
                if path.name != "lock":
                    _remove(path)
            write(made, wanted)
        if _mark(self.result) == wanted:  # killed between the last file and the renaming
            self.publish()
        elif not self.finished():
            _remove(self.path)
            _remove(self.result)
        self.result.mkdir(parents=True, exist_ok=True)

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the results as whole, with the job and some facts on it, and let them appear."""
        mark = identity(self.job)
        write(self.result / "job.json", json.dumps(facts | {"job": self.job.plain()}, indent=1) + "\n")
        write(self.result / DONE, mark)
        self.publish()

    def publish(self) -> None:
        """Let the results appear under their name, in one step."""
        if self.path.exists():
            self.path.replace(self.work / "old")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.result.replace(self.path)
        _remove(self.work / "old")

    def clean(self) -> None:
        """Remove what was needed on the way; the lock stays, so that nobody holds a file that is gone."""
        for path in self.work.iterdir():
            if path.name != "lock":
                _remove(path)

    def fail(self, error: str, trace: str) -> None:
        """Keep why it failed, where the report finds it."""
        said = {"job": self.job.plain(), "error": error, "traceback": trace}
        write(self.path / FAILED, json.dumps(said, indent=1) + "\n")


def _mark(folder: Path) -> str | None:
    return _text(folder / DONE)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
