"""What a training leaves: one record for each run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mmattn.report import codec
from mmattn.report.codec import require

SCHEMA_VERSION = 1
#: A run may train one trunk for all senses: ``joint``.
RUN_DOMAINS = ("vision", "speech", "text", "joint")


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
