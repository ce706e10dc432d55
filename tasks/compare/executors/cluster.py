"""Runs on a Ray cluster, whether or not its machines share the folder of the results."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmattn.training.record import git_commit
from tasks.compare.executors.base import Event
from tasks.compare.jobs import COMMIT, Job
from tasks.compare.store import RunFolder
from tasks.compare.suite import ROOT
from tasks.compare.worker import WORK, execute

_PATIENCE = 2.0  # seconds before a run that another process is at is looked at again
_TRIES = 4  # of a run whose process or machine dies


class RayExecutor:
    """Runs as tasks of a Ray cluster, one core each; Ray tries again those whose worker or machine dies.

    The code of this checkout goes to every machine; the packages must be there. A machine that sees the folder of the
    results works in it, so that a run goes on from its last epoch; any other one sends its results back.

    Args:
        jobs: runs side by side; as many as the cluster has cores, unless given.
        address: of the cluster; ``auto`` finds one that runs here, None starts one of this machine alone.
        shared: False lets no machine work in the folder of the results itself.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """

    def __init__(self, jobs: int | None = None, address: str | None = None, shared: bool = True) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError('--executor ray needs Ray: pip install "mmattn[ray]"') from error
        self.shared = shared
        self._stage = tempfile.TemporaryDirectory(prefix="grid-")
        if not ray.is_initialized():
            code = _staged(Path(self._stage.name))
            commit = {COMMIT: git_commit() or ""}
            environment = {"working_dir": code, "env_vars": commit}
            ray.init(address=address, runtime_env=environment, log_to_driver=False)
        self._ray = ray
        self.places = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, jobs: Sequence[Job], runs: Path, hear: Callable[[Event], None], work: str = WORK) -> None:
        """See :class:`~tasks.compare.executors.base.Executor`."""
        sign = runs / f".{uuid.uuid4().hex}"
        sign.touch()
        try:
            beside = _Round(self._ray, runs, sign.name if self.shared else "", hear, work, self.places)
            beside.run([job for job in jobs if not job.alone])
            alone = _Round(self._ray, runs, sign.name if self.shared else "", hear, work, 1)
            alone.run([job for job in jobs if job.alone])
        finally:
            sign.unlink(missing_ok=True)


def _staged(folder: Path) -> str:
    """A copy of the code alone: Ray sends the whole folder."""
    for name in ("mmattn", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return str(folder)


class _Round:
    """Jobs that may run side by side."""

    def __init__(
        self, ray: Any, runs: Path, sign: str, hear: Callable[[Event], None], work: str, places: int
    ) -> None:
        self.ray, self.runs, self.sign, self.hear, self.work = ray, runs, sign, hear, work
        self.places = places
        self.board = ray.remote(num_cpus=0)(Board).remote()
        self.remote = ray.remote(num_cpus=1, max_retries=_TRIES - 1)(remotely)

    def run(self, jobs: Sequence[Job]) -> None:
        waiting = [(0.0, job) for job in jobs]
        running: dict[Any, Job] = {}
        while waiting or running:
            ready = [pair for pair in waiting if pair[0] <= time.monotonic()]
            for pair in ready[: self.places - len(running)]:
                waiting.remove(pair)
                asked = (pair[1].plain(), str(self.runs), self.sign, self.work, self.board)
                running[self.remote.remote(*asked)] = pair[1]
            finished, _ = self.ray.wait(list(running), timeout=0.5) if running else ([], [])
            if not running:
                time.sleep(0.2)
            under_way = {job.name for job in running.values()}
            for name, share in self.ray.get(self.board.take.remote()):
                if name in under_way:  # news of a run may come after its end
                    self.hear(Event("share" if share else "start", name, share))
            for future in finished:
                job = running.pop(future)
                if self._heard(job, future) == "busy":
                    waiting.append((time.monotonic() + _PATIENCE, job))
            self.hear(Event("tick"))

    def _heard(self, job: Job, future: Any) -> str:
        folder = RunFolder(self.runs, job)
        try:
            kind, value, files = self.ray.get(future)
        except self.ray.exceptions.RayError as error:
            kind, value, files = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}", None
            folder.fail(value, str(error))
        if files is not None:
            _unpack(folder, files)
        if kind in ("busy", "failed"):
            self.hear(Event(kind, job.name, text=value))
        else:
            self.hear(Event(kind, job.name, value))
        return str(kind)


class Board:
    """Where tasks write how far they are, and the driver reads it."""

    def __init__(self) -> None:
        self._news: dict[str, float] = {}

    def tell(self, name: str, share: float) -> None:
        """Note a share."""
        self._news[name] = share

    def take(self) -> list[tuple[str, float]]:
        """What is new."""
        news, self._news = self._news, {}
        return list(news.items())


def remotely(
    plain: dict[str, Any], runs: str, sign: str, work: str, board: Any
) -> tuple[str, Any, dict[str, str] | None]:
    """Do a job on a machine of the cluster.

    Args:
        plain: the job.
        runs: folder of the results, as the driver calls it.
        sign: name of a file in it by which it is known to be the same folder here.
        work: the function that does the job.
        board: see :class:`Board`.

    Returns:
        The answer of :func:`~tasks.compare.worker.execute`, and the files where the folder is not to be seen here.
    """
    job = Job.read(plain)
    board.tell.remote(job.name, 0.0)

    def tell(share: float) -> None:
        board.tell.remote(job.name, share)

    if sign and (Path(runs) / sign).exists():
        return *execute(job, Path(runs), 1, tell, work), None
    with tempfile.TemporaryDirectory() as place:
        kind, value = execute(job, Path(place) / "runs", 1, tell, work)
        made = RunFolder(Path(place) / "runs", job).path
        return kind, value, {path.name: path.read_text(encoding="utf-8") for path in sorted(made.iterdir())}


def _unpack(folder: RunFolder, files: dict[str, str]) -> None:
    """Let results that came from elsewhere appear as a whole."""
    with folder.lock():
        folder.begin()
        for name, text in files.items():
            (folder.result / name).write_text(text, encoding="utf-8", newline="\n")
        folder.publish()
        folder.clean()
