"""The numbers of a report as tables of text, for CSV files."""

from __future__ import annotations

import csv
import io
from typing import Any

from mmattn.report.accuracy import Accuracy
from mmattn.report.contents import Report
from mmattn.report.figures import Figure, Panel

Rows = list[dict[str, Any]]


def comparisons(report: Report) -> Rows:
    """One row for each comparison, in its own unit."""
    rows = []
    for part in report.judgement.comparisons:
        found = part.estimate
        rows.append(
            {
                "id": part.id,
                "claim": part.claim,
                "domain": part.domain,
                "words": part.words,
                "primary": part.primary,
                "unit": part.unit,
                "verdict": part.verdict,
                "estimate": found and found.mean,
                "low": found and found.low,
                "high": found and found.high,
                "error": found and found.error,
                "smallest_that_counts": part.delta,
                "ruled_out": part.null,
                "p": found and found.p,
                "p_holm": found and found.holm,
                "effect_dz": found and found.effect,
                "detectable": found and found.detectable,
                "samples": len(part.samples),
                "examples": found and found.examples,
                "reason": part.reason,
                "runs": " ".join(part.runs),
            }
        )
    return rows


def accuracies(report: Report) -> Rows:
    """One row for each arm of each domain; fractions."""
    return _accuracies(report.accuracies)


def trunks(report: Report) -> Rows:
    """One row for each kind of joint run in each sense, likewise; parameters are those of a trunk."""
    return _accuracies(report.trunks)


def _accuracies(found: list[Accuracy]) -> Rows:
    rows = []
    for row in found:
        rows.append(
            {
                "domain": row.domain,
                "arm": row.arm,
                "plain": row.plain and row.plain.mean,
                "plain_low": row.plain and row.plain.low,
                "plain_high": row.plain and row.plain.high,
                "standard": row.standard.mean,
                "standard_low": row.standard.low,
                "standard_high": row.standard.high,
                "level": row.level,
                "examples": row.examples,
                "seeds": row.seeds,
                "parameters": row.parameters,
                "seconds": row.seconds,
                "runs": " ".join(row.runs),
            }
        )
    return rows


def runs(report: Report) -> Rows:
    """One row for each run."""
    return [
        {
            "path": run.path,
            "domain": run.domain,
            "arm": run.arm,
            "seed": run.seed,
            "plain": run.plain,
            "standard": run.standard,
            "parameters": run.parameters,
            "seconds": run.seconds,
            "samples_per_second": run.samples_per_second,
            "peak_memory_bytes": run.peak_memory_bytes,
            "flops_per_example": run.flops_per_example,
            "started": run.started,
            "git_commit": run.git_commit,
            "versions": "; ".join(f"{name} {value}" for name, value in run.versions.items()),
            "machine": "; ".join(f"{name} {value}" for name, value in run.environment.items()),
        }
        for run in report.runs
    ]


def _points(claim: str, figure: Figure, panel: Panel) -> Rows:
    shared = {"claim": claim, "figure": figure.id, "panel": panel.title, "domain": panel.domain}
    rows: Rows = [
        {**shared, "line": line.name, "x": x, "y": y, "low": low, "high": high, "runs": " ".join(line.runs)}
        for line in panel.lines
        for x, y, low, high in line.points
    ]
    if panel.dots:
        paths = " ".join(panel.dots.runs)
        for name, values in panel.dots.rows.items():
            for head, value in zip(panel.dots.heads, values, strict=True):
                rows.append({**shared, "line": name, "x": head, "y": value, "runs": paths})
    if panel.table:
        paths = " ".join(panel.table.runs)
        for layer, matrix in panel.table.layers.items():
            for row, values in enumerate(matrix):
                for column, value in enumerate(values):
                    line = f"{layer}, head {row + 1}"
                    rows.append({**shared, "line": line, "x": column + 1, "y": value, "runs": paths})
    return rows


def points(report: Report) -> Rows:
    """One row for each point of each figure."""
    return [
        row
        for claim, drawn in report.figures.items()
        for figure in drawn
        for panel in figure.panels
        for row in _points(claim, figure, panel)
    ]


def to_csv(rows: Rows) -> str:
    """``rows`` as CSV with a header; lines end in ``\\n``; None is empty, so is a key that a row lacks."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def files(report: Report) -> dict[str, str]:
    """Names and contents of the CSV files beside the page."""
    return {
        "comparisons.csv": to_csv(comparisons(report)),
        "accuracies.csv": to_csv(accuracies(report)),
        "trunks.csv": to_csv(trunks(report)),
        "figures.csv": to_csv(points(report)),
        "runs.csv": to_csv(runs(report)),
    }
