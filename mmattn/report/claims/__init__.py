"""The claims of the material, judged by the measures of a grid: hypotheses, statistics, verdicts."""

from mmattn.report.claims.judge import judge
from mmattn.report.claims.results import (
    ClaimResult,
    Comparison,
    DomainVerdict,
    Estimate,
    Judgement,
    Sample,
    Unit,
    Verdict,
    amount,
)

__all__ = [
    "ClaimResult",
    "Comparison",
    "DomainVerdict",
    "Estimate",
    "Judgement",
    "Sample",
    "Unit",
    "Verdict",
    "amount",
    "judge",
]
