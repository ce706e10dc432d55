"""Estimates of all comparisons of a grid, which steady and correct one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmattn.report.claims.evidence import Evidence, Shelf, collect
from mmattn.report.claims.hypotheses import Answers, Claim, Plan, Times
from mmattn.report.claims.moderation import moderate
from mmattn.report.claims.results import Estimate
from mmattn.report.claims.statistics import (
    Spread,
    detectable,
    holm,
    interval,
    one_sided_p,
    spread_of_answers,
    spread_of_values,
)


@dataclass(frozen=True)
class Estimated:
    """A comparison with its numbers, before its verdict.

    Attributes:
        id: ``<claim>/<domain>/<what>``.
        claim: id of the claim.
        domain: of the verdict.
        plan: what was to be compared.
        evidence: what there was to compare.
        estimate: None where nothing tells how far the repetitions stray.
    """

    id: str
    claim: str
    domain: str
    plan: Plan
    evidence: Evidence
    estimate: Estimate | None = None

    @property
    def counts(self) -> bool:
        """Whether Holm's correction counts it."""
        return self.plan.primary and self.estimate is not None


def estimate_all(claims: Sequence[Claim], shelf: Shelf) -> list[Estimated]:
    """Every comparison of ``claims`` in the domains that ``shelf`` has runs of, in the order of the claims."""
    found = [
        Estimated(f"{claim.id}/{domain}/{key}", claim.id, domain, plan, evidence)
        for claim in claims
        for domain in claim.domains
        if (claim.runs or domain) in shelf.domains
        for outline in claim.plans
        for key, (plan, evidence) in collect(outline, domain, shelf).items()
    ]
    spreads = _steadied(found)
    nulls = {part.id: part.plan.null for part in found}
    p = {id: one_sided_p(spread, nulls[id]) for id, spread in spreads.items()}
    family = [part.id for part in found if part.plan.primary and part.id in p]
    corrected = dict(zip(family, holm([p[id] for id in family]), strict=True))
    return [
        replace(part, estimate=_estimate(part, spreads[part.id], p[part.id], corrected))
        if part.id in p
        else part
        for part in found
    ]


def _steadied(found: Sequence[Estimated]) -> dict[str, Spread]:
    """Spreads by id; those of one kind and unit steady one another, but not rounds of timings, which are many."""
    kinds: dict[tuple[str, str], dict[str, Spread]] = defaultdict(dict)
    for part in found:
        spread = _spread(part.evidence)
        if spread is not None:
            # the spread of timings is a matter of the machine
            what = Answers if isinstance(part.plan.measure, Answers) else type(part.plan.measure)
            kind = what.__name__ + ("" if part.evidence.answers is None else " one by one")
            kinds[kind, part.plan.unit][part.id] = spread
    out: dict[str, Spread] = {}
    for (kind, _), spreads in kinds.items():
        own = list(spreads.values())
        steadied = own if kind == Times.__name__ else moderate(own)
        out |= dict(zip(spreads, steadied, strict=True))
    return out


def _spread(evidence: Evidence) -> Spread | None:
    if len(evidence.samples) < 2:
        return None
    if evidence.answers is not None and evidence.answers.shape[1] >= 2:
        return spread_of_answers(evidence.answers, 100.0)
    return spread_of_values([sample.value for sample in evidence.samples])


def _estimate(part: Estimated, spread: Spread, p: float, corrected: dict[str, float]) -> Estimate:
    low, high = interval(spread)
    adjusted = corrected.get(part.id)
    family = len(corrected) if part.plan.primary else 1
    return Estimate(
        mean=_rounded(spread.mean),
        low=_rounded(low),
        high=_rounded(high),
        error=_rounded(spread.error),
        p=_rounded(p),
        holm=None if adjusted is None else _rounded(adjusted),
        effect=None if spread.effect is None else _rounded(spread.effect),
        detectable=_rounded(detectable(spread, family, part.plan.delta, part.plan.null)),
        examples=0 if part.evidence.answers is None else part.evidence.answers.shape[1],
    )


def _rounded(value: float) -> float:
    """Ten digits: the last ones of a sum differ between processors, and equal runs are to give equal bytes."""
    return float(f"{value:.10g}")
