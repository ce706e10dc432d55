"""Where the runs of a grid are done: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from tasks.compare.executors.base import Event, Executor, cores
from tasks.compare.executors.local import LocalExecutor

__all__ = ["Event", "Executor", "LocalExecutor", "cores", "executor"]

NAMES = ("local", "ray")


def executor(name: str, jobs: int | None = None, address: str | None = None) -> Executor:
    """The executor of a name.

    Args:
        name: ``local`` or ``ray``.
        jobs: runs side by side; one for each core, of the cluster with Ray, unless given.
        address: of the Ray cluster: ``auto`` finds one that runs here; None starts one of this machine alone.

    Raises:
        ValueError: there is no such executor, or ``jobs`` is below 1.
        ImportError: Ray is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"executor must be one of {', '.join(NAMES)}: got {name!r}")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1: got {jobs}")
    if name == "local":
        return LocalExecutor(jobs)
    from tasks.compare.executors.cluster import RayExecutor

    return RayExecutor(jobs, address)
