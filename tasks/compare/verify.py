"""Is a report reproduced? Some of its runs are made again and set beside what was recorded, number by number."""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmattn.report.measures import Measures
from tasks.compare.executors import LocalExecutor, cores
from tasks.compare.jobs import Job
from tasks.compare.running import run_jobs
from tasks.compare.store import DONE, RunFolder
from tasks.compare.worker import WORK

State = Literal["exactly", "within", "outside"]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Check:
    """One number of a run, made again.

    Attributes:
        run: name of the run.
        number: ``accuracy/<level>``, or a name of :class:`mmattn.report.measures.Measures`'s values.
        recorded: as in the report.
        again: as made now.
        interval: in which it must lie where it is not the same.
        basis: what the interval comes from.
    """

    run: str
    number: str
    recorded: float
    again: float
    interval: tuple[float, float]
    basis: str

    @property
    def state(self) -> State:
        """Whether the number came out the same, lies within its interval, or does not."""
        if self.again == self.recorded:
            return "exactly"
        low, high = self.interval
        return "within" if low - _ROUNDING <= self.again <= high + _ROUNDING else "outside"


@dataclass(frozen=True)
class Verification:
    """What came of making runs again.

    Attributes:
        checks: the numbers.
        failed: for the runs that failed this time, why.
        outdated: runs that were recorded by other code, configurations or versions than those at hand.
    """

    checks: list[Check]
    failed: dict[str, str]
    outdated: list[str]

    @property
    def holds(self) -> bool:
        """Whether every run could be made again and every number lies where it must."""
        return not self.failed and all(check.state != "outside" for check in self.checks)


def verify(
    report: Path, sample: int = 3, seed: int = 0, jobs: int | None = None, work: str = WORK
) -> Verification:
    """Make some runs of a report again, in a folder that goes away.

    Timings are not repeated: they belong to the machine.

    Args:
        report: its folder, with ``runs`` in it.
        sample: how many runs, of different arms and domains as far as there are.
        seed: of their choice.
        jobs: runs side by side; where it is not given, as many as leave each as many threads as it had.
        work: the function that does a job, ``module:name``.

    Raises:
        ValueError: there is no finished run of this command, or ``sample`` is below 1.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1: got {sample}")
    recorded = _recorded(report / "runs")
    chosen = choose(sorted(recorded), sample, seed)
    threads = max(recorded[name].threads for name in chosen)
    executor = LocalExecutor(jobs or max(1, cores() // threads))
    everything = {name: numbers(Measures.load(run.path / "measures.json")) for name, run in recorded.items()}
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="verify-") as place:
        runs = Path(place) / "runs"
        outcome = run_jobs([recorded[name].job for name in chosen], runs, executor, work)
        for name in chosen:
            if name not in outcome.failed:
                again = numbers(Measures.load(runs / name / "measures.json"))
                checks += compared(name, recorded[name].answers, everything, again, _kin(recorded, name))
    outdated = [name for name in chosen if not RunFolder(report / "runs", recorded[name].job).finished()]
    return Verification(checks, outcome.failed, outdated)


@dataclass(frozen=True)
class _Recorded:
    path: Path
    job: Job
    threads: int

    @property
    def answers(self) -> dict[str, int]:
        """Test examples behind each accuracy."""
        correct = Measures.load(self.path / "measures.json").correct
        return {f"accuracy/{level}": len(answers) for level, answers in correct.items()}


def _recorded(runs: Path) -> dict[str, _Recorded]:
    found = {}
    for path in sorted(runs.glob("*/job.json")):
        facts = json.loads(path.read_text())
        job = Job.read(facts["job"])
        if (path.parent / DONE).exists() and not job.alone:
            found[job.name] = _Recorded(path.parent, job, facts["threads"])
    if not found:
        raise ValueError(f"the report must have finished runs of this command: got none in {runs}")
    return found


def choose(names: Sequence[str], sample: int, seed: int) -> list[str]:
    """A drawn sample of runs, one after another from the domains and arms that it has fewest of."""
    drawn = list(names)
    random.Random(seed).shuffle(drawn)
    chosen: list[str] = []
    while drawn and len(chosen) < sample:
        kinds = [name.split("-")[:2] for name in chosen]
        best = min(
            drawn,
            key=lambda name: (
                sum(name.split("-")[0] == domain for domain, _ in kinds),
                sum(name.split("-")[1] == arm for _, arm in kinds),
            ),
        )
        drawn.remove(best)
        chosen.append(best)
    return sorted(chosen)


def numbers(measures: Measures) -> dict[str, float]:
    """What a report says of a run: its accuracies and values, by name."""
    found = {
        f"accuracy/{level}": answers.count("1") / len(answers)
        for level, answers in measures.correct.items() if answers
    }  # fmt: skip
    return found | {name: value for name, value in measures.values.items() if value is not None}


def _kin(recorded: Mapping[str, _Recorded], name: str) -> list[str]:
    """The runs that differ from one in their seed alone, itself among them."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for other, run in recorded.items():
        groups[run.job.domain, run.job.arm].append(other)
    job = recorded[name].job
    return groups[job.domain, job.arm]


def compared(
    name: str,
    answers: Mapping[str, int],
    everything: Mapping[str, Mapping[str, float]],
    again: Mapping[str, float],
    kin: Sequence[str],
) -> list[Check]:
    """The numbers of one run beside what they are now.

    The interval of a number is the 95 % prediction interval of its values over the seeds: another machine may round
    otherwise, and a training that begins to differ ends as another seed would. Of an accuracy with a single seed it
    is Wilson's interval.
    """
    checks = []
    for number, value in everything[name].items():
        values = [everything[other][number] for other in kin if number in everything[other]]
        if len(values) > 1:
            interval, basis = prediction_interval(values), f"{len(values)} seeds"
        elif number in answers:
            interval, basis = wilson(value, answers[number]), f"{answers[number]} examples"
        else:
            interval, basis = (value, value), "a single seed"
        checks.append(Check(name, number, value, again.get(number, math.nan), interval, basis))
    return checks


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more value lies with a probability of 95 %, if they are normal."""
    from scipy.stats import t

    count = len(values)
    reach = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / count)
    return statistics.fmean(values) - reach, statistics.fmean(values) + reach


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of ``count`` examples."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - reach, middle + reach


def table(found: Verification) -> str:
    """The numbers as text, with a count at the end."""
    checks = found.checks
    words: dict[State, str] = {
        "exactly": "exactly",
        "within": "within its interval",
        "outside": "OUTSIDE its interval",
    }
    lines = []
    for name in dict.fromkeys(check.run for check in checks):
        lines.append(name + (" (recorded by other code or versions)" if name in found.outdated else ""))
        for check in (check for check in checks if check.run == name):
            low, high = check.interval
            row = f"  {check.number:28} {check.recorded:9.4f} {check.again:9.4f}  {words[check.state]}"
            lines.append(
                row + ("" if check.state == "exactly" else f" {low:.4f} to {high:.4f} ({check.basis})")
            )
    lines += [f"failed: {name}: {said}" for name, said in found.failed.items()]
    counts = {state: sum(check.state == state for check in checks) for state in words}
    lines.append(
        f"{len(checks)} numbers: {counts['exactly']} reproduced exactly, {counts['within']} within their interval, "
        f"{counts['outside']} outside"
    )
    return "\n".join(lines)
