"""Grids as a whole: kept, retried, shared, killed, and listed when they fail."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from benchmarks.report.kills import survive
from tasks.compare import __main__ as command
from tasks.compare.executors import LocalExecutor, executor
from tasks.compare.jobs import ROOT
from tasks.compare.running import run_grid, standing
from tests.tasks.compare import standin

NAMES = {"vision-attention-0", "vision-attention-1", "vision-uniform-0", "vision-uniform-1"}


def run(grid, out, jobs=2):
    shown = io.StringIO()
    return run_grid(grid, out, LocalExecutor(jobs), standin.WORK, shown), shown.getvalue()


def test_a_grid_leaves_its_runs_and_does_none_twice(tmp_path, tiny, begun):
    outcome, shown = run(tiny(), tmp_path)
    assert set(outcome.done) == NAMES
    assert not outcome.failed
    assert sorted(begun()) == sorted(NAMES)
    assert "[4/4] vision-" in shown
    assert "4 of 4 runs are there" in shown
    for name in NAMES:
        facts = json.loads((tmp_path / "runs" / name / "job.json").read_text())
        assert facts["threads"] >= 1
        assert {path.name for path in (tmp_path / "runs" / name).iterdir()} == {
            "measures.json",
            "job.json",
            "done.txt",
        }
        assert [path.name for path in (tmp_path / ".work" / name).iterdir()] == ["lock"]
    asked = json.loads((tmp_path / "runs" / "grid.json").read_text())
    assert set(asked["runs"]) == NAMES
    assert asked["domains"]["vision"]["title"]
    (tmp_path / "runs" / "other-machine").mkdir()
    (tmp_path / "runs" / "other-machine" / "measures.json").touch()
    again, shown = run(tiny(), tmp_path)
    assert set(again.done) == NAMES
    assert "which its report shows as well: other-machine" in shown
    assert len(begun()) == 4
    assert "4 of 4 runs are there already" in shown


def test_a_failed_run_does_not_stop_the_rest(tmp_path, tiny):
    outcome, shown = run(tiny(trouble="uniform"), tmp_path)
    assert set(outcome.done) == {"vision-attention-0", "vision-attention-1"}
    assert outcome.failed == dict.fromkeys(
        sorted(NAMES - set(outcome.done)), "RuntimeError: it went wrong and more"
    )
    assert "vision-uniform-0 failed: RuntimeError" in shown
    assert "2 of 4 runs are there, 2 failed" in shown
    lines = standing(tiny(trouble="uniform"), tmp_path).standing()
    assert lines[0] == "2 done, 0 running, 2 failed, 0 waiting"
    assert "  vision-uniform-0         failed: RuntimeError: it went wrong and more" in lines


def test_a_run_whose_process_dies_is_tried_again(tmp_path, tiny, begun):
    outcome, shown = run(tiny(die="uniform"), tmp_path, jobs=1)
    assert set(outcome.done) == NAMES
    assert sorted(begun()) == sorted([*NAMES, "vision-uniform-0", "vision-uniform-1"])
    assert "tried again: its process ended with status -9" in shown


def test_a_run_whose_process_always_dies_fails_alone(tmp_path, tiny):
    outcome, _ = run(tiny(die="always"), tmp_path)
    assert not outcome.done
    assert set(outcome.failed.values()) == {"its process ended with status -9, twice"}
    assert json.loads((tmp_path / "runs" / "vision-uniform-1" / "failed.json").read_text())["error"]


def test_two_commands_in_one_folder_share_the_work(tmp_path, tiny, begun):
    with ThreadPoolExecutor() as both:
        first, second = both.map(lambda _: run(tiny(pause=0.05), tmp_path)[0], range(2))
    assert set(first.done) == set(second.done) == NAMES
    assert sorted(begun()) == sorted(NAMES)


def test_a_grid_under_way_can_be_looked_at(tmp_path, tiny):
    with ThreadPoolExecutor() as one:
        grid = one.submit(run, tiny(pause=0.1), tmp_path, 1)
        deadline = time.monotonic() + 30
        seen = ""
        while "running: process" not in seen and time.monotonic() < deadline:
            seen = "\n".join(standing(tiny(pause=0.1), tmp_path).standing())
            time.sleep(0.1)
        grid.result()
    assert "running: process" in seen


def test_workers_end_with_the_command_that_began_them(tmp_path, tiny):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"domains": ["vision"], "extra": ["--pause=3"]}))
    child = [
        sys.executable,
        "-m",
        "benchmarks.report.kills",
        "--child",
        str(config),
        str(tmp_path / "o"),
        standin.WORK,
    ]
    process = subprocess.Popen(child, cwd=ROOT, stdout=subprocess.DEVNULL)
    begun = tmp_path / "o" / ".work" / "begun.txt"
    while not begun.exists() and process.poll() is None:
        time.sleep(0.05)
    worker = int(begun.read_text().split()[1])
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(worker)
    assert not (tmp_path / "o" / "runs" / "vision-attention-0").exists()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_grid_killed_ten_times_loses_nothing_that_was_finished(tmp_path):
    config = tmp_path / "tiny.yaml"
    plain = {
        "domains": ["vision"],
        "arms": ["attention", "uniform", "mlp"],
        "seeds": 2,
        "extra": ["--pause=0.05"],
    }
    config.write_text(yaml.safe_dump(plain))
    found = survive(config, tmp_path, kills=10, longest=1.5, work=standin.WORK)
    assert (found.kills, found.runs) == (10, 6)
    assert not found.lost
    assert not found.broken
    assert not found.different
    assert found.finished_before == sorted(found.finished_before)
    assert max(found.finished_before) > 0, "killed too early to show anything"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["run", "--config", "nothing"], "the configuration must be a file, or one of "),
        (["run", "--jobs", "0"], "jobs must be at least 1: got 0"),
        (
            ["verify", "nowhere"],
            "the report must have finished runs of this command: got none in nowhere/runs",
        ),
        (["verify", "--sample", "0"], "sample must be at least 1: got 0"),
    ],
)
def test_wrong_arguments_are_a_sentence_and_status_2(given, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(given) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1


def test_the_command_ends_with_status_1_after_a_failure_and_still_writes_the_report(
    tmp_path, monkeypatch, capsys
):
    config = tmp_path / "c.yaml"
    config.write_text(
        yaml.safe_dump({"domains": ["vision"], "arms": ["attention", "mlp"], "extra": ["--trouble=mlp"]})
    )
    written = []
    monkeypatch.setattr(command, "write", written.append)
    monkeypatch.setattr(
        command, "run_grid", lambda grid, out, where: run_grid(grid, out, where, standin.WORK)
    )
    assert command.main(["run", "--config", str(config), "--out", str(tmp_path), "--jobs", "1"]) == 1
    assert written == [tmp_path]
    assert "failed: vision-mlp-0: RuntimeError: it went wrong and more" in capsys.readouterr().out
    assert command.main(["status", "--config", str(config), "--out", str(tmp_path)]) == 0
    assert "1 done, 0 running, 1 failed, 0 waiting" in capsys.readouterr().out


def test_there_are_two_executors():
    with pytest.raises(ValueError, match="executor must be one of local, ray: got 'cloud'"):
        executor("cloud")
