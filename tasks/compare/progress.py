"""How far a grid is, as plain text: a table that is drawn again on a terminal, else a line for each finished run."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from tasks.compare.executors.base import Event
from tasks.compare.jobs import Job

_FAILURES_DRAWN = 5  # a table that is higher than the terminal cannot be drawn over
_INDENT = " " * 10
_SIGNS = {"waiting": "·", "running": ">", "done": "=", "failed": "!"}


@dataclass
class _Run:
    """State of one run."""

    job: Job
    state: str = "waiting"
    share: float = 0.0
    begin: float = 0.0
    seconds: float | None = None
    text: str = ""


class Progress:
    """What is known of all runs.

    Args:
        jobs: all runs of the grid.
        places: runs side by side.
        stream: where it is shown.
        now: the time, in seconds.
    """

    def __init__(
        self, jobs: Sequence[Job], places: int = 1, stream: TextIO | None = None, now: float | None = None
    ) -> None:
        self.runs = {job.name: _Run(job) for job in jobs}
        self.places = max(places, 1)
        self.stream = sys.stdout if stream is None else stream
        self.begin = time.monotonic() if now is None else now
        self._drawn = 0

    def known(self, name: str, state: str, seconds: float | None = None, text: str = "") -> None:
        """Take up what was there before."""
        run = self.runs[name]
        run.state, run.seconds, run.text = state, seconds, text

    def hear(self, event: Event, now: float | None = None) -> None:
        """Take up an event and show it."""
        now = time.monotonic() if now is None else now
        if event.name:
            self._take(self.runs[event.name], event, now)
        if self.stream.isatty():
            self._draw(self.lines(now, shutil.get_terminal_size().columns))
        elif event.kind in ("done", "there", "failed", "retry"):
            print(self._line(event, now), file=self.stream, flush=True)

    def _take(self, run: _Run, event: Event, now: float) -> None:
        if event.kind == "start":
            run.state, run.begin, run.share = "running", now, 0.0
        elif event.kind == "share":
            if run.state != "running":
                run.state, run.begin = "running", now
            run.share = max(run.share, event.value)
        elif event.kind in ("done", "there"):
            run.state, run.share = "done", 1.0
            run.seconds = event.value if event.kind == "done" else None
        elif event.kind == "failed":
            run.state, run.text = "failed", event.text
        else:
            run.state, run.share, run.text = "waiting", 0.0, event.text

    def _line(self, event: Event, now: float) -> str:
        done = self.count("done") + self.count("failed")
        head = f"[{done}/{len(self.runs)}] {event.name}"
        said = {
            "done": f"done in {duration(event.value)}", "there": "was done by another process",
            "failed": f"failed: {event.text}", "retry": f"tried again: {event.text}",
        }[event.kind]  # fmt: skip
        left = self.left(now)
        return f"{head} {said}" + (f", about {duration(left)} left" if left else "")

    def count(self, state: str) -> int:
        """Runs in a state: ``waiting``, ``running``, ``done`` or ``failed``."""
        return sum(run.state == state for run in self.runs.values())

    def left(self, now: float) -> float | None:
        """Seconds until all is done, by what finished runs of the same kind took; None while nothing is known."""
        work, longest = 0.0, 0.0
        for run in self.runs.values():
            if run.state in ("done", "failed"):
                continue
            rest = self._rest(run, now)
            if rest is None:
                return None
            work += rest
            longest = max(longest, rest)
        return max(work / self.places, longest)

    def _rest(self, run: _Run, now: float) -> float | None:
        spent = now - run.begin
        if run.state == "running" and run.share >= 0.2:
            return spent * (1 - run.share) / run.share
        usual = self._usual(run.job)
        if usual is None:
            return None
        return max(usual - spent, 0.1 * usual) if run.state == "running" else usual

    def _usual(self, job: Job) -> float | None:
        known = [run for run in self.runs.values() if run.seconds is not None and not run.job.alone]
        for same in (
            [run for run in known if (run.job.domain, run.job.arm) == (job.domain, job.arm)],
            [run for run in known if run.job.domain == job.domain],
            known,
        ):
            if same:
                return sum(run.seconds or 0.0 for run in same) / len(same)
        return None

    def lines(self, now: float, width: int = 100) -> list[str]:
        """The table as it is drawn on a terminal: counts and times, a bar, a row for each domain, what is running and
        what failed."""
        left = self.left(now)
        time_left = "time left not known yet" if left is None else f"about {duration(left)} left"
        running = [
            f"  {run.job.name:24} {100 * run.share:3.0f} %  {duration(now - run.begin)}"
            for run in self.runs.values()
            if run.state == "running"
        ]
        shown = [
            f"{self._counts()}; {duration(now - self.begin)} gone, {time_left}",
            *self._bar(),
            *self._table(width),
            *running,
            *self._failures(_FAILURES_DRAWN),
        ]
        return [line[: max(width - 1, 20)] for line in shown]

    def standing(self, width: int = 100) -> list[str]:
        """The table of a grid that others are at, or nobody."""
        running = [
            f"  {run.job.name:24} running: {run.text}" for run in self.runs.values() if run.state == "running"
        ]
        return [self._counts(), *self._bar(), *self._table(width), *running, *self._failures(len(self.runs))]

    def _counts(self) -> str:
        return ", ".join(f"{self.count(state)} {state}" for state in ("done", "running", "failed", "waiting"))

    def _bar(self) -> list[str]:
        over = [1.0 if run.state in ("done", "failed") else run.share for run in self.runs.values()]
        share = sum(over) / max(len(over), 1)
        filled = round(30 * share)
        return [f"[{'#' * filled}{'-' * (30 - filled)}] {100 * share:.0f} %"]

    def _failures(self, most: int) -> list[str]:
        failed = [run for run in self.runs.values() if run.state == "failed"]
        shown = [f"  {run.job.name:24} failed: {run.text}" for run in failed[:most]]
        return shown + ([f"  and {len(failed) - most} more failed"] if len(failed) > most else [])

    def _table(self, width: int) -> list[str]:
        """A sign for each seed, by domain and arm: domains of the same arms together, wide tables in pieces."""
        cells: dict[str, dict[str, str]] = {}
        for run in self.runs.values():
            row = cells.setdefault(run.job.domain, {})
            row[run.job.arm] = row.get(run.job.arm, "") + _SIGNS[run.state]
        together: dict[tuple[str, ...], list[str]] = {}
        for domain, row in cells.items():
            together.setdefault(tuple(sorted(row)), []).append(domain)
        lines = []
        for domains in together.values():
            sizes = {
                arm: max(len(arm), *(len(cells[domain][arm]) for domain in domains))
                for arm in cells[domains[0]]
            }
            for arms in _pieces(sizes, width - len(_INDENT) - 1):
                lines.append(_INDENT + "  ".join(f"{arm:{sizes[arm]}}" for arm in arms))
                lines += [
                    f"  {domain:8}" + "  ".join(f"{cells[domain][arm]:{sizes[arm]}}" for arm in arms)
                    for domain in domains
                ]
        return [line.rstrip() for line in lines]

    def _draw(self, lines: list[str]) -> None:
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        self.stream.write(f"{back}{body}\x1b[J")
        self.stream.flush()
        self._drawn = len(lines)

    def summary(self, now: float | None = None) -> str:
        """One line at the end."""
        now = time.monotonic() if now is None else now
        counts = Counter(run.state for run in self.runs.values())
        said = f"{counts['done']} of {len(self.runs)} runs are there"
        return said + (f", {counts['failed']} failed" if counts["failed"] else "")


def _pieces(sizes: dict[str, int], width: int) -> list[list[str]]:
    """Columns in their order, as many side by side as fit a width, at least one."""
    pieces: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if room < size or not pieces:
            pieces.append([])
            room = width
        pieces[-1].append(name)
        room -= size + 2
    return pieces


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
