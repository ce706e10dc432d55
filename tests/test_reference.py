"""The reference result under docs: whole, as large as promised, and as the text beside it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("scipy")

from mmattn.report.claims import amount
from mmattn.report.contents import Report

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "reference"
SENSES = ("vision", "speech", "text")
SHEETS = ("accuracies", "comparisons", "figures", "runs", "trunks")


@pytest.fixture(scope="module")
def report() -> Report:
    return Report.load(FOLDER / "report.json")


def test_the_reference_is_a_standard_grid_without_flaws(report):
    assert {run.domain for run in report.runs} == {"vision", "speech", "text", "joint", "speed"}
    assert report.judgement.seeds == (5, 5)
    assert report.failed == []
    assert report.judgement.warnings == []
    (commit,) = {run.git_commit for run in report.runs if run.git_commit}
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert all(run.environment.get("cpu") for run in report.runs if run.parameters)


def test_the_page_is_there_with_its_twins(report):
    names = {"index.html", "report.md", "report.json", *(f"{name}.csv" for name in SHEETS)}
    assert {path.name for path in FOLDER.iterdir()} == names
    assert (FOLDER / "index.html").stat().st_size < 8_000_000
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    for claim in report.judgement.claims:
        assert claim.title in page


def test_the_text_says_what_the_reference_says(report):
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    table = text.partition("## The reference result")[2]
    for claim in report.judgement.claims:
        row = re.search(rf"^\| {re.escape(claim.title.lower())} \|(.*)\|$", table, re.MULTILINE)
        assert row is not None, claim.title
        cells = [cell.strip() for cell in row[1].split("|")]
        verdicts = {part.domain: part.verdict for part in claim.domains}
        said = [cell.partition(":")[0] for cell in cells]
        assert said == [*(verdicts.get(sense, "") for sense in SENSES), claim.verdict], claim.title


def test_the_figures_of_the_text_are_those_of_the_reference(report):
    text = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## The reference result")[2]
    amounts = {
        (part.claim, part.domain, amount(part.estimate.mean, part.unit))
        for part in report.judgement.comparisons
        if part.estimate is not None
    }
    shown = re.findall(r"^\| [^|]+\|.*$", text, re.MULTILINE)
    found = 0
    for claim in report.judgement.claims:
        (row,) = [row for row in shown if row.startswith(f"| {claim.title.lower()} |")]
        for sense, cell in zip(SENSES, row.split("|")[2:5], strict=True):
            for number in re.findall(r": (\S+ (?:points|times))", cell):
                assert (claim.id, sense, number) in amounts, (claim.id, sense, number)
                found += 1
    assert found >= 6
