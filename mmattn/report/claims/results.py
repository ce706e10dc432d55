"""What came of a grid: claims, their domains, their comparisons, and the runs behind each number.

Numbers stand in the unit of their comparison, and more is always better for the claim:

- ``"points"``: percentage points of accuracy, 2.0 for 0.85 against 0.83;
- ``"log2"``: logarithm of a ratio to the base 2, 1.0 for twice as much; :func:`amount` shows the ratio;
- ``"distance"``: a plain number, such as a Jensen-Shannon distance between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["supported", "not supported", "inconclusive", "not measured"]
Unit = Literal["points", "log2", "distance"]

_MINUS = "\N{MINUS SIGN}"


def amount(value: float, unit: Unit) -> str:
    """``value`` with its unit, for the reader.

    >>> amount(-2.04, "points"), amount(1.0, "log2"), amount(0.0213, "distance")
    ('−2.0 points', '2.00 times', '0.021')
    """
    if unit == "log2":
        ratio = 2.0 ** min(value, 300.0)
        digits = 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
        return f"{ratio:.{digits}f} times" if ratio >= 0.095 else f"{ratio:.2g} times"
    text = f"{value:.1f} points" if unit == "points" else f"{value:.3f}"
    # a rounded zero has no sign
    return text.replace("-", _MINUS if float(text.split()[0]) != 0 else "")


@dataclass(frozen=True)
class Sample:
    """One repetition of a comparison: a seed, or a round of timings.

    Attributes:
        seed: of the runs; for timings the number of the round.
        value: the difference, in the unit of the comparison.
        runs: paths of the runs that it comes from, relative to the folder of runs.
    """

    seed: int
    value: float
    runs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    """What the repetitions come to, in the unit of the comparison.

    Attributes:
        mean: over the repetitions.
        low: lower end of the 95 % interval.
        high: upper end.
        error: standard error of ``mean``, from seeds and examples together.
        p: one-sided, of the effect that has to be ruled out, mostly none, or one further against the claim.
        holm: ``p`` after Holm's correction; None for secondary comparisons.
        effect: Cohen's dz, mean over standard deviation of the repetitions; None where they are all equal.
        detectable: the smallest true effect that a grid such as this would call supported in 8 of 10 repetitions.
        examples: number of test examples that all runs share; 0 where only a number for each run is known.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float
    holm: float | None
    effect: float | None
    detectable: float
    examples: int


@dataclass(frozen=True)
class Comparison:
    """One thing against another in one domain.

    Attributes:
        id: ``<claim>/<domain>/<what>``, of its own for each comparison.
        claim: id of the claim.
        domain: ``vision``, ``speech``, ``text``, ``speed``, ...
        words: what is compared, such as ``attention − uniform: accuracy among distractors``.
        unit: of every number here.
        delta: smallest effect of interest, or the loss that has to be ruled out, fixed beforehand.
        primary: whether the verdict rests on it; the others only stand beside it.
        null: effect that has to be ruled out: 0, or the margin of what may be lost, which is then ``delta`` too.
        verdict: for secondary comparisons what it would be alone, without correction and without weight.
        reason: of the verdict, one sentence.
        samples: one for each repetition.
        estimate: None where there are fewer than two repetitions, or no spread between them.
    """

    id: str
    claim: str
    domain: str
    words: str
    unit: Unit
    delta: float
    primary: bool
    verdict: Verdict
    reason: str
    samples: list[Sample] = field(default_factory=list)
    estimate: Estimate | None = None
    null: float = 0.0

    @property
    def runs(self) -> list[str]:
        """Paths of all runs behind it, sorted."""
        return sorted({path for sample in self.samples for path in sample.runs})


@dataclass(frozen=True)
class DomainVerdict:
    """A claim in one domain: primary comparisons first."""

    domain: str
    verdict: Verdict
    reason: str
    comparisons: list[Comparison]


@dataclass(frozen=True)
class ClaimResult:
    """A claim over all domains.

    Attributes:
        id: ``focus``, ``heads``, ``complement``, ``parallel`` or ``core``.
        title: for headings.
        sentence: what the material says.
        hypothesis: what that means in numbers, written before there were any.
        verdict: over the domains.
        reason: one sentence.
        domains: those that the grid has runs of.
    """

    id: str
    title: str
    sentence: str
    hypothesis: str
    verdict: Verdict
    reason: str
    domains: list[DomainVerdict]


@dataclass(frozen=True)
class Judgement:
    """All that a grid says of the claims.

    Attributes:
        claims: in the order of the page.
        rules: how verdicts come about, in words, a sentence or two each.
        family: number of primary comparisons that Holm's correction counts.
        seeds: the fewest and the most seeds of a primary comparison of accuracies; zeros without any.
        warnings: what a reader has to know of the runs: doubles, mixed versions, missing runs.
    """

    claims: list[ClaimResult]
    rules: list[str]
    family: int
    seeds: tuple[int, int]
    warnings: list[str] = field(default_factory=list)

    @property
    def comparisons(self) -> list[Comparison]:
        """All of them, in the order of the page."""
        return [part for claim in self.claims for domain in claim.domains for part in domain.comparisons]
