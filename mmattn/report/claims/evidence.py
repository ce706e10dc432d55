"""From stored runs to the repetitions of a planned comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mmattn.report.accuracy import share
from mmattn.report.claims.hypotheses import JOINT, Answers, Plan, Times, Trunks, Values
from mmattn.report.claims.results import Sample
from mmattn.report.runs import CONTROLS, StoredRun, first_runs

#: What a fraction is multiplied with, for each unit; ratios are logarithms already.
_SCALES = {"points": 100.0, "log2": 1.0, "distance": 1.0}


@dataclass(frozen=True)
class Evidence:
    """The numbers behind one comparison, in its unit.

    Attributes:
        samples: one for each seed or round.
        answers: ``[seeds, examples]`` differences for each test example, -1, 0 or 1, where all runs answered the same
            questions; else None.
        lead: where no loss is what is asked for, by how much the second arm is ahead of the domain's linear model, in
            points; None where that is not known.
    """

    samples: list[Sample]
    answers: NDArray[np.float64] | None = None
    lead: float | None = None


class Shelf:
    """Runs by domain, arm and seed; of doubles the first by path."""

    def __init__(self, runs: Iterable[StoredRun]) -> None:
        self._runs: dict[tuple[str, str], dict[int, StoredRun]] = {}
        for run in sorted(first_runs(runs), key=lambda run: run.key):
            self._runs.setdefault((run.measures.domain, run.measures.arm), {})[run.measures.seed] = run

    @property
    def domains(self) -> set[str]:
        """Domains with a run."""
        return {domain for domain, _ in self._runs}

    def arm(self, domain: str, arm: str) -> dict[int, StoredRun]:
        """Runs of an arm by seed, in order; empty where there are none."""
        return self._runs.get((domain, arm), {})

    def pairs(self, domain: str, first: str, second: str) -> list[tuple[int, StoredRun, StoredRun]]:
        """Seeds that both arms have, with their runs; the single run of a control goes with every seed."""
        left, right = self.arm(domain, first), self.arm(domain, second)
        if second in CONTROLS and len(right) == 1:
            (single,) = right.values()
            return [(seed, run, single) for seed, run in left.items()]
        return [(seed, run, right[seed]) for seed, run in left.items() if seed in right]


def collect(plan: Plan, domain: str, shelf: Shelf) -> dict[str, tuple[Plan, Evidence]]:
    """The comparisons that come of ``plan`` in ``domain``: one by its key, or for times one for each length.

    A plan without numbers gives evidence without samples.
    """
    measure = plan.measure
    if isinstance(measure, Answers):
        return {plan.key: (plan, _answers(measure, domain, shelf))}
    if isinstance(measure, Values):
        return {plan.key: (plan, _values(measure, domain, shelf, _SCALES[plan.unit]))}
    return {
        f"{plan.key}-{length}": (replace(plan, words=f"{plan.words}, length {length}"), evidence)
        for length, evidence in _times(measure, domain, shelf).items()
    } or {plan.key: (plan, Evidence([]))}


def _answers(measure: Answers, domain: str, shelf: Shelf) -> Evidence:
    samples, rows, tests = [], [], set()
    joint = isinstance(measure, Trunks)
    first, second = measure.arms(domain) if isinstance(measure, Trunks) else (measure.first, measure.second)
    for seed, *pair in shelf.pairs(JOINT if joint else domain, first, second):
        levels = [domain if joint else measure.level or run.measures.standard for run in pair]
        texts = [run.measures.correct.get(level, "") for run, level in zip(pair, levels, strict=True)]
        if not all(texts):
            continue
        one, other = (np.frombuffer(text.encode(), np.uint8) - 48.0 for text in texts)
        samples.append(Sample(seed, 100.0 * float(one.mean() - other.mean()), [run.path for run in pair]))
        tests |= {
            (run.measures.questions(level), len(text))
            for run, level, text in zip(pair, levels, texts, strict=True)
        }
        rows.append(one - other)
    lead = _lead(domain, list(shelf.arm(JOINT, second).values()), shelf) if joint else None
    return Evidence(samples, np.stack(rows) if len(tests) == 1 else None, lead)


def _lead(sense: str, runs: Sequence[StoredRun], shelf: Shelf) -> float | None:
    """Points by which joint runs are ahead of the linear model of a sense, which answers scenes of the same kind."""
    linear = [run.measures for run in shelf.arm(sense, "linear").values() if run.measures.correct]
    own = [share(run.measures.correct[sense]) for run in runs]
    if not linear or not own:
        return None
    return 100.0 * (fmean(own) - fmean(share(each.correct[each.standard]) for each in linear))


def _values(measure: Values, domain: str, shelf: Shelf, scale: float) -> Evidence:
    samples = []
    for seed, run in shelf.arm(domain, measure.arm).items():
        first = run.measures.values.get(measure.first)
        second = 0.0 if measure.second is None else run.measures.values.get(measure.second)
        if first is not None and second is not None:
            samples.append(Sample(seed, scale * (first - second), [run.path]))
    return Evidence(samples)


def _times(measure: Times, domain: str, shelf: Shelf) -> dict[int, Evidence]:
    """Evidence by length: rounds are the repetitions, one after the other where there are several runs."""
    found: dict[int, list[Sample]] = {}
    for run in shelf.arm(domain, domain).values():
        repeats = run.measures.repeats
        start = f"{measure.slower}/{measure.mode}/"
        for name in sorted(name for name in repeats if name.startswith(start)):
            length = name.removeprefix(start)
            other = repeats.get(f"{measure.faster}/{measure.mode}/{length}", [])
            samples = found.setdefault(int(length), [])
            # rounds interleave the two, so a round that one of them lacks compares nothing
            for slow, fast in zip(repeats[name], other, strict=False):
                samples.append(Sample(len(samples), float(np.log2(slow / fast)), [run.path]))
    return {length: Evidence(samples) for length, samples in sorted(found.items())}
