"""Bars: what holds, what does not, and how a benchmark ends."""

from __future__ import annotations

import json

import pytest

from benchmarks import embedded
from benchmarks.bars import Bar, conclude
from mmattn.report.measures import Measures
from tasks.compare.running import Outcome


def test_bars_hold_on_their_side_of_the_limit():
    assert Bar("a", 1.0, 1.0).holds
    assert not Bar("a", 0.99, 1.0).holds
    assert Bar("a", 1.0, 1.0, at_least=False).holds
    assert not Bar("a", 1.01, 1.0, at_least=False).holds


def test_a_benchmark_ends_with_the_count_and_says_by_its_status_whether_all_hold(capsys, tmp_path):
    good, bad = Bar("good", 2.0, 1.0), Bar("bad", 2.0, 1.0, at_least=False, note="seeds 0, 1")
    assert conclude([good], None) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bars: 1 of 1 hold"
    assert conclude([good, bad], tmp_path / "deep" / "bars.json") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "bars: 1 of 2 hold"
    written = json.loads((tmp_path / "deep" / "bars.json").read_text())
    assert [(row["name"], row["holds"], row["note"]) for row in written] == [
        ("good", True, ""),
        ("bad", False, "seeds 0, 1"),
    ]


def test_the_embedded_bars_are_read_off_the_measures(tmp_path):
    plain = {"attention": (98, 90), "uniform": (97, 85), "linear": (90, 60)}
    for domain in embedded.PLAIN:
        for arm, (easy, hard) in plain.items():
            correct = {"0": "1" * easy + "0" * (100 - easy), "3": "1" * hard + "0" * (100 - hard)}
            made = Measures(domain, arm, 0, correct=correct, standard="3")
            made.save(tmp_path / f"{domain}-{arm}-0" / "measures.json")
    found = embedded.bars(tmp_path)
    assert len(found) == 9
    assert [(round(bar.value, 6), bar.holds) for bar in found[:3]] == [
        (98.0, True),
        (5.0, False),
        (30.0, True),
    ]
    assert found[1].name == "vision, among distractors, points ahead of uniform attention (control)"


def test_the_embedded_bars_need_every_run(monkeypatch, capsys, tmp_path):
    failed = Outcome((), {"vision-linear-0": "ValueError: no"})
    monkeypatch.setattr(embedded, "run_grid", lambda grid, out, executor: failed)
    with pytest.raises(SystemExit):
        embedded.main(["--runs", str(tmp_path)])
    assert "every run must end: vision-linear-0: ValueError: no" in capsys.readouterr().err
