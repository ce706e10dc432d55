"""Folders of runs: whole or not there, one process at a time, and done again only where something changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.compare import jobs, store
from tasks.compare.jobs import Job, identity
from tasks.compare.store import Busy, RunFolder
from tasks.compare.worker import execute
from tests.tasks.compare import standin

JOB = Job("vision", "attention")


def finish(runs: Path, job: Job = JOB, **facts: object) -> RunFolder:
    folder = RunFolder(runs, job)
    with folder.lock():
        folder.begin()
        (folder.result / "measures.json").write_text("{}")
        folder.finish(facts)
        folder.clean()
    return folder


def test_a_run_appears_as_a_whole(tmp_path):
    folder = RunFolder(tmp_path / "runs", JOB)
    with folder.lock():
        folder.begin()
        (folder.result / "measures.json").write_text("{}")
        assert not folder.path.exists()
        folder.finish({"seconds": 1.0})
    assert {path.name for path in folder.path.iterdir()} == {"measures.json", "job.json", "done.txt"}
    assert folder.finished()


@pytest.mark.parametrize("other", [
    Job("vision", "attention", overrides=("--trainer.max_epochs=1",)),
    Job("vision", "attention", measuring={"examples": 3}),
    Job("vision", "attention", explore=2),
])  # fmt: skip
def test_results_are_reused_only_for_the_very_same_job(tmp_path, other):
    finish(tmp_path / "runs")
    assert RunFolder(tmp_path / "runs", JOB).finished()
    assert not RunFolder(tmp_path / "runs", other).finished()


def test_other_versions_or_another_configuration_are_other_results(monkeypatch):
    before = identity(JOB)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_versions", lambda: {"torch": "0"})
        assert identity(JOB) != before
    assert identity(JOB) == before


def test_a_digest_covers_what_a_run_depends_on_and_no_pages():
    found = {path.relative_to(jobs.ROOT).as_posix() for path in jobs.sources("vision")}
    assert {
        "mmattn/attention.py", "mmattn/training/module.py", "tasks/scenes.py", "tasks/vision/data/digits.py",
        "tasks/compare/arms.py", "tasks/compare/training.py", "tasks/compare/measuring/__init__.py",
    } <= found  # fmt: skip
    assert not {name for name in found if "/report/" in name or "/explore/" in name or "speech" in name}
    assert not {"tasks/compare/progress.py", "tasks/compare/__main__.py", "tasks/compare/verify.py"} & found
    shown = {path.relative_to(jobs.ROOT).as_posix() for path in jobs.sources("vision", explores=True)}
    assert any(name.startswith("mmattn/explore/") for name in shown)


def test_a_changed_source_is_another_result_wherever_the_clone_lies(tmp_path, monkeypatch):
    root = tmp_path / "report" / "clone"
    (root / "mmattn").mkdir(parents=True)
    (root / "tasks").mkdir()
    monkeypatch.setattr(jobs, "ROOT", root)
    found = []
    for text in ("a = 1", "a = 2"):
        (root / "mmattn" / "x.py").write_text(text)
        jobs._code.cache_clear()
        found.append(jobs._code("vision", False))
    jobs._code.cache_clear()
    assert found[0] != found[1]


def test_a_run_that_was_killed_before_its_renaming_is_taken_up(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "publish", lambda self: None)  # killed here
        finish_without_clean(runs)
    assert not (runs / JOB.name).exists()
    assert execute(JOB, runs, 1, lambda share: None, "tests.nowhere:work") == ("there", 0)
    assert RunFolder(runs, JOB).finished()


def finish_without_clean(runs: Path) -> None:
    folder = RunFolder(runs, JOB)
    with folder.lock():
        folder.begin()
        (folder.result / "measures.json").write_text("{}")
        folder.finish({})


def test_an_outdated_run_is_replaced_and_what_it_left_is_not_taken_up(tmp_path):
    runs = tmp_path / "runs"
    finish(runs)
    newer = Job("vision", "attention", overrides=("--a=b",))
    folder = RunFolder(runs, JOB)
    (folder.work / "last.ckpt").write_text("old")
    assert execute(newer, runs, 1, lambda share: None, standin.WORK)[0] == "done"
    assert RunFolder(runs, newer).finished()
    assert not folder.finished()


def test_one_process_at_a_time_and_a_dead_one_holds_nothing(tmp_path):
    runs = tmp_path / "runs"
    code = (
        "import sys, time; from pathlib import Path; from tasks.compare.jobs import Job\n"
        "from tasks.compare.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), Job('vision', 'attention')).lock():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(runs)], stdout=subprocess.PIPE, cwd=jobs.ROOT)
    assert other.stdout is not None
    other.stdout.readline()
    folder = RunFolder(runs, JOB)
    kind, who = execute(JOB, runs, 1, lambda share: None, standin.WORK)
    assert (kind, who) == ("busy", folder.holder())
    assert f"process {other.pid} on " in who
    with pytest.raises(Busy), folder.lock():
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    assert folder.holder() is None
    assert execute(JOB, runs, 1, lambda share: None, standin.WORK)[0] == "done"


def test_a_failed_run_says_why_and_leaves_no_mark(tmp_path):
    job = Job("vision", "attention", overrides=("--trouble=attention",))
    kind, said = execute(job, tmp_path / "runs", 1, lambda share: None, standin.WORK)
    folder = RunFolder(tmp_path / "runs", job)
    assert (kind, said) == ("failed", "RuntimeError: it went wrong and more")
    assert folder.failure() == said
    assert not folder.finished()
    assert {path.name for path in folder.path.iterdir()} == {store.FAILED}
    # and once it works, nothing is left of that
    assert execute(JOB, tmp_path / "runs", 1, lambda share: None, standin.WORK)[0] == "done"
    assert RunFolder(tmp_path / "runs", JOB).failure() is None


def test_a_wrong_argument_is_told_in_a_sentence(tmp_path):
    job = Job("vision", "attention", overrides=("--no.such=1",))
    kind, said = execute(job, tmp_path / "runs", 1, lambda share: None)
    assert kind == "failed"
    assert said.startswith("SystemExit: ")
    assert "no.such" in said
