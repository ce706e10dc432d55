"""Random calls of every kind, on every backend against the formula in float64; and token batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.properties import BiasTensor, Case, MaskTensor, __main__, cases, check, judge, long_windows
from mmattn import Causal, TokenBatch, Window
from mmattn.backends import MathBackend

seeds = st.integers(0, 2**31 - 1)
slow_to_draw = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(slow_to_draw, max_examples=600)
@given(cases())
def test_every_backend_is_right_on_any_call(case):
    check(case)


@settings(slow_to_draw, max_examples=200)
@given(long_windows())
def test_windows_longer_than_a_block(case):
    check(case)


PLAIN = Case(3, False, (5, 5), (7, 7), (6, 2), 9, "float32", True)


def changed(**options) -> Case:
    return Case(**({name: getattr(PLAIN, name) for name in Case.__dataclass_fields__} | options))


class Wrong(MathBackend):
    """A backend with a small fault of one's choice."""

    name = "wrong"

    def __init__(self, fault):
        self.fault = fault

    def dense(self, q, k, v, terms):
        return self.fault(super().dense, q, k, v, terms)


@pytest.mark.parametrize(
    ("text", "options", "fault"),
    [
        (r"wrong: out at ", {}, lambda f, q, k, v, t: f(q, k, v, t) * (1 + 1e-3)),
        (r"wrong: out at ", {"dtype": "bfloat16"}, lambda f, q, k, v, t: f(q, k, v, t) * 1.1),
        (r"wrong: out at ", {"dtype": "float64"}, lambda f, q, k, v, t: f(q.float(), k.float(), v, t)),
        (r"wrong: gradient of q at ", {}, lambda f, q, k, v, t: f(q * 1.01 - q.detach() * 0.01, k, v, t)),
        (r"wrong: gradient of k at ", {"packed": True}, lambda f, q, k, v, t: f(q, k.detach(), v, t)),
        (r"wrong: out: shape ", {"grad": False}, lambda f, q, k, v, t: f(q, k, v, t)[:1]),
        (r"wrong: the result is torch.float64", {}, lambda f, q, k, v, t: f(q, k, v, t).double()),
        (
            r"wrong: out: \d+ of 540 are not finite",
            {"mask": Window(0, 0, "top-left"), "poison": float("nan")},
            lambda f, q, k, v, t: f(q, k, v, t) + 0 * v.sum(),
        ),
        (
            r"wrong: gradient of bias at ",
            {"bias": BiasTensor((True, False, True, True), 0, True, 0.1, True, 0)},
            lambda f, q, k, v, t: f(q, k, v, t) + only_gradient(t.bias.nan_to_num(neginf=0)),
        ),
        (
            r"wrong: gradient of sinks at ",
            {"sinks": True},
            lambda f, q, k, v, t: f(q, k, v, t) + only_gradient(t.sinks),
        ),
        (
            r"wrong: gradient of table at ",
            {"bias": "GridBias"},
            lambda f, q, k, v, t: f(q, k, v, t) + only_gradient(t.drawn_bias()),
        ),
    ],
)
def test_a_fault_is_found(monkeypatch, text, options, fault):
    monkeypatch.setitem(judge.BACKENDS, "wrong", Wrong(fault))
    assert check(changed(**options), ("math",)) == ["math"]
    with pytest.raises(AssertionError, match=text):
        check(changed(**options), ("wrong",))


def only_gradient(x):
    """0, with a gradient where none belongs."""
    return 1e-3 * (x - x.detach()).sum()


def test_a_case_says_what_it_is():
    assert PLAIN.kind == "dense, no mask"
    assert changed(packed=True, mask=Causal(), bias="ALiBi").kind == "packed, pattern, bias ALiBi"
    mask = MaskTensor((True, True, True, True), 0, 0.5)
    assert changed(mask=mask).kind == "dense, mask tensor"


def test_the_command_counts_its_cases_and_ends_with_the_bars(monkeypatch, capsys, tmp_path):
    out = tmp_path / "bars.json"
    assert __main__.main(["--cases", "3", "--seed", "5", "--out", str(out)]) == 1  # too few cases
    first = capsys.readouterr().out
    assert "| math | 3 |" in first
    assert "| cases | 3 | >= 1e+04 | no | seed 5" in first
    assert first.endswith("bars: 1 of 2 hold\n")
    assert out.is_file()

    def fails(case):
        raise AssertionError("no good")

    monkeypatch.setattr(__main__, "check", fails)
    __main__.main(["--cases", "2", "--seed", "5"])
    told = capsys.readouterr().out
    assert "AssertionError: no good\n    check(Case(seed=" in told
    assert told.endswith("bars: 0 of 2 hold\n")


def test_the_same_seed_draws_the_same_cases(monkeypatch):
    def drawn(seed):
        seen = []
        monkeypatch.setattr(__main__, "check", lambda case: seen.append(repr(case)) or [])
        __main__.run(7, seed)
        return seen

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 7


@given(seeds, st.lists(st.integers(0, 7), max_size=5), st.data())
def test_token_batches_survive_every_form(seed, sizes, data):
    torch.manual_seed(seed)
    batch = TokenBatch(torch.randn(sum(sizes), 3), sizes, torch.randint(0, 99, (sum(sizes), 2)))
    padded, mask = batch.to_padded()
    back = TokenBatch.from_padded(padded, mask=mask)
    assert back.sizes == batch.sizes
    assert torch.equal(back.values, batch.values)
    order = data.draw(st.permutations(range(len(sizes))))
    inverse = sorted(range(len(sizes)), key=list(order).__getitem__)
    again = batch.select(order).select(inverse)
    assert again.sizes == batch.sizes
    assert torch.equal(again.values, batch.values)
    assert torch.equal(again.coords, batch.coords)
    if sizes:
        joined = TokenBatch.concat(batch.split())
        assert joined.sizes == batch.sizes
        assert torch.equal(joined.coords, batch.coords)
