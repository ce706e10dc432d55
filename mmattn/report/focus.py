"""How much of the attention lies on what matters, in plain shares."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from mmattn.report.figures.lines import by_domain
from mmattn.report.runs import StoredRun


@dataclass(frozen=True)
class Focus:
    """The attention model of one domain: share of its attention on relevant tokens, and their share of all."""

    domain: str
    mass: float
    share: float
    runs: list[str]


def focus(runs: list[StoredRun]) -> list[Focus]:
    """One entry for each domain where both were measured, means over seeds."""
    out = []
    for domain, group in by_domain(run for run in runs if run.measures.arm == "attention").items():
        pairs = [
            (run.path, mass, share)
            for run in group
            if (mass := run.measures.values.get("focus/mass")) is not None
            and (share := run.measures.values.get("focus/share")) is not None
        ]
        if pairs:
            mass, share = fmean(mass for _, mass, _ in pairs), fmean(share for _, _, share in pairs)
            out.append(Focus(domain, round(mass, 6), round(share, 6), sorted(path for path, _, _ in pairs)))
    return out
