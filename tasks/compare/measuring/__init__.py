"""Measures of trained models beyond their accuracy: what is attended to, deleted, masked, pruned, and how fast it is.

All are deterministic and leave torch's random state, the model's mode and its weights as they were.
"""

from __future__ import annotations

from mmattn.report.measures import Measures
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.answers import answered
from tasks.compare.measuring.deletion import add_deletion
from tasks.compare.measuring.effort import STANDARD, Effort
from tasks.compare.measuring.findings import Findings
from tasks.compare.measuring.focus import add_focus
from tasks.compare.measuring.heads import add_trials
from tasks.compare.measuring.linear import measure_linear, measure_majority
from tasks.compare.measuring.pruning import add_pruning, importances
from tasks.compare.measuring.redundancy import add_distances, add_likeness
from tasks.compare.measuring.scenes import Scenes, Source
from tasks.compare.measuring.speed import Pace, measure_speed
from tasks.compare.measuring.trunk import Trials, attentions, evaluating, kind_of
from tasks.scenes import SceneData

__all__ = [
    "Effort", "Pace", "measure", "measure_linear", "measure_majority", "measure_speed",
]  # fmt: skip


def measure(
    task: ClassificationTask,
    data: SceneData,
    arm: str,
    untrained: ClassificationTask | None = None,
    *,
    seed: int = 0,
    effort: Effort = STANDARD,
) -> Measures:
    """Measure a trained model.

    Every model answers, and has tokens deleted by gradient and by chance. A model whose attention has weights of its
    own is also asked where it looks, and has tokens deleted by attention; with several heads, these are compared,
    masked and pruned. Uniform attention tells where it looks alone, which is everywhere.

    Args:
        task: the trained model.
        data: what it was trained on.
        arm: its name in the report.
        untrained: the same network with the same seed before training; ``None`` leaves out what is compared with it.
        seed: of the training.
        effort: how much is taken into account.

    Raises:
        ValueError: the data have no distractors.
    """
    if data.level < 1:
        raise ValueError(f"measures need distractors, level at least 1: got {data.level}")
    found = Findings()
    source = Source(data)
    kind = kind_of(task)
    with evaluating(task, *([untrained] if untrained is not None else [])):
        answers = answered(task, source, effort)
        found.curves["accuracy/share"] = answers.over_share()
        add_deletion(found, task, _scenes(task, source, effort.deletion_scenes), kind == "softmax", effort)
        if kind != "none":
            add_focus(found, "focus", task, _scenes(task, source, effort.focus_scenes))
        if kind == "softmax":
            _heads(found, task, source, effort)
            if untrained is not None:
                found.values |= _before(untrained, source, effort)
    return Measures(
        domain=task.domain, arm=arm, seed=seed, test=answers.test, correct=answers.correct,
        standard=str(data.level), values=found.values, curves=found.curves, heads=found.heads,
        matrices=found.matrices,
    )  # fmt: skip


def _scenes(task: ClassificationTask, source: Source, most: int, split: str = "test") -> Scenes:
    return Scenes.of(task, source.data, source.examples(split, source.data.level, most))


def _several(task: ClassificationTask) -> bool:
    return all(module.num_heads > 1 for module in attentions(task).values())


def _heads(found: Findings, task: ClassificationTask, source: Source, effort: Effort) -> None:
    if not _several(task):
        return
    add_distances(found, "heads", task, _scenes(task, source, effort.redundancy_scenes))
    scenes = _scenes(task, source, effort.head_scenes)
    add_likeness(found, "heads", task, scenes)
    known = importances(task, _scenes(task, source, effort.importance_scenes, "val"))
    trials = Trials(task, scenes)
    add_trials(found, trials, known)
    add_pruning(found, trials, known, effort)


def _before(untrained: ClassificationTask, source: Source, effort: Effort) -> dict[str, float | None]:
    """The same measures of the untrained model, as far as they are compared."""
    found = Findings()
    add_focus(found, "focus_untrained", untrained, _scenes(untrained, source, effort.focus_scenes))
    if _several(untrained):
        scenes = _scenes(untrained, source, effort.redundancy_scenes)
        add_distances(found, "heads_untrained", untrained, scenes)
    return found.values
