"""All checks over all models of the zoo."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.plugins.zoo import cases
from benchmarks.plugins.zoo.case import Case
from benchmarks.plugins.zoo.checks import CHECKS
from benchmarks.plugins.zoo.subject import Subject


@dataclass
class Result:
    """What one model gave.

    Attributes:
        id: of the case.
        figures: what each check gives that holds.
        failures: what each other one says; of ``"build"``, where the model could not be made.
        seconds: taken.
    """

    id: str
    figures: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all checks hold."""
        return not self.failures


def examine(case: Case) -> Result:
    """All checks of one model."""
    begin, result = time.perf_counter(), Result(case.id)
    try:
        subject = Subject(case)
    except Exception as error:  # what fails is the figure
        result.failures["build"] = _line(error)
    else:
        for name, check in CHECKS.items():
            try:
                result.figures[name] = check(subject)
            except Exception as error:
                result.failures[name] = _line(error)
    result.seconds = round(time.perf_counter() - begin, 2)
    return result


def sweep(*libraries: str, each: Callable[[Result], Any] = lambda _: None) -> list[Result]:
    """The results of all models of the libraries named, or of all; ``each`` sees one when it is there."""
    results = []
    for case in cases(*libraries):
        results.append(examine(case))
        each(results[-1])
    return results


def table(results: Iterable[Result]) -> str:
    """The largest figure of each check by library, and what does not hold."""
    results = list(results)
    lines = ["| library | models | hold | " + " | ".join(CHECKS) + " |", "|---" * (3 + len(CHECKS)) + "|"]
    for library in dict.fromkeys(r.id.split("/")[0] for r in results):
        some = [r for r in results if r.id.startswith(f"{library}/")]
        worst = [max((r.figures[name] for r in some if name in r.figures), default=0.0) for name in CHECKS]
        figures = " | ".join(f"{x:.1e}" for x in worst)
        lines.append(f"| {library} | {len(some)} | {sum(r.holds for r in some)} | {figures} |")
    failed = [f"| {r.id} | {name} | {why} |" for r in results for name, why in r.failures.items()]
    if failed:
        lines += ["", "| model | check | |", "|---|---|---|", *failed]
    return "\n".join(lines)


def _line(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
