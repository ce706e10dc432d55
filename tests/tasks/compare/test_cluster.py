"""Grids on a Ray cluster of two machines, of which a worker is killed on the way."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")

import ray

from tasks.compare.executors import executor
from tasks.compare.executors.cluster import RayExecutor
from tasks.compare.running import run_grid
from tests.tasks.compare import standin

NAMES = {"vision-attention-0", "vision-attention-1", "vision-uniform-0", "vision-uniform-1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two machines with a core each."""
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    machines.add_node(num_cpus=1)
    yield machines.address
    ray.shutdown()
    machines.shutdown()


def kill_first(begun: Path) -> None:
    """Kill the process of the first run that begins."""
    while not begun.exists() or not begun.read_text().strip():
        time.sleep(0.05)
    os.kill(int(begun.read_text().split()[1]), signal.SIGKILL)


def test_a_cluster_of_two_does_a_grid_though_a_worker_is_killed(tmp_path, tiny: Callable, begun, cluster):
    where = executor("ray", address=cluster)
    assert where.places == 2
    (tmp_path / ".work").mkdir()
    killer = threading.Thread(target=kill_first, args=(tmp_path / ".work" / "begun.txt",))
    killer.start()
    shown = io.StringIO()
    outcome = run_grid(tiny(pause=0.1), tmp_path, where, standin.WORK, shown)
    killer.join()
    assert set(outcome.done) == NAMES, outcome.failed
    assert not outcome.failed
    assert len(begun()) == 5, "one was begun again"
    assert set(begun()) == NAMES
    assert "[4/4]" in shown.getvalue()


def test_machines_that_do_not_share_the_folder_send_their_results(tmp_path, tiny, begun, cluster):
    where = RayExecutor(address=cluster, shared=False)
    outcome = run_grid(tiny(trouble="uniform"), tmp_path, where, standin.WORK, io.StringIO())
    assert set(outcome.done) == {"vision-attention-0", "vision-attention-1"}
    assert set(outcome.failed.values()) == {"RuntimeError: it went wrong and more"}
    assert not begun(), "the run was made elsewhere"
    run = tmp_path / "runs" / "vision-attention-0"
    assert {path.name for path in run.iterdir()} == {"measures.json", "job.json", "done.txt"}
    assert [path.name for path in (tmp_path / "runs" / "vision-uniform-0").iterdir()] == ["failed.json"]
    again = run_grid(tiny(), tmp_path, where, standin.WORK, io.StringIO())
    assert set(again.done) == NAMES
