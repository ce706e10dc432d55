"""Intervals for fractions, and the verdict on a domain's aim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from mmattn.report.records import DomainReport, ResultRow
from mmattn.report.words import points, span

Z95 = NormalDist().inv_cdf(0.975)


def wilson(fraction: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a fraction of ``n`` examples (Wilson 1927), both ends in [0, 1].

    >>> low, high = wilson(0.9, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    denominator = 1 + z * z / n
    centre = (fraction + z * z / (2 * n)) / denominator
    half = z / denominator * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(first: float, n_first: int, second: float, n_second: int) -> tuple[float, float]:
    """95 % interval of ``first - second``, built from their Wilson intervals (Newcombe 1998, method 10).

    It takes the two as independent. Models judged on the same examples usually agree on the easy ones, and
    then the interval is too wide rather than too narrow.
    """
    low_1, high_1 = wilson(first, n_first)
    low_2, high_2 = wilson(second, n_second)
    difference = first - second
    low = difference - math.hypot(first - low_1, high_2 - second)
    high = difference + math.hypot(high_1 - first, second - low_2)
    return low, high


@dataclass(frozen=True)
class Comparison:
    """Model against one control: difference and interval as fractions (None without numbers), in words."""

    control: str
    difference: float | None
    interval: tuple[float, float] | None
    met: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Whether the aim of a domain is borne out by the numbers."""

    supported: bool
    comparisons: list[Comparison]

    @property
    def word(self) -> str:
        """``supported`` or ``not supported``."""
        return "supported" if self.supported else "not supported"


def compare(model: ResultRow | None, control: ResultRow | None, name: str, margin: float) -> Comparison:
    """``model`` against ``control``: met where all of the 95 % interval reaches ``margin``."""
    if model is None or control is None or model.standard is None or control.standard is None:
        return Comparison(name, None, None, False, f"no number to compare with {name}")
    difference = model.standard - control.standard
    low, high = newcombe(model.standard, model.n_test, control.standard, control.n_test)
    ahead = "ahead of" if difference >= 0 else "behind"
    text = f"{points(abs(difference))} {ahead} {name} (95 % interval {span(low, high)})"
    # An estimate just past the margin may be luck of the test set, so the interval has to clear it.
    if low >= margin:
        return Comparison(name, difference, (low, high), True, text)
    reason = f", but the interval reaches below {points(margin)}" if difference >= margin else ""
    return Comparison(name, difference, (low, high), False, text + reason)


def judge(domain: DomainReport) -> Verdict:
    """The verdict on ``domain``: supported where every comparison of its aim is met."""
    rows = {row.name: row for row in domain.rows}
    model = rows.get(domain.aim.model)
    comparisons = [compare(model, rows.get(name), name, domain.aim.margin) for name in domain.aim.controls]
    return Verdict(all(part.met for part in comparisons), comparisons)
