"""Joint trainings as runs of a grid: their files, their steps, and going on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("sklearn")
pytest.importorskip("django")
pytest.importorskip("espeakng_loader")

from benchmarks.report.kills import results
from mmattn.report.measures import Measures
from mmattn.report.records import RunRecord
from mmattn.report.runs import unmeasured
from tasks.compare.jobs import Job
from tasks.compare.store import RunFolder
from tasks.compare.worker import execute

pytestmark = pytest.mark.usefixtures("aside")

EPOCHS = 3


def small(arm: str, *extra: str) -> Job:
    """A training of some seconds on two senses, without speech, whose synthesis takes its time."""
    few = (
        "--trainer.limit_train_batches=4",
        "--trainer.limit_test_batches=1",
        f"--trainer.max_epochs={EPOCHS}",
    )
    two = ("--data.init_args.speech=null", "--model.speech=null") if arm == "joint" else ()
    return Job("joint", arm, 0, (*few, *two, *extra), {"examples": 40})


class Killed(BaseException):
    """As good as a signal: nothing catches it."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs that nobody disturbed."""
    runs = tmp_path_factory.mktemp("alone") / "runs"
    for arm in ("joint", "separate_vision", "third_vision"):
        answer = execute(small(arm), runs, 1, lambda share: None)
        assert answer[0] == "done", answer
    return runs


def test_joint_and_separate_runs_answer_the_same_questions(alone):
    found = {arm: Measures.load(alone / f"joint-{arm}-0" / "measures.json")
             for arm in ("joint", "separate_vision", "third_vision")}  # fmt: skip
    joint, separate, third = found.values()
    assert {level: len(marks) for level, marks in joint.correct.items()} == {"vision": 40, "text": 40}
    assert set(separate.correct) == set(third.correct) == {"vision"}
    assert joint.questions("vision") == separate.questions("vision") == third.questions("vision")
    assert joint.questions("vision") != joint.questions("text")
    sizes = [measures.values["trunk/parameters"] for measures in found.values()]
    assert sizes[0] == sizes[1] == pytest.approx(3 * sizes[2], rel=0.01)


def test_every_run_has_its_record(alone):
    assert unmeasured(alone) == []
    for arm in ("joint", "separate_vision"):
        record = RunRecord.load(alone / f"joint-{arm}-0" / "record.json")
        assert (record.domain, record.arm, record.seed, len(record.epochs)) == ("joint", arm, 0, EPOCHS)


@pytest.mark.parametrize("share", [0.6, 0.8], ids=["in its third epoch", "after its training"])
@pytest.mark.parametrize("arm", ["joint", "separate_vision"])
def test_a_killed_run_ends_as_one_left_alone(tmp_path, alone, arm, share):
    def tell(done: float) -> None:
        if done >= share:
            raise Killed

    job = small(arm)
    with pytest.raises(Killed):
        execute(job, tmp_path / "runs", 1, tell)
    folder = RunFolder(tmp_path / "runs", job)
    assert not folder.path.exists()
    kept = torch.load(folder.work / "last.ckpt", weights_only=True)
    assert kept["epoch"] == (EPOCHS if share == 0.8 else 2) - 1
    assert execute(job, tmp_path / "runs", 1, lambda done: None)[0] == "done"
    assert results(folder.path) == results(alone / job.name)


def test_an_epoch_must_fit_every_sense(tmp_path):
    job = small("joint", "--trainer.limit_train_batches=39")
    said = execute(job, tmp_path / "runs", 1, lambda share: None)
    rule = "trainer.limit_train_batches must be a number of batches from 1 to the 38 of vision"
    assert said == ("failed", f"ValueError: {rule}, so that all arms take as many steps: got 39")
