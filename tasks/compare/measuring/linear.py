"""The controls that are not trained by gradients, measured as the models are: answer by answer."""

from __future__ import annotations

from mmattn.report.measures import Measures
from tasks.compare.controls import linear_answers, majority_class
from tasks.compare.measuring.answers import Answers, digest, marked
from tasks.compare.measuring.effort import STANDARD, Effort
from tasks.compare.measuring.scenes import Source
from tasks.scenes import SceneData


def measure_linear(domain: str, data: SceneData, *, seed: int = 0, effort: Effort = STANDARD) -> Measures:
    """Measure the linear control, which is trained anew at each level that it is judged at.

    It is deterministic, whatever the seed.

    Args:
        domain: ``vision``, ``speech`` or ``text``.
        data: what the models beside it are trained on.
        seed: under which the result is kept.
        effort: the levels and how many examples.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the domain is unknown, or the data have no distractors.
    """
    source = Source(data)
    correct = {}
    for level in effort.levels_up_to(data.level):
        train = data.scenes("train", level, None)
        train.train_levels = "fixed"
        examples = source.examples("test", level, effort.examples)
        correct[str(level)] = marked(linear_answers(domain, train, examples), examples)
    return _control(domain, "linear", seed, source, effort, correct)


def measure_majority(domain: str, data: SceneData, *, seed: int = 0, effort: Effort = STANDARD) -> Measures:
    """Measure the guess that always names the commonest class of training; arguments as :func:`measure_linear`."""
    source = Source(data)
    guess = majority_class(data.sets["train"])
    correct = {}
    for level in effort.levels_up_to(data.level):
        examples = source.examples("test", level, effort.examples)
        correct[str(level)] = marked([guess] * len(examples), examples)
    return _control(domain, "majority", seed, source, effort, correct)


def _control(
    domain: str, arm: str, seed: int, source: Source, effort: Effort, correct: dict[str, str]
) -> Measures:
    answers = Answers(digest(source, effort), correct)
    return Measures(
        domain=domain, arm=arm, seed=seed, test=answers.test, correct=correct,
        standard=str(source.data.level), curves={"accuracy/share": answers.over_share()},
    )  # fmt: skip
