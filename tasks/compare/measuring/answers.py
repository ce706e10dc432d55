"""Answers one by one, at several levels of distraction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mmattn.training.data import Example
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.effort import Effort
from tasks.compare.measuring.findings import Curve
from tasks.compare.measuring.scenes import Scenes, Source
from tasks.compare.measuring.trunk import logits


@dataclass(frozen=True)
class Answers:
    """Answers to the test scenes of all levels.

    Attributes:
        test: digest of the scenes; equal for all models that were asked the same.
        correct: for each level a string of 0 and 1, see :class:`mmattn.report.measures.Measures`.
    """

    test: str
    correct: dict[str, str]

    def over_share(self) -> Curve:
        """Accuracy over the share of the pieces of a scene that distract: k of k + 1 at level k."""
        return [
            [int(level) / (int(level) + 1), marks.count("1") / len(marks)]
            for level, marks in self.correct.items()
        ]


def answered(task: ClassificationTask, source: Source, effort: Effort) -> Answers:
    """What a model in eval mode answers at each level."""
    correct = {}
    for level in effort.levels_up_to(source.data.level):
        scenes = Scenes.of(task, source.data, source.examples("test", level, effort.examples))
        correct[str(level)] = marked(logits(task, scenes.tokens).argmax(-1).tolist(), scenes.examples)
    return Answers(digest(source, effort), correct)


def marked(answers: Sequence[int], examples: Sequence[Example]) -> str:
    """``1`` for each right answer, ``0`` for each wrong one."""
    return "".join(
        str(int(answer == example.label)) for answer, example in zip(answers, examples, strict=True)
    )


def digest(source: Source, effort: Effort) -> str:
    """Digest of the test scenes that are asked: of the sets, the levels and how many."""
    levels = effort.levels_up_to(source.data.level)
    parts = [f"{level} {source.fingerprint('test', level)}" for level in levels]
    return hashlib.sha256("\n".join([*parts, str(effort.examples)]).encode()).hexdigest()
