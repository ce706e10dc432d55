"""Intervals agree with SciPy and with print; verdicts follow from the numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mmattn.report import LINEAR, DomainReport, ReportInput, ResultRow
from mmattn.report.verdict import judge, newcombe, wilson


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 7), (7, 7), (1, 13), (81, 263), (15, 148), (29, 29), (912, 1000)]
)
def test_wilson_is_scipys(hits: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombe_is_the_papers_method_10(
    first: tuple[int, int], second: tuple[int, int], expected: tuple[float, float]
) -> None:
    # Newcombe, Statistics in Medicine 17 (1998), 873-890, table II.
    got = newcombe(first[0] / first[1], first[1], second[0] / second[1], second[1])
    assert got == pytest.approx(expected, abs=6e-5)


def domain(made_up: ReportInput, rows: list[ResultRow]) -> DomainReport:
    return replace(made_up.domains[0], rows=rows)


def test_supported_where_every_interval_clears_the_margin(
    made_up: ReportInput, made_up_rows: Callable[..., list[ResultRow]]
) -> None:
    verdict = judge(domain(made_up, made_up_rows(0.9, 0.4, 0.3)))
    assert verdict.supported
    assert verdict.word == "supported"
    assert [part.met for part in verdict.comparisons] == [True, True]
    assert verdict.comparisons[0].sentence.startswith(
        "50.0 points ahead of uniform attention (control) (95 % interval 4"
    )


def test_one_missed_control_is_enough_for_not_supported(
    made_up: ReportInput, made_up_rows: Callable[..., list[ResultRow]]
) -> None:
    verdict = judge(domain(made_up, made_up_rows(0.8, 0.3, 0.82)))
    assert verdict.word == "not supported"
    assert [part.met for part in verdict.comparisons] == [True, False]
    assert verdict.comparisons[1].sentence.startswith("2.0 points behind linear model (control)")
    assert "reaches below" not in verdict.comparisons[1].sentence


def test_margin_passed_but_interval_overlapping_is_not_supported(
    made_up: ReportInput, made_up_rows: Callable[..., list[ResultRow]]
) -> None:
    few = judge(domain(made_up, made_up_rows(0.74, 0.62, 0.3, n_test=300)))
    assert not few.supported
    assert few.comparisons[0].sentence.endswith("but the interval reaches below 10.0 points")
    many = judge(domain(made_up, made_up_rows(0.74, 0.62, 0.3, n_test=30_000)))
    assert many.supported


@pytest.mark.parametrize("gone", [True, False])
def test_missing_number_is_not_supported(
    gone: bool, made_up: ReportInput, made_up_rows: Callable[..., list[ResultRow]]
) -> None:
    rows = made_up_rows(0.9, 0.4, 0.3)
    rows = [
        row if row.name != LINEAR else replace(row, standard=None)
        for row in rows
        if not (gone and row.name == LINEAR)
    ]
    verdict = judge(domain(made_up, rows))
    assert verdict.word == "not supported"
    assert verdict.comparisons[1].sentence == "no number to compare with linear model (control)"
