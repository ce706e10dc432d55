"""What the comparison found: figures over seeds, verdicts, and the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from tasks.joint.data import SENSES

BEHIND = 1.5
"""Points that the joint trunk may lie behind the separate ones in each sense."""

SURE = 2.0
"""Standard errors from which a difference counts."""

ROWS = {
    "separate": "separate: three trunks of P each",
    "joint": "joint: one trunk of P for all three",
    "third": "a third each: three trunks of P/3",
    "moved": "moved: frozen trunk of the other two senses",
    "random": "random: frozen trunk that never learned",
    "linear": "linear control, no attention",
}
"""Kinds of arms in the order of the table, with what they are called there."""


@dataclass(frozen=True)
class Difference:
    """How much more accurate one arm is than another, on one test set.

    Attributes:
        points: mean difference over seeds, in percentage points.
        error: its standard error from the finite test sets alone, as if the arms were independent.
    """

    points: float
    error: float

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is beyond doubt, else 0."""
        return 0 if abs(self.points) <= SURE * self.error else int(math.copysign(1, self.points))


def accuracies(results: Sequence[dict[str, Any]], kind: str, test: str) -> dict[int, float]:
    """Accuracy of a kind of arm on a test set, by seed."""
    return {r["seed"]: r["accuracy"][test] for r in results if r["kind"] == kind and test in r["accuracy"]}


def difference(results: Sequence[dict[str, Any]], kind: str, other: str, test: str) -> Difference | None:
    """Of the seeds that both kinds were run with; None when there is none.

    Example:
        >>> runs = [
        ...     {"kind": kind, "seed": 0, "accuracy": {"t": value}, "count": {"t": 100}}
        ...     for kind, value in (("a", 0.9), ("b", 0.8))
        ... ]
        >>> found = difference(runs, "a", "b", "t")
        >>> round(found.points, 3), round(found.error, 3), found.sign
        (10.0, 5.0, 0)
    """
    one, two = accuracies(results, kind, test), accuracies(results, other, test)
    seeds = sorted(one.keys() & two.keys())
    if not seeds:
        return None
    count = next(r["count"][test] for r in results if test in r["count"])
    variance = sum(p * (1 - p) / count for seed in seeds for p in (one[seed], two[seed]))
    return Difference(
        100 * mean(one[seed] - two[seed] for seed in seeds), 100 * math.sqrt(variance) / len(seeds)
    )


def verdicts(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each sense: what one trunk costs, what a third costs, and whether the others' trunk transfers."""
    found: dict[str, dict[str, Any]] = {}
    for sense in SENSES:
        test = f"test_{sense}"
        joint = difference(results, "joint", "separate", test)
        third = difference(results, "joint", "third", test)
        moved = difference(results, "moved", "random", test)
        kept = difference(results, "moved", "separate", test)
        found[sense] = {
            "joint_over_separate": None if joint is None else round(joint.points, 2),
            "joint_over_third": None if third is None else round(third.points, 2),
            "moved_over_random": None if moved is None else round(moved.points, 2),
            "moved_over_separate": None if kept is None else round(kept.points, 2),
            "standard_error": None if moved is None else round(moved.error, 2),
            "verdict": None if moved is None else {1: "transfers", 0: "does not", -1: "harms"}[moved.sign],
        }
    return found


def bar(results: Sequence[dict[str, Any]]) -> bool:
    """Whether the joint trunk is at most :data:`BEHIND` points behind in each sense, at a third of the parameters."""
    points = [verdict["joint_over_separate"] for verdict in verdicts(results).values()]
    return all(value is not None and value >= -BEHIND for value in points)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: accuracies in percent, mean over seeds, among distractors and plain, and the verdicts."""
    lines = [
        "| arm | trunk parameters in all | " + " | ".join(SENSES) + " | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for kind, title in ROWS.items():
        runs = [r for r in results if r["kind"] == kind]
        if not runs:
            continue
        shown = [_cell(results, kind, sense) for sense in SENSES]
        lines.append(f"| {title} | {_trunks(runs)} | " + " | ".join(shown) + f" | {_minutes(runs)} |")
    lines += [
        "",
        "Accuracy in %, among distractors / plain, mean over seeds (spread in brackets). Minutes: data, training and",
        "test, summed over the trainings of a row, mean over seeds.",
        "",
        "| sense | joint - separate | joint - a third each | moved - random | moved - separate | moved trunk |",
        "|---|---|---|---|---|---|",
    ]
    for sense, v in verdicts(results).items():
        moved = _signed(v["moved_over_random"]) + (
            "" if v["standard_error"] is None else f" ± {v['standard_error']:.1f}"
        )
        lines.append(
            f"| {sense} | {_signed(v['joint_over_separate'])} | {_signed(v['joint_over_third'])} | {moved} "
            f"| {_signed(v['moved_over_separate'])} | {v['verdict'] or 'not run'} |"
        )
    lines += [
        "",
        f"Points. A trunk transfers where it beats a random one by more than {SURE:g} standard errors.",
    ]
    return "\n".join(lines)


def _signed(value: float | None) -> str:
    return "not run" if value is None else f"{value:+.1f}"


def _cell(results: Sequence[dict[str, Any]], kind: str, sense: str) -> str:
    parts = []
    for test in (f"test_{sense}", f"test_plain_{sense}"):
        found = [100 * value for value in accuracies(results, kind, test).values()]
        if found:
            spread = f" ({min(found):.1f}-{max(found):.1f})" if len(found) > 1 else ""
            parts.append(f"{mean(found):.1f}{spread}")
    return " / ".join(parts) or "not run"


def _trunks(runs: Sequence[dict[str, Any]]) -> str:
    seed = runs[0]["seed"]
    total = sum(r.get("trunk_parameters", 0) for r in runs if r["seed"] == seed)
    return f"{total:,}" if total else ""


def _minutes(runs: Sequence[dict[str, Any]]) -> str:
    seeds = {r["seed"] for r in runs}
    return f"{sum(sum(r['minutes'].values()) for r in runs) / len(seeds):.1f}"
