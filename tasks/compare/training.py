"""Doing one run: a Lightning training with its record, or a control, and what is measured on it."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer

from mmattn.report.measures import Measures
from mmattn.training.cli import TaskCLI
from mmattn.training.data import ExampleSet
from mmattn.training.memory import quick_memory
from mmattn.training.record import RecordRun
from tasks.compare.arms import CONTROLS, overrides
from tasks.compare.jobs import COMMIT, JOINT, SPEED, Job
from tasks.compare.resuming import KeepEpochs
from tasks.compare.suite import domain_task

Tell = Callable[[float], None]

TRAINED = 0.8
"""Share of a run that is its training."""


def work(job: Job, scratch: Path, result: Path, tell: Tell, threads: int) -> None:
    """Do a job and leave its files in ``result``.

    Args:
        job: what to do.
        scratch: folder for what helps to go on after a kill; it is kept until the job is done.
        result: folder of the results: ``measures.json``, of a training also ``record.json``, ``config.yaml`` and,
            where the job asks for it, ``exploration.json``.
        tell: is told the share that is done, 0 to 1.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    quick_memory()
    _quiet()
    if job.domain == SPEED:
        _time(job).save(result / "measures.json")
    elif job.domain == JOINT:
        _train_jointly(job, scratch, result, tell)
    elif job.arm in CONTROLS:
        _control(job, result).save(result / "measures.json")
    else:
        _train(job, scratch, result, tell)


def _quiet() -> None:
    """Let Lightning say nothing in this process, whose output nobody reads."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def build(job: Job, folder: Path) -> TaskCLI:
    """Data, model and trainer of a job, from the domain's configuration.

    Raises:
        ValueError: the data have no distractors.
    """
    part = domain_task(job.domain)
    still = [
        "--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        "--trainer.num_sanity_val_steps=0", f"--trainer.default_root_dir={folder}",
    ]  # fmt: skip
    arm = [] if job.arm in CONTROLS else overrides(job.arm, job.domain)
    given = [f"--config={part.config_path}", f"--seed_everything={job.seed}", *still, *job.overrides, *arm]
    cli = TaskCLI(part.task_class(), given, run=False)
    if cli.datamodule.level < 1:
        raise ValueError(f"a comparison needs distractors, level at least 1: got {cli.datamodule.level}")
    return cli


def _train(job: Job, scratch: Path, result: Path, tell: Tell) -> None:
    from tasks.compare.measuring import Effort, measure

    cli = build(job, result)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    data.setup()
    task.prepare(data, "fit")
    untrained = copy.deepcopy(task)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    last = scratch / "last.ckpt"
    callbacks += [TellShare(tell), KeepEpochs(last)]
    trainer.fit(task, data, ckpt_path=last if last.exists() else None)
    trainer.test(task, data, verbose=False)
    name_record(job, callbacks, result)
    tell(TRAINED)
    effort = Effort(**_tuples(job.measuring))
    measures = measure(task, data, job.arm, untrained, seed=job.seed, effort=effort)
    measures.save(result / "measures.json")
    if job.explore:
        _explore(job, task, data.sets["test"], measures, result)


def name_record(job: Job, callbacks: list[Callback], result: Path) -> None:
    """Save the record of a training under the name of its arm.

    A task knows its domain and whether its attention is uniform; the arms have more names.
    """
    recorder = next(part for part in callbacks if isinstance(part, RecordRun))
    assert recorder.record is not None
    name = f"{job.domain} {recorder.record.data.name} {job.arm}"
    commit = recorder.record.git_commit or os.environ.get(COMMIT) or None
    replace(recorder.record, name=name, arm=job.arm, git_commit=commit).save(result / "record.json")


def _train_jointly(job: Job, scratch: Path, result: Path, tell: Tell) -> None:
    from tasks.compare.joint import train

    train(job, scratch, result, tell)


def _explore(job: Job, task: Any, scenes: ExampleSet, measures: Measures, result: Path) -> None:
    """The first test scenes that the model gets wrong, one in four, and the first that it gets right."""
    from mmattn.explore import explore, right_and_wrong, save

    wrong = max(1, job.explore // 4)
    chosen = right_and_wrong(task, cast("Any", scenes), job.explore - wrong, wrong)
    importance: dict[str, list[float]] = {}
    for head in measures.heads:
        if head.importance is not None:
            importance.setdefault(head.layer, []).append(head.importance)
    titles = [f"Test scene {index}" for index in chosen]
    items = [scenes[index] for index in chosen]
    found = explore(task, items, titles=titles, name=job.arm, importance=importance or True)
    save(found, result / "exploration.json")


def _control(job: Job, result: Path) -> Measures:
    import sklearn.linear_model  # noqa: F401  # so that its libraries are there to be limited
    from threadpoolctl import threadpool_limits

    from tasks.compare.measuring import Effort, measure_linear, measure_majority

    cli = build(job, result)
    effort = Effort(**_tuples(job.measuring))
    # two jobs that take every core each are slower than one after the other
    with threadpool_limits(torch.get_num_threads()):
        made = measure_linear if job.arm == "linear" else measure_majority
        return made(job.domain, cli.datamodule, seed=job.seed, effort=effort)


def _time(job: Job) -> Measures:
    from tasks.compare.measuring import Pace, measure_speed

    return measure_speed(Pace(**_tuples(job.measuring)))


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


class TellShare(Callback):
    """Tells the share of a run that is done while it trains.

    Args:
        tell: is told the share.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.total = 1.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total = trainer.estimated_stepping_batches

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step % 10 == 0:
            self.tell(TRAINED * trainer.global_step / self.total)
