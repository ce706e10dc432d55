"""The suite "find it among distractors": one task for each sense."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mmattn.training.module import ClassificationTask

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class DomainTask:
    """One domain of the suite.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``.
        task: name of the task in ``tasks.<domain>.module``.
        config: name of its file in ``tasks/<domain>/configs``.
        title: heading in the report.
        description: of the task and its data, for the reader.
        synthetic: whether the items themselves were computed; the scenes around them always are.
        distractors: what a level counts.
    """

    domain: Literal["vision", "speech", "text"]
    task: str
    config: str
    title: str
    description: str
    synthetic: bool
    distractors: str

    @property
    def config_path(self) -> Path:
        """The YAML file."""
        return ROOT / "tasks" / self.domain / "configs" / self.config

    def task_class(self) -> type[ClassificationTask]:
        """The Lightning module."""
        import_module(f"tasks.{self.domain}.data")
        found: type[ClassificationTask] = getattr(import_module(f"tasks.{self.domain}.module"), self.task)
        return found


SUITE = (
    DomainTask(
        domain="vision",
        task="ImageClassification",
        config="digits.yaml",
        title="Vision: the whole digit among fragments",
        description=(
            "Which digit is whole? scikit-learn's 1,797 scans of handwritten digits (real), each put on a larger, "
            "noisy canvas among halves and quarters of digits of other classes (composed). Training and test scans "
            "come from different stretches of the source, which goes from writer to writer."
        ),
        synthetic=False,
        distractors="fragments",
    ),
    DomainTask(
        domain="speech",
        task="KeywordSpotting",
        config="spoken.yaml",
        title="Speech: the whole command word among cut words",
        description=(
            "Which command is spoken whole? Ten command words synthesised with eSpeak NG in many accents, voices, "
            "speeds and pitches (synthetic), each among halves and thirds of other command words, in silence, noise "
            "and the babble of four voices. "
            "No voice and no accent of the test was heard in training."
        ),
        synthetic=True,
        distractors="cut words, with noise and babble",
    ),
    DomainTask(
        domain="text",
        task="TextClassification",
        config="quoted.yaml",
        title="Text: the language of the quoted sentence",
        description=(
            "In which of 39 languages is the quoted sentence? Interface sentences from Django's catalogs, translated "
            "by people (real), the quoted one among unquoted sentences in other languages (composed). No test "
            "sentence was seen in training in any language."
        ),
        synthetic=False,
        distractors="unquoted sentences",
    ),
)


def domain_task(domain: str) -> DomainTask:
    """The suite's task of a domain."""
    return next(part for part in SUITE if part.domain == domain)
