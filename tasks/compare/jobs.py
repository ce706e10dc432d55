"""The runs of the comparison, each in a process of its own kind: a training, or the controls of a domain."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from mmattn.report import ExampleFile
from mmattn.training.cli import TaskCLI
from mmattn.training.record import RecordRun, versions
from tasks.compare.controls import linear_control, majority
from tasks.compare.examples import attention_examples, pooling_mass
from tasks.compare.suite import ARMS, ROOT, domain_task

Report = Callable[[float], None]


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``.
        arm: an arm of the suite, or ``controls``.
        seed: of the training.
    """

    domain: str
    arm: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Folder of the results."""
        return f"{self.domain}-{self.arm}-{self.seed}"


def key(job: Job, extra: list[str]) -> str:
    """Digest of all that the results of a job depend on: code, configuration, versions and arguments."""
    content = hashlib.sha256()
    for folder in ("mmattn", "tasks"):
        for path in sorted((ROOT / folder).rglob("*")):
            place = path.relative_to(ROOT)
            # how the report looks changes no result
            if path.suffix in (".py", ".yaml") and "report" not in place.parts:
                content.update(place.as_posix().encode() + path.read_bytes())
    content.update(json.dumps([asdict(job), extra, versions()], sort_keys=True).encode())
    return content.hexdigest()


def done(job: Job, folder: Path, extra: list[str]) -> bool:
    """Whether the results of the job lie in the folder, made by this very code and configuration."""
    mark = folder / job.name / "done.txt"
    return mark.exists() and mark.read_text() == key(job, extra)


def run(job: Job, folder: Path, extra: list[str], report: Report) -> None:
    """Do a job and leave its results in ``folder / job.name``.

    Args:
        job: what to do.
        folder: of all results.
        extra: further arguments of the command line.
        report: is told the share that is done, 0 to 1.
    """
    # Set for this worker process alone, whose output would tear the progress bar.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    mark = folder / job.name / "done.txt"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    identity = key(job, extra)
    (_controls if job.arm == "controls" else _train)(job, mark.parent, extra, report)
    mark.write_text(identity)
    report(1.0)


def build(job: Job, folder: Path, extra: list[str]) -> TaskCLI:
    """Data, model and trainer of a job, from the domain's configuration."""
    part = domain_task(job.domain)
    quiet = [
        "--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    ]  # fmt: skip
    args = [f"--config={part.config_path}", f"--seed_everything={job.seed}", *ARMS.get(job.arm, [])]
    place = f"--trainer.default_root_dir={folder}"
    cli = TaskCLI(part.task_class(), [*args, *quiet, place, *extra], run=False)
    if cli.datamodule.level < 1:
        raise ValueError(f"a comparison needs distractors, level at least 1: got {cli.datamodule.level}")
    return cli


def _train(job: Job, folder: Path, extra: list[str], report: Report) -> None:
    cli = build(job, folder, extra)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    callbacks.append(_Progress(report))
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    recorder = next(part for part in callbacks if isinstance(part, RecordRun))
    assert recorder.record is not None
    if job.arm == "attention":
        mass, share = pooling_mass(task, data.sets["test"])
        found: dict[str, float | None] = {"relevant/mass": mass, "relevant/share": share}
        replace(recorder.record, metrics=recorder.record.metrics | found).save(folder / "record.json")
        ExampleFile(attention_examples(task, data.sets["test"])).save(folder / "examples.json")


def _controls(job: Job, folder: Path, extra: list[str], report: Report) -> None:
    import sklearn.linear_model  # noqa: F401  # so that its libraries are there to be limited
    from threadpoolctl import threadpool_limits

    cli = build(job, folder, extra)
    # two jobs that take every core each are slower than one after the other
    with threadpool_limits(torch.get_num_threads()):
        _measure_controls(job, folder, cli, report)


def _measure_controls(job: Job, folder: Path, cli: TaskCLI, report: Report) -> None:
    sets = cli.datamodule.sets
    plain = cli.datamodule.scenes("train", 0, None)
    results: dict[str, Any] = {}
    results["majority"] = majority(plain, sets["test"])
    begin = time.perf_counter()
    results["linear_plain"] = linear_control(job.domain, plain, sets["test_plain"])
    report(0.3)
    standard = cli.datamodule.scenes("train", cli.datamodule.level, None)
    standard.train_levels = "fixed"
    results["linear_standard"] = linear_control(job.domain, standard, sets["test"])
    results["linear_seconds"] = time.perf_counter() - begin
    results["n_test"] = len(sets["test"])
    results["level"] = cli.datamodule.level
    (folder / "controls.json").write_text(json.dumps(results, indent=2))


class _Progress(Callback):
    """Tells the share of the training steps that are done."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total = trainer.estimated_stepping_batches

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step % 10 == 0:
            # the last stretch is for the test and the examples
            self.report(0.93 * trainer.global_step / self.total)
