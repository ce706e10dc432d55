"""Verdicts on comparisons, on claims in a domain, and on claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmattn.report.claims.estimates import Estimated, estimate_all
from mmattn.report.claims.evidence import Shelf
from mmattn.report.claims.hypotheses import CLAIMS, Answers, Claim
from mmattn.report.claims.results import (
    ClaimResult,
    Comparison,
    DomainVerdict,
    Estimate,
    Judgement,
    Verdict,
    amount,
)
from mmattn.report.claims.rules import RULES
from mmattn.report.claims.statistics import ALPHA
from mmattn.report.runs import StoredRun, oddities
from mmattn.report.words import listing

_ORDER: tuple[Verdict, ...] = ("supported", "not supported", "inconclusive", "not measured")


def judge(runs: Sequence[StoredRun], claims: Sequence[Claim] = CLAIMS) -> Judgement:
    """What ``runs`` say of ``claims``; equal runs give equal results.

    Args:
        runs: as :func:`mmattn.report.runs.load_runs` gives them; of doubles the first by path counts.
        claims: with their comparisons.
    """
    estimated = estimate_all(claims, Shelf(runs))
    judged = [_judged(part) for part in estimated]
    sizes = [
        len(part.evidence.samples)
        for part in estimated
        if part.counts and isinstance(part.plan.measure, Answers)
    ]
    return Judgement(
        [_claim(claim, judged) for claim in claims],
        RULES,
        sum(part.counts for part in estimated),
        (min(sizes, default=0), max(sizes, default=0)),
        oddities(list(runs)),
    )


def _judged(part: Estimated) -> Comparison:
    plan = part.plan
    draft = Comparison(
        id=part.id,
        claim=part.claim,
        domain=part.domain,
        words=plan.words,
        unit=plan.unit,
        delta=plan.delta,
        primary=plan.primary,
        verdict="inconclusive",
        reason="",
        samples=part.evidence.samples,
        estimate=part.estimate,
        null=plan.null,
    )
    verdict, reason = _verdict(draft, part.evidence.lead)
    return replace(draft, verdict=verdict, reason=reason)


def _verdict(part: Comparison, lead: float | None) -> tuple[Verdict, str]:
    """The verdict on a comparison and why, in one sentence."""
    if not part.samples:
        return "not measured", "No run of this grid measures it."
    estimate = part.estimate
    if estimate is None:
        if len(part.samples) == 1:
            return "inconclusive", "A single seed does not tell how far seeds stray."
        return (
            "inconclusive",
            "All repetitions give the very same number, so nothing tells how far they may stray.",
        )
    p = estimate.p if estimate.holm is None else estimate.holm
    about = "after Holm's correction" if part.primary else "alone"
    if part.null:
        return _within_margin(part, estimate, p, about, lead)
    delta, high = amount(part.delta, part.unit), amount(estimate.high, part.unit)
    if estimate.high < part.delta:
        return (
            "not supported",
            f"The interval ends at {high}, below the smallest effect of interest, {delta}.",
        )
    if p < ALPHA and estimate.mean >= part.delta:
        return "supported", f"p = {_rounded(p)} {about}, and the estimate reaches {delta}."
    if p < ALPHA:
        return "inconclusive", f"p = {_rounded(p)} {about}, but the estimate stays below {delta}."
    found = amount(estimate.detectable, part.unit)
    return "inconclusive", f"p = {_rounded(p)} {about}; this grid would find {found} or more."


def _within_margin(
    part: Comparison, estimate: Estimate, p: float, about: str, lead: float | None
) -> tuple[Verdict, str]:
    """The verdict where something may be worse by less than a margin."""
    margin, high = amount(-part.null, part.unit), amount(estimate.high, part.unit)
    if estimate.high < part.null:
        return "not supported", f"The interval ends at {high}, a loss of more than {margin}."
    if lead is not None and lead <= 0:
        behind = f"What it is set beside lies {amount(-lead, part.unit)} behind a linear model"
        return "inconclusive", f"{behind}, so that being no worse says nothing."
    if p < ALPHA:
        return "supported", f"A loss of {margin} or more is ruled out (p = {_rounded(p)} {about})."
    found = amount(estimate.detectable, part.unit)
    open_yet = f"A loss of {margin} or more is not ruled out (p = {_rounded(p)} {about})"
    return (
        "inconclusive",
        f"{open_yet}; this grid would do so where the true difference is {found} or better.",
    )


def _rounded(p: float) -> str:
    return "0.0001 or less" if p <= 0.0001 else f"{p:.2g}" if p < 0.995 else "1"


def _claim(claim: Claim, judged: Sequence[Comparison]) -> ClaimResult:
    own = [part for part in judged if part.claim == claim.id]
    domains = [
        _domain(name, [part for part in own if part.domain == name])
        for name in claim.domains
        if any(part.domain == name for part in own)
    ]
    verdict = _weakest([domain.verdict for domain in domains])
    said = "; ".join(
        f"{word} in {listing([domain.domain for domain in domains if domain.verdict == word])}"
        for word in _ORDER
        if any(domain.verdict == word for domain in domains)
    )
    reason = f"{said[:1].upper()}{said[1:]}." if domains else "No run of this grid measures it."
    return ClaimResult(claim.id, claim.title, claim.sentence, claim.hypothesis, verdict, reason, domains)


def _domain(name: str, comparisons: list[Comparison]) -> DomainVerdict:
    ordered = sorted(comparisons, key=lambda part: not part.primary)
    primary = [part for part in ordered if part.primary]
    if len(primary) == 1:
        return DomainVerdict(name, primary[0].verdict, primary[0].reason, ordered)
    counts = [
        f"{found} {word}" for word in _ORDER if (found := sum(part.verdict == word for part in primary))
    ]
    reason = f"Of {len(primary)} primary comparisons: {', '.join(counts)}."
    return DomainVerdict(name, _weakest([part.verdict for part in primary]), reason, ordered)


def _weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for several that must all hold; what was not measured leaves it open."""
    if not verdicts or all(verdict == "not measured" for verdict in verdicts):
        return "not measured"
    if "not supported" in verdicts:
        return "not supported"
    return "supported" if all(verdict == "supported" for verdict in verdicts) else "inconclusive"
