"""Bars: what holds, what does not, and how a benchmark ends."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import embedded
from benchmarks.bars import Bar, conclude


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


def test_the_embedded_bars_need_a_report(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["embedded", "--report", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit):
        embedded.main()
    assert "none.json, which does not exist; run make report first" in capsys.readouterr().err
