"""Real runs of a grid: their files, and going on after a kill as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from benchmarks.report.kills import CONFIG, results
from mmattn.report.measures import Measures
from mmattn.report.records import RunRecord
from tasks.compare.grid import Grid
from tasks.compare.jobs import Job
from tasks.compare.store import RunFolder
from tasks.compare.training import build
from tasks.compare.worker import execute

pytestmark = pytest.mark.usefixtures("aside")

SMALL = Grid.load(CONFIG).jobs()[0]
EPOCHS = 3
STEPS = 12


def small(**changed: Any) -> Job:
    """A training of some seconds."""
    few = tuple(
        f"--trainer.max_epochs={EPOCHS}" if "max_epochs" in each else each for each in SMALL.overrides
    )
    return replace(SMALL, overrides=few, **changed)


class Killed(BaseException):
    """As good as a signal: nothing catches it."""


def killed_at(share: float) -> Callable[[float], None]:
    """Ends the run when so much of it is done."""

    def tell(done: float) -> None:
        if done >= share:
            raise Killed

    return tell


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs with one that nobody disturbed."""
    runs = tmp_path_factory.mktemp("alone") / "runs"
    assert execute(small(explore=3), runs, 1, lambda share: None)[0] == "done"
    return runs


def test_a_training_leaves_its_record_measures_and_exploration(alone):
    run = alone / SMALL.name
    names = {"record.json", "config.yaml", "measures.json", "exploration.json", "job.json", "done.txt"}
    assert {path.name for path in run.iterdir()} == names
    record, measures = RunRecord.load(run / "record.json"), Measures.load(run / "measures.json")
    assert (record.domain, record.arm, record.seed, len(record.epochs)) == ("vision", "attention", 0, EPOCHS)
    assert (measures.domain, measures.arm, measures.seed, measures.standard) == (
        "vision",
        "attention",
        0,
        "3",
    )
    assert set(measures.correct) == {"0", "3"}
    assert {"focus/log_ratio", "focus_untrained/log_ratio", "deletion/random", "heads/js"} <= set(
        measures.values
    )


@pytest.mark.parametrize("share", [0.4, 0.8], ids=["in its second epoch", "after its training"])
def test_a_killed_run_ends_as_one_left_alone(tmp_path, alone, share):
    job = small(explore=3)
    with pytest.raises(Killed):
        execute(job, tmp_path / "runs", 1, killed_at(share))
    folder = RunFolder(tmp_path / "runs", job)
    assert not folder.path.exists()
    kept = torch.load(folder.work / "last.ckpt", weights_only=True)
    assert kept["epoch"] == (EPOCHS if share == 0.8 else 1) - 1
    assert execute(job, tmp_path / "runs", 1, lambda done: None)[0] == "done"
    assert results(folder.path) == results(alone / job.name)
    assert not (folder.work / "last.ckpt").exists()


def test_the_seed_matters(tmp_path, alone):
    job = small(seed=1)
    assert execute(job, tmp_path / "runs", 1, lambda share: None)[0] == "done"
    found = results(tmp_path / "runs" / job.name)
    assert found["measures.json"]["correct"] != results(alone / SMALL.name)["measures.json"]["correct"]


def test_another_arm_is_named_in_its_record(tmp_path):
    job = small(arm="mlp")
    assert execute(job, tmp_path / "runs", 1, lambda share: None)[0] == "done"
    record = RunRecord.load(tmp_path / "runs" / job.name / "record.json")
    assert (record.arm, record.name) == ("mlp", "vision Digits mlp")


@pytest.mark.parametrize("arm", ["linear", "majority"])
def test_a_control_has_measures_alone(tmp_path, arm):
    job = Job("vision", arm, measuring={"levels": [0], "examples": 100})
    assert execute(job, tmp_path / "runs", 1, lambda share: None)[0] == "done"
    run = tmp_path / "runs" / job.name
    assert {path.name for path in run.iterdir()} == {"measures.json", "job.json", "done.txt"}
    correct = Measures.load(run / "measures.json").correct
    assert {level: len(answers) for level, answers in correct.items()} == {"0": 100, "3": 100}
    plain = correct["0"].count("1")
    assert plain > 80 if arm == "linear" else plain < 30


def test_timings_are_a_run_of_their_own(tmp_path):
    job = Job("speed", "speed", measuring={"lengths": [16], "rounds": 2, "seconds": 0.001, "embed_dim": 16})
    assert execute(job, tmp_path / "runs", 1, lambda share: None)[0] == "done"
    repeats = Measures.load(tmp_path / "runs" / job.name / "measures.json").repeats
    assert {len(repeats[f"{what}/train/16"]) for what in ("fused", "loop", "lstm", "gru", "attention")} == {2}


def test_a_comparison_without_distractors_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^a comparison needs distractors, level at least 1: got 0$"):
        build(Job("vision", "attention", overrides=("--data.init_args.level=0",)), tmp_path)
