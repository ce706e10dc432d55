"""All that a report says, as plain data: ``report.json`` holds exactly this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmattn.report import codec, figures
from mmattn.report.accuracy import Accuracy, accuracies, trunks
from mmattn.report.claims.results import Judgement
from mmattn.report.figures import Figure
from mmattn.report.focus import Focus, focus
from mmattn.report.measures import Measures
from mmattn.report.names import arm_order, domain_order
from mmattn.report.runs import StoredRun

SCHEMA_VERSION = 1
TITLE = "Multi-head attention: one mechanism for pictures, speech and text"

#: Figures that stand in the section of a claim; those of None stand with the runs.
_FIGURES: dict[str | None, list[Callable[[list[StoredRun]], Figure | None]]] = {
    "focus": [figures.accuracy, figures.deletion],
    "heads": [figures.head_counts],
    "complement": [figures.pruning, figures.dots, figures.redundancy],
    "parallel": [figures.loop, figures.recurrent, figures.threads],
    None: [figures.learning],
}


@dataclass(frozen=True)
class RunRow:
    """One run, for the table of runs; None stands for what has no record."""

    path: str
    domain: str
    arm: str
    seed: int
    plain: float | None
    standard: float | None
    parameters: int | None
    seconds: float | None
    samples_per_second: float | None
    peak_memory_bytes: int | None
    flops_per_example: float | None
    started: str | None
    git_commit: str | None
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataRow:
    """The data of a domain."""

    domain: str
    name: str
    description: str
    synthetic: bool
    counts: dict[str, int]
    fingerprint: dict[str, str]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: of the page.
        judgement: claims with their verdicts and comparisons.
        accuracies: of each arm.
        trunks: of each kind of joint run in each sense; ``level`` is empty, ``parameters`` are those of a trunk.
        focus: of the attention models.
        figures: by claim; those of ``""`` stand with the runs.
        data: of each domain.
        runs: behind all of it, in the order of the page.
        failed: what went wrong with runs that are not there, one sentence each.
        schema_version: of this format.
    """

    title: str
    judgement: Judgement
    accuracies: list[Accuracy]
    trunks: list[Accuracy]
    focus: list[Focus]
    figures: dict[str, list[Figure]]
    data: list[DataRow]
    runs: list[RunRow]
    failed: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` as JSON and give the path."""
        return codec.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read from ``path``; raises ValueError with one sentence where it does not fit."""
        return codec.load(cls, path)


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in sorted(values.items()) if value is not None}


def _standard(measures: Measures) -> str | None:
    """The level of the verdicts; a joint run that is asked in several senses has none of its own."""
    return None if measures.domain == "joint" and len(measures.correct) > 1 else measures.standard


def _row(run: StoredRun) -> RunRow:
    measures, record = run.measures, run.record
    plain, standard = (
        answers.count("1") / len(answers) if (answers := measures.correct.get(level or "")) else None
        for level in ("0", _standard(measures))
    )
    return RunRow(
        path=run.path,
        domain=measures.domain,
        arm=measures.arm,
        seed=measures.seed,
        plain=plain,
        standard=standard,
        parameters=None if record is None else record.parameters,
        seconds=None if record is None else record.wall_seconds,
        samples_per_second=None if record is None else record.samples_per_second,
        peak_memory_bytes=None if record is None else record.peak_memory_bytes,
        flops_per_example=None if record is None else record.flops_per_example,
        started=None if record is None else record.started,
        git_commit=None if record is None else record.git_commit,
        versions=_texts(record.versions) if record else {},
        environment=_texts(record.environment if record else dict(measures.environment)),
    )


def _data(runs: list[StoredRun]) -> list[DataRow]:
    out: dict[str, DataRow] = {}
    for run in runs:
        # joint runs take those of the senses
        if run.record is not None and run.measures.domain not in (*out, "joint"):
            data = run.record.data
            out[run.measures.domain] = DataRow(
                run.measures.domain,
                data.name,
                data.description,
                data.synthetic,
                dict(data.counts),
                dict(data.fingerprint),
            )
    return [out[domain] for domain in sorted(out, key=domain_order)]


def contents(runs: list[StoredRun], judgement: Judgement, failed: list[str] | None = None) -> Report:
    """The report on ``runs`` and what was judged of them."""
    order = sorted(
        runs,
        key=lambda run: (
            domain_order(run.measures.domain),
            arm_order(run.measures.arm),
            run.measures.seed,
            run.path,
        ),
    )
    drawn = {
        claim or "": [figure for make in makers if (figure := make(order)) is not None]
        for claim, makers in _FIGURES.items()
    }
    return Report(
        TITLE,
        judgement,
        accuracies(order),
        trunks(order),
        focus(order),
        drawn,
        _data(order),
        [_row(run) for run in order],
        failed or [],
    )
