"""What was measured on a finished run beyond its record: answers one by one, attention, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from mmattn.report import codec
from mmattn.report.codec import require

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class HeadMeasure:
    """One head of a trained model, on the test set at the standard level.

    Attributes:
        layer: name of the attention module.
        head: index, from 0.
        removed: accuracy without this head.
        alone: accuracy when of its layer only this head is left.
        importance: as :func:`mmattn.head_importance` gives it.
    """

    layer: str
    head: int
    removed: float | None = None
    alone: float | None = None
    importance: float | None = None


@dataclass(frozen=True)
class Measures:
    """The measures of one run, kept as ``measures.json`` beside ``record.json``.

    Attributes:
        domain: ``vision``, ``speech``, ``text``, ``joint``, or ``speed`` for timings.
        arm: what is compared: ``attention``, ``uniform``, ``linear``, ...
        seed: of the run.
        test: digest of the test sets; runs of equal digest answer the same questions in the same order. Where levels
            are sets of their own, ``level=digest`` of each with spaces between them; see :meth:`questions`.
        correct: for each level (number of distractors, as text; ``"0"`` is plain; of joint runs the sense) a string
            of ``0`` and ``1``, one for each test example in order.
        standard: the level that verdicts are about, a key of ``correct``; of joint runs the first sense.
        values: one number for a name, such as ``focus/log_ratio``.
        curves: points ``[x, y]`` for a name, such as ``deletion/attention``.
        heads: one entry for each head.
        matrices: square tables for a name, such as ``heads/js/<layer>``.
        repeats: for a name the seconds of each interleaved round.
        environment: the machine, where that matters (timings).
        schema_version: of this format.

    Raises:
        ValueError: one sentence, the rule and then the value.
    """

    domain: str
    arm: str
    seed: int
    test: str = ""
    correct: dict[str, str] = field(default_factory=dict)
    standard: str = ""
    values: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    heads: list[HeadMeasure] = field(default_factory=list)
    matrices: dict[str, list[list[float]]] = field(default_factory=dict)
    repeats: dict[str, list[float]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        require(
            self.schema_version == SCHEMA_VERSION,
            f"Measures.schema_version must be {SCHEMA_VERSION}",
            self.schema_version,
        )
        for level, answers in self.correct.items():
            require(
                set(answers) <= {"0", "1"}, "Measures.correct must hold 0 and 1", f"{level}: {answers[:9]}"
            )
        if self.correct:
            require(
                self.standard in self.correct, "Measures.standard must be a level of correct", self.standard
            )
        finite = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in self.values.items()
        }
        object.__setattr__(self, "values", finite)

    def questions(self, level: str) -> str:
        """Digest of the questions of a level; runs of equal digest answer the same there.

        >>> Measures("joint", "joint", 0, test="vision=a1 text=b2").questions("text")
        'b2'
        >>> Measures("vision", "attention", 0, test="c3").questions("3")
        'c3'
        """
        parts = dict(part.partition("=")[::2] for part in self.test.split())
        return parts.get(level, self.test)

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` as JSON and give the path."""
        return codec.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Measures:
        """Read from ``path``; raises ValueError with one sentence where it does not fit."""
        return codec.load(cls, path)
