"""How well each arm did, over its seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from mmattn.report.names import arm_order, domain_order
from mmattn.report.runs import StoredRun


@dataclass(frozen=True)
class Range:
    """A mean with the lowest and the highest of its seeds, as fractions."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """One arm in one domain.

    Attributes:
        domain: of the runs.
        arm: of the runs.
        plain: accuracy without distractors; None where not measured.
        standard: accuracy at the standard level.
        level: number of distractors at the standard level, as text; empty for joint runs.
        examples: size of the test set.
        seeds: how many there are.
        parameters: trainable ones, the mean; None without records.
        seconds: of a training, the mean; None without records.
        runs: paths of the runs.
    """

    domain: str
    arm: str
    plain: Range | None
    standard: Range
    level: str
    examples: int
    seeds: int
    parameters: float | None
    seconds: float | None
    runs: list[str]


def share(answers: str) -> float:
    """The share of ones.

    >>> share("1101")
    0.75
    """
    return answers.count("1") / len(answers)


def _range(values: list[float]) -> Range | None:
    return Range(round(fmean(values), 6), min(values), max(values)) if values else None


def _row(domain: str, arm: str, runs: list[StoredRun], level: str) -> Accuracy:
    standard = _range([share(run.measures.correct[level]) for run in runs])
    assert standard is not None
    plain = [share(answers) for run in runs if (answers := run.measures.correct.get("0"))]
    records = [run.record for run in runs if run.record is not None]
    return Accuracy(
        domain,
        arm,
        _range(plain),
        standard,
        level,
        len(runs[0].measures.correct[level]),
        len({run.measures.seed for run in runs}),
        fmean(record.parameters for record in records) if records else None,
        round(fmean(record.wall_seconds for record in records), 3) if records else None,
        [run.path for run in runs],
    )


def accuracies(runs: list[StoredRun]) -> list[Accuracy]:
    """One row for each arm of each domain that has answers, in the order of the page.

    Joint runs, which are asked in several senses, have a table of their own: :func:`trunks`.
    """
    found: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        if run.measures.domain != "joint" and run.measures.correct.get(run.measures.standard):
            found.setdefault((run.measures.domain, run.measures.arm), []).append(run)
    order = sorted(found, key=lambda key: (domain_order(key[0]), arm_order(key[1])))
    return [
        _row(domain, arm, found[domain, arm], found[domain, arm][0].measures.standard)
        for domain, arm in order
    ]


def trunks(runs: list[StoredRun]) -> list[Accuracy]:
    """One row for each kind of joint run in each sense, in order; ``parameters`` are those of its trunk."""
    found: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        if run.measures.domain == "joint":
            for sense in run.measures.correct:
                kind = run.measures.arm.removesuffix(f"_{sense}")
                found.setdefault((sense, kind), []).append(run)
    order = sorted(found, key=lambda key: (domain_order(key[0]), arm_order(key[1])))
    return [
        replace(
            _row(sense, kind, found[sense, kind], sense),
            level="",
            parameters=found[sense, kind][0].measures.values.get("trunk/parameters"),
        )
        for sense, kind in order
    ]
