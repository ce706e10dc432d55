"""What the topics of the attention benchmark conclude from times that are made up."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.attention import best, dense, encoder, explain, scaling, steps, windows
from benchmarks.attention.settings import Settings


def test_dense_compares_with_the_fastest_peer_and_takes_the_geometric_mean(once, monkeypatch):
    timings = {"mmattn": once(2.0, 2.0), "timm": once(4.0, 4.0), "torch.nn": once(1.0, 1.0)}
    quick = {"mmattn": once(1.0, 1.0), "timm": once(2.0, 2.0), "torch.nn": once(3.0, 3.0)}
    monkeypatch.setattr(dense, "measure", lambda shape, settings: {"forward": timings, "step": quick})
    bars = dense.run(Settings()).bars
    assert [bar.value for bar in bars[:-1]] == [2.0, 0.5] * 5
    assert bars[-1].value == pytest.approx(1.0)
    assert [bar.limit for bar in bars] == [1.03] * 10 + [1.0]
    assert [bar.holds for bar in bars] == [False, True] * 5 + [True]
    assert bars[0].note.startswith("against torch.nn;")
    assert bars[1].note.startswith("against timm;")


def test_x_transformers_is_compared_with_ours_without_bias(once):
    timings = {
        "mmattn": once(3.0), "mmattn, no bias": once(2.0), "x-transformers": once(1.9), "timm": once(3.2),
    }  # fmt: skip
    peer, compared = dense.against_fastest(timings)
    assert peer == "x-transformers"
    assert compared.of_medians == pytest.approx(2.0 / 1.9)


def test_bert_is_compared_with_ours_without_hidden_dropout(once):
    timings = {
        "transformers bf16": once(3.0), "torch.nn bf16": once(3.3),
        "mmattn bf16": once(2.5), "mmattn bf16, no hidden dropout": once(2.0),
    }  # fmt: skip
    assert steps.nearest(timings) == ("torch.nn bf16", "mmattn bf16")
    timings["transformers bf16"] = once(2.4)
    assert steps.nearest(timings) == ("transformers bf16", "mmattn bf16, no hidden dropout")


def test_encoder_takes_the_fastest_on_both_sides(once, monkeypatch):
    timings = {
        "torch.nn": once(9.0), "transformers": once(6.0), "x-transformers": once(8.0),
        "mmattn fp32, random": once(3.0), "mmattn bf16, bucketed": once(2.0),
    }  # fmt: skip
    monkeypatch.setattr(encoder, "measure", lambda *args: (timings, 0.5))
    bars = encoder.run(Settings()).bars
    assert len(bars) == 16
    assert {(bar.value, bar.limit, bar.holds) for bar in bars} == {(3.0, 3.0, True)}
    assert bars[0].note.startswith("mmattn bf16, bucketed against transformers;")


@pytest.mark.parametrize(
    ("embed_dim", "dropout", "times"), [(144, 0.1, 1.5), (256, 0.1, 1.5), (144, 0.0, 1.2), (256, 0.0, 1.5)]
)
def test_what_is_promised_against_the_peers_at_their_best(embed_dim, dropout, times):
    assert best.promised(embed_dim, dropout) == times


def test_the_growth_of_windows_is_measured_against_the_growth_of_the_length(once, monkeypatch):
    seconds = {"mmattn": 1.0, "SDPA with a dense mask": 4.2, "L=2048": 1.0, "L=32768": 16.8}

    def fake(self, contenders, *args, **kwargs):
        return {name: once(seconds[name]) for name in contenders}

    monkeypatch.setattr(Settings, "race", fake)
    monkeypatch.setattr(windows, "tensors", lambda *args: [torch.zeros(1)] * 4)
    monkeypatch.setattr(windows, "masked_sdpa", lambda *args: None)
    bars = windows.run(Settings(compile=False)).bars
    assert [(bar.value, bar.holds) for bar in bars] == [
        (4.2, False), (4.2, True), (pytest.approx(1.05), True), (pytest.approx(1.05), True),
    ]  # fmt: skip


def test_a_situation_checks_the_choice_and_the_words():
    class Answer:
        chosen, reason, others = "sdpa", "it is fused", {"math": "it is slow"}

    def refuse(device):
        raise ValueError("cannot: no gradients")

    def problem(*args, **kwargs):
        return explain.Situation("s", *args, **kwargs).problem("cpu")

    assert problem(lambda d: Answer, "sdpa", "fused") is None
    assert problem(lambda d: Answer, "math", "fused") == "chose sdpa, not math"
    assert problem(lambda d: Answer, "sdpa", "quick") == "said 'it is fused', without 'quick'"
    assert problem(lambda d: Answer, "sdpa", "slow", other="math") is None
    assert problem(refuse, None, "no gradients") is None
    assert problem(refuse, "flex", "no gradients") == "chose None, not flex"


def test_a_time_limit_stops_what_catches_exceptions():
    def stubborn():
        while True:
            try:
                time.sleep(5)
            except Exception:
                continue

    with pytest.raises(best.OutOfTime, match=r"more than 0\.05 s"), best.time_limit(0.05):
        stubborn()
    with best.time_limit(0.05):
        pass
    time.sleep(0.08)  # nothing is raised later


def test_peak_memory_counts_what_is_held_at_once():
    events = [
        {"name": "[memory]", "ts": 3, "args": {"Bytes": -5}},
        {"name": "[memory]", "ts": 1, "args": {"Bytes": 5}},
        {"name": "other", "ts": 1, "args": {}},
        {"name": "[memory]", "ts": 4, "args": {"Bytes": 7}},
        {"name": "[memory]", "ts": 2, "args": {"Bytes": 4}},
    ]
    assert scaling.highest(events) == 11
    numbers = 2**18

    def work():
        x = torch.zeros(numbers)
        y = x + 1
        del x
        return y + 1

    assert scaling.peak_bytes(work) == pytest.approx(2 * 4 * numbers, rel=0.01)
