"""What every executor is, and what it tells of its runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tasks.compare.jobs import Job
from tasks.compare.worker import WORK


@dataclass(frozen=True)
class Event:
    """Something happened to a run.

    Attributes:
        kind: ``start``, ``share`` (of it is done), ``done`` (in so many seconds), ``there`` (done by another
            process), ``busy`` (another process is at it), ``failed``, ``retry`` (its process died), or ``tick``: some
            time went by.
        name: of the run.
        value: the share, or the seconds.
        text: why it failed, or who is at it.
    """

    kind: Literal["start", "share", "done", "there", "busy", "failed", "retry", "tick"]
    name: str = ""
    value: float = 0.0
    text: str = ""


class Executor(Protocol):
    """Does runs, several side by side."""

    @property
    def places(self) -> int:
        """Runs side by side."""
        ...

    def run(self, jobs: Sequence[Job], runs: Path, hear: Callable[[Event], None], work: str = WORK) -> None:
        """Do all jobs and return when each is done or has failed.

        Args:
            jobs: in the order in which they begin; those that must be alone come at the end.
            runs: folder of the results.
            hear: is told what happens, in this thread, at least every second.
            work: the function that does a job, ``module:name``.
        """
        ...


def cores() -> int:
    """Cores that this process may use."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known is not None else os.cpu_count() or 1
