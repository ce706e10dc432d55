"""What a report is made of: one record for each training run, and the results of each domain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mmattn.report import codec
from mmattn.report.codec import require
from mmattn.report.examples import AttentionExample

SCHEMA_VERSION = 1
DOMAINS = ("vision", "speech", "text")
#: A run may train one trunk for all of them.
RUN_DOMAINS = (*DOMAINS, "joint")
ATTENTION = "multi-head attention"
UNIFORM = "uniform attention (control)"
LINEAR = "linear model (control)"
MAJORITY = "majority class (control)"


def _finite(values: dict[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }


@dataclass(frozen=True)
class DataRecord:
    """The data of a run.

    Attributes:
        name: of the data set.
        synthetic: whether its items were computed rather than collected.
        fingerprint: digest of the content for each split.
        description: one or two sentences for the reader.
        counts: number of examples for each split; ``test`` gives the size for intervals.
    """

    name: str
    synthetic: bool
    fingerprint: dict[str, str]
    description: str
    counts: dict[str, int]


@dataclass(frozen=True)
class RunRecord:
    """One training run, kept as ``record.json`` in the folder of the run.

    Attributes:
        name: of the run, for the reader.
        domain: ``vision``, ``speech``, ``text``, or ``joint`` for all at once.
        arm: what is compared: ``attention``, ``uniform``, ...
        seed: of the run.
        config: the resolved configuration, plain JSON data.
        versions: of the packages that ran, name to version.
        environment: ``cpu``, ``threads``, ``platform`` and what else matters for speed.
        data: see :class:`DataRecord`.
        epochs: for each epoch ``epoch`` and any of ``train_loss``, ``val_loss``, ``val_accuracy`` (fraction).
            A number that is not finite is kept as None and drawn as a gap.
        metrics: final ones by name, accuracies as fractions, such as ``test/accuracy``.
        parameters: number of trainable parameters.
        flops_per_example: floating-point operations of one forward pass on one example; None if not counted.
        samples_per_second: examples in a second of training.
        outside_share: share of the training time outside forward and backward (data, optimiser, logging); None
            where it was not measured.
        peak_memory_bytes: highest memory in use.
        wall_seconds: of the training, in seconds.
        git_commit: of the code; None outside a checkout.
        started: ISO 8601.
        schema_version: of this format.

    Raises:
        ValueError: one sentence, the rule and then the value.
    """

    name: str
    domain: Literal["vision", "speech", "text", "joint"]
    arm: str
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    environment: dict[str, Any]
    data: DataRecord
    epochs: list[dict[str, float | None]]
    metrics: dict[str, float | None]
    parameters: int
    flops_per_example: float | None
    samples_per_second: float
    peak_memory_bytes: int
    wall_seconds: float
    git_commit: str | None
    started: str
    outside_share: float | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        require(
            self.schema_version == SCHEMA_VERSION,
            f"RunRecord.schema_version must be {SCHEMA_VERSION}",
            self.schema_version,
        )
        known = ", ".join(RUN_DOMAINS)
        require(self.domain in RUN_DOMAINS, f"RunRecord.domain must be one of {known}", self.domain)
        for name in ("parameters", "samples_per_second", "peak_memory_bytes", "wall_seconds"):
            value = getattr(self, name)
            require(value >= 0 and math.isfinite(value), f"RunRecord.{name} must not be negative", value)
        for row in self.epochs:
            require("epoch" in row, "RunRecord.epochs must name the epoch in each entry", row)
        try:
            datetime.fromisoformat(self.started)
        except ValueError:
            raise ValueError(f"RunRecord.started must be an ISO 8601 time: got {self.started!r}") from None
        object.__setattr__(self, "epochs", [_finite(row) for row in self.epochs])
        object.__setattr__(self, "metrics", _finite(self.metrics))

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` as JSON and give the path."""
        return codec.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> RunRecord:
        """Read from ``path``; raises ValueError with one sentence where it does not fit."""
        return codec.load(cls, path)


@dataclass(frozen=True)
class ResultRow:
    """The result of one model on the test set of a domain.

    Attributes:
        name: shown to the reader and named by :class:`Aim`.
        kind: ``model`` or ``control``.
        plain: fraction without distraction, in [0, 1]; None where not measured.
        standard: fraction at the standard level of distraction.
        n_test: examples behind each fraction.
        parameters, seconds: cost of a model that has no run record, such as a linear one.
        arm: arm of the run records that belong to this row; None where there are none.
    """

    name: str
    kind: Literal["model", "control"]
    plain: float | None
    standard: float | None
    n_test: int
    parameters: int | None = None
    seconds: float | None = None
    arm: str | None = None

    def __post_init__(self) -> None:
        for name in ("plain", "standard"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, f"ResultRow.{name} must be a fraction in [0, 1]", value)
        require(self.n_test > 0, "ResultRow.n_test must be positive", self.n_test)


@dataclass(frozen=True)
class Aim:
    """The claim: ``model`` is at least ``margin`` (fraction) ahead of each control at the standard level."""

    model: str = ATTENTION
    controls: list[str] = field(default_factory=lambda: [UNIFORM, LINEAR])
    margin: float = 0.10

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, "Aim.margin must be a fraction in [0, 1)", self.margin)
        require(bool(self.controls), "Aim.controls must name at least one control", self.controls)


@dataclass(frozen=True)
class DomainReport:
    """All that the report shows of one domain.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``.
        title: heading of the section.
        description: of the task and its data.
        synthetic: whether the data were computed rather than collected.
        metric: name of the fraction in ``rows``, such as ``accuracy``.
        standard_level: the standard level of distraction in words.
        rows: model and controls.
        runs: records for curves and cost.
        aim: what the verdict is about.
        examples: with attention, two or so.
    """

    domain: Literal["vision", "speech", "text"]
    title: str
    description: str
    synthetic: bool
    metric: str
    standard_level: str
    rows: list[ResultRow]
    runs: list[RunRecord] = field(default_factory=list)
    aim: Aim = field(default_factory=Aim)
    examples: list[AttentionExample] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(
            self.domain in DOMAINS, f"DomainReport.domain must be one of {', '.join(DOMAINS)}", self.domain
        )
        names = [row.name for row in self.rows]
        require(len(set(names)) == len(names), "DomainReport.rows must have different names", names)
        for name in [run.domain for run in self.runs] + [example.domain for example in self.examples]:
            require(
                name == self.domain,
                f"DomainReport.runs and examples must be of the domain {self.domain!r}",
                name,
            )


@dataclass(frozen=True)
class ReportInput:
    """The whole of a report; ``report.json`` holds exactly this.

    Attributes:
        title: of the page.
        summary: one paragraph on what was asked; what came out is computed from the numbers and set after it.
        command: how the runs are made again.
        domains: in the order shown.
        schema_version: of this format.
    """

    title: str
    summary: str
    command: str
    domains: list[DomainReport]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        require(
            self.schema_version == SCHEMA_VERSION,
            f"ReportInput.schema_version must be {SCHEMA_VERSION}",
            self.schema_version,
        )
        names = [part.domain for part in self.domains]
        require(len(set(names)) == len(names), "ReportInput.domains must name each domain once", names)

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` as JSON and give the path."""
        return codec.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> ReportInput:
        """Read from ``path``; raises ValueError with one sentence where it does not fit."""
        return codec.load(cls, path)
