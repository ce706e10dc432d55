"""One trunk for all senses beside trunks of their own: trainings of :mod:`tasks.joint`, asked answer by answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback

from mmattn.report.measures import Measures
from tasks.compare.jobs import Job
from tasks.compare.measuring.answers import marked
from tasks.compare.measuring.effort import STANDARD
from tasks.compare.measuring.scenes import Source
from tasks.compare.measuring.trunk import evaluating
from tasks.compare.resuming import KeepEpochs
from tasks.compare.training import TRAINED, Tell, TellShare, name_record
from tasks.joint.arms import Arm, Settings, build
from tasks.joint.data import JointData
from tasks.joint.module import JointClassification

_BATCH = 64


def arm_of(job: Job) -> Arm:
    """What a job trains."""
    kind, _, sense = job.arm.partition("_")
    return Arm(kind, sense, job.seed)


def train(job: Job, scratch: Path, result: Path, tell: Tell) -> None:
    """Train an arm, and leave its record and its answers in ``result``; arguments as of the grid's other runs.

    All arms take as many steps: an epoch is ``trainer.limit_train_batches`` of them, whatever a sense has.

    Raises:
        ValueError: an epoch is no number of batches that each sense of the arm has.
    """
    arm = arm_of(job)
    cli = build(arm, Settings(extra=job.overrides), result)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    data.setup()
    _same_steps(trainer.limit_train_batches, data)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    last = scratch / "last.ckpt"
    callbacks += [TellShare(tell), KeepEpochs(last, loaders=len(data.parts))]
    trainer.fit(task, data, ckpt_path=last if last.exists() else None)
    trainer.test(task, data, verbose=False)
    name_record(job, callbacks, result)
    tell(TRAINED)
    measured(job, task, data).save(result / "measures.json")


def _same_steps(limit: int | float, data: JointData) -> None:
    for sense, part in data.parts.items():
        count = len(part.train_dataloader())
        if not isinstance(limit, int) or not 1 <= limit <= count:
            raise ValueError(
                f"trainer.limit_train_batches must be a number of batches from 1 to the {count} of {sense}, "
                f"so that all arms take as many steps: got {limit}"
            )


def measured(job: Job, task: JointClassification, data: JointData) -> Measures:
    """Answers to the test scenes of each sense, a level each; the level is that of the sense's own comparison."""
    most = job.measuring.get("examples", STANDARD.examples)
    correct, tests = {}, []
    with evaluating(task):
        for sense in task.senses:
            part: Any = data.parts[sense]
            source = Source(part)
            examples = source.examples("test", part.level, most)
            answers: list[int] = []
            for start in range(0, len(examples), _BATCH):
                items = part.collate(examples[start : start + _BATCH]).items
                answers += task.logits(sense, items).argmax(-1).tolist()
            correct[sense] = marked(answers, examples)
            tests.append(f"{sense}={source.fingerprint('test', part.level)}/{most}")
    trunk = float(sum(p.numel() for p in task.encoder.parameters()))
    return Measures(
        domain=job.domain, arm=job.arm, seed=job.seed, test=" ".join(tests), correct=correct,
        standard=next(iter(correct)), values={"trunk/parameters": trunk},
    )  # fmt: skip
