"""A report's input from a folder of runs."""

from __future__ import annotations

from pathlib import Path

from mmattn.report.examples import ExampleFile
from mmattn.report.records import (
    ATTENTION,
    DOMAINS,
    LINEAR,
    MAJORITY,
    UNIFORM,
    DomainReport,
    ReportInput,
    ResultRow,
    RunRecord,
)

_ROWS = {"attention": ATTENTION, "uniform": UNIFORM, "linear": LINEAR, "majority": MAJORITY}


def _rows(runs: list[RunRecord], plain: str, standard: str) -> list[ResultRow]:
    """One row for each arm, from its first seed; arms in the order of the report."""
    first: dict[str, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        first.setdefault(run.arm, run)
    order = [arm for arm in _ROWS if arm in first] + sorted(set(first) - set(_ROWS))
    out = []
    for arm in order:
        run = first[arm]
        if "test" not in run.data.counts:
            raise ValueError(
                f"RunRecord.data.counts must give the size of 'test': got {sorted(run.data.counts)}"
            )
        out.append(
            ResultRow(
                name=_ROWS.get(arm, arm),
                kind="model" if arm == "attention" else "control",
                plain=run.metrics.get(plain),
                standard=run.metrics.get(standard),
                n_test=run.data.counts["test"],
                arm=arm,
            )
        )
    return out


def gather(
    folder: str | Path, plain: str = "test_plain/accuracy", standard: str = "test/accuracy"
) -> ReportInput:
    """A report's input: all ``record.json`` below ``folder``, and ``examples.json`` beside attention runs.

    Where an arm has several seeds, the table takes the lowest and the curves show all.

    Args:
        folder: searched in all depths.
        plain: metric without distraction.
        standard: metric at the standard level.

    Raises:
        ValueError: without a record, or naming the file that does not fit.
    """
    paths = sorted(Path(folder).rglob("record.json"))
    if not paths:
        raise ValueError(f"a folder of runs must hold at least one record.json: got {folder}")
    records = [(path, RunRecord.load(path)) for path in paths]
    domains = []
    for domain in DOMAINS:
        found = [(path, run) for path, run in records if run.domain == domain]
        if not found:
            continue
        runs = sorted(
            (run for _, run in found),
            key=lambda run: (list(_ROWS).index(run.arm) if run.arm in _ROWS else 9, run.arm, run.seed),
        )
        files = [path.with_name("examples.json") for path, run in found if run.arm == "attention"]
        examples = [example for file in files if file.exists() for example in ExampleFile.load(file).examples]
        domains.append(
            DomainReport(
                domain=domain,  # type: ignore[arg-type]
                title=domain.capitalize(),
                description=runs[0].data.description,
                synthetic=runs[0].data.synthetic,
                metric="accuracy",
                standard_level=standard.rsplit("/", 1)[-1],
                rows=_rows(runs, plain, standard),
                runs=runs,
                examples=[example for example in examples if example.domain == domain][:2],
            )
        )
    summary = "Does multi-head attention find what matters among distraction? Controls stand beside it."
    return ReportInput(title="Multi-head attention", summary=summary, command="", domains=domains)
