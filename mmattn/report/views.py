"""What the templates draw: claims as rows of the summary, as forests and as tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from mmattn.report import drawings, words
from mmattn.report.accuracy import Accuracy
from mmattn.report.claims.results import ClaimResult, Comparison, DomainVerdict, Judgement, Unit, Verdict
from mmattn.report.contents import Report
from mmattn.report.names import arm_order, domain_name, domain_order
from mmattn.report.svg import Scale, ruler

_UNITS: dict[Unit, str] = {
    "points": "difference in percentage points",
    "log2": "ratio (1\N{MULTIPLICATION SIGN}: no difference)",
    "distance": "difference of distances (0 to 1)",
}


@dataclass(frozen=True)
class Cell:
    """A claim in one domain, in the summary: its first primary comparison, and all of them as rows."""

    part: DomainVerdict
    lead: Comparison | None
    rows: list[Markup]
    said: str
    wide: bool


@dataclass(frozen=True)
class ForestRow:
    """One comparison of a forest: ``name`` tells it from the others of its group."""

    name: str
    part: Comparison
    drawing: Markup


@dataclass(frozen=True)
class ForestGroup:
    """Comparisons of the same words, one for each domain or length."""

    title: str
    rows: list[ForestRow]


@dataclass(frozen=True)
class Forest:
    """Comparisons of one unit on one axis."""

    unit: str
    groups: list[ForestGroup]
    axis: Markup


#: Short names for the bar of links.
_SHORT = {
    "focus": "Focus",
    "heads": "Several heads",
    "complement": "Complement",
    "parallel": "Parallel work",
    "core": "One core",
}


@dataclass(frozen=True)
class ClaimView:
    """One claim: its cells in the summary, its forests, and those of comparisons without weight."""

    claim: ClaimResult
    cells: list[Cell | None]
    forests: list[Forest]
    beside: list[Forest]

    @property
    def short(self) -> str:
        """Its name in the bar of links."""
        return _SHORT.get(self.claim.id, self.claim.title)

    @property
    def comparisons(self) -> list[Comparison]:
        """All of its comparisons."""
        return [part for domain in self.claim.domains for part in domain.comparisons]

    @property
    def beside_count(self) -> int:
        """How many comparisons have no weight."""
        return sum(not part.primary for part in self.comparisons)


def senses(judgement: Judgement) -> list[str]:
    """Domains that are columns of the summary: those in which several claims are judged."""
    found = Counter(part.domain for claim in judgement.claims for part in claim.domains)
    kept = [domain for domain in found if domain not in ("speed", "joint")]
    return sorted(kept, key=domain_order)


def _cell(part: DomainVerdict, wide: bool) -> Cell:
    primary = [each for each in part.comparisons if each.primary]
    judged = [each for each in primary if each.estimate is not None]
    held = sum(each.verdict == "supported" for each in primary)
    said = f"{held} of {words.counted(len(primary), 'comparison')} supported"
    rows = [drawings.glance(each) for each in judged]
    return Cell(part, judged[0] if judged else None, rows, said, wide)


def _cells(claim: ClaimResult, columns: list[str]) -> list[Cell | None]:
    """One for each column, or one over all columns for each domain that is no column."""
    found = {part.domain: part for part in claim.domains}
    if not set(found) & set(columns):
        return [_cell(part, True) for part in claim.domains]
    return [_cell(found[domain], False) if domain in found else None for domain in columns]


def _groups(parts: list[Comparison], scale: Scale) -> list[ForestGroup]:
    groups: dict[str, list[ForestRow]] = {}
    for part in parts:
        title, name = _title(part)
        row = ForestRow(name, part, drawings.forest_row(part, scale))
        groups.setdefault(title, []).append(row)
    return [ForestGroup(title, rows) for title, rows in groups.items()]


def _title(part: Comparison) -> tuple[str, str]:
    """Words of the group and of the row: timings are told apart by their length, the others by their domain."""
    title, comma, length = part.words.rpartition(", length ")
    return (title, f"{length} tokens") if comma else (part.words, domain_name(part.domain))


def _forests(claim: ClaimResult, primary: bool) -> list[Forest]:
    units: dict[Unit, list[Comparison]] = {}
    for domain in sorted(claim.domains, key=lambda part: domain_order(part.domain)):
        for part in domain.comparisons:
            if part.primary == primary:
                units.setdefault(part.unit, []).append(part)
    out = []
    for unit, parts in units.items():
        scale = drawings.forest_scale(parts)
        drawn = any(part.estimate is not None for part in parts)
        axis = ruler(scale, *drawings.forest_marks(scale, unit)) if drawn else Markup()
        out.append(Forest(_UNITS[unit], _groups(parts, scale), axis))
    return out


@dataclass(frozen=True)
class Grid:
    """Accuracies as a table of arms by domains."""

    domains: list[str]
    arms: list[str]
    cells: dict[tuple[str, str], Accuracy]


def grid(rows: list[Accuracy]) -> Grid:
    """Rows and columns in the order of the page."""
    domains = sorted({row.domain for row in rows}, key=domain_order)
    arms = sorted({row.arm for row in rows}, key=arm_order)
    return Grid(domains, arms, {(row.domain, row.arm): row for row in rows})


def levels(rows: list[Accuracy]) -> str:
    """Numbers of distractors at the standard levels: ``6``, or ``4 (vision) and 6 (text)``."""
    found = {row.domain: row.level for row in rows}
    if len(set(found.values())) < 2:
        return next(iter(found.values()), "all")
    return words.listing([f"{level} ({domain_name(domain).lower()})" for domain, level in found.items()])


def claim_views(judgement: Judgement) -> list[ClaimView]:
    """All claims in their order."""
    columns = senses(judgement)
    return [
        ClaimView(claim, _cells(claim, columns), _forests(claim, True), _forests(claim, False))
        for claim in judgement.claims
    ]


def outcome(judgement: Judgement) -> str:
    """What came of the claims, as a sentence: ``Of 5 claims, 2 are supported, ...``."""
    found = Counter(claim.verdict for claim in judgement.claims)
    order: tuple[Verdict, ...] = ("supported", "not supported", "inconclusive", "not measured")
    said = [f"{found[word]} {'is' if found[word] == 1 else 'are'} {word}" for word in order if found[word]]
    return f"Of {words.counted(len(judgement.claims), 'claim')}, {words.listing(said)}."


def facts(report: Report) -> list[tuple[str, str]]:
    """Numbers that say how large the grid is, each with its noun."""
    trained = [run for run in report.runs if run.parameters is not None]
    seeds = len({run.seed for run in trained})
    examples = [row.examples for row in report.accuracies]
    seconds = sum(run.seconds or 0.0 for run in trained)
    comparisons = len(report.judgement.comparisons)
    return [
        (f"{len(trained):,}", "trained models" if len(trained) != 1 else "trained model"),
        (str(seeds), "seeds of each" if seeds != 1 else "seed"),
        (f"{min(examples, default=0):,}", "test scenes or more in each domain"),
        (f"{comparisons:,}", f"comparisons, {report.judgement.family} of them for the verdicts"),
        (words.duration(seconds), "of training in all"),
    ]


def domains_said(report: Report) -> str:
    """``pictures, speech and text``."""
    return words.listing([domain_name(domain).lower() for domain in senses(report.judgement)])
