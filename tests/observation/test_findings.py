"""Weights and statistics as an observer computes them, against the formula."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, attention_weights
from mmattn.backends import Terms
from mmattn.observation import findings as found_in
from mmattn.observation import statistics
from mmattn.observation.calls import Call, Run
from mmattn.observation.findings import Wanted, kept, statistics_of, summed
from mmattn.observation.weights import write

B, H, N, M, K = 5, 6, 7, 11, 13


def terms_of(name: str) -> Terms:
    everything = {
        "plain": {},
        "mask": {"mask": torch.rand(B, 1, N, M) > 0.4},
        "dead": {"mask": torch.rand(1, H, N, 1).expand(1, H, N, M) > 0.4},
        "pattern": {"mask": Causal()},
        "bias": {"bias": torch.randn(H, N, M)},
        "cap": {"soft_cap": 1.5},
        "sinks": {"sinks": torch.randn(H), "mask": torch.rand(N, M) > 0.4},
        "function": {
            "bias": lambda a, b: -(a - b.mT).abs()[..., None, :, :] * torch.arange(1.0, H + 1)[:, None, None],
            "q_coords": torch.rand(B, N, 1),
            "k_coords": torch.rand(B, M, 1),
        },
    }[name]
    return Terms(0.7, **everything)


TERMS = ["plain", "mask", "dead", "pattern", "bias", "cap", "sinks", "function"]


def run_of(terms: Terms, kv_heads: int = 3) -> Run:
    # heads behind tokens, as projections lay them
    return Run(torch.randn(B, N, H, K).transpose(1, 2), torch.randn(B, M, kv_heads, K).transpose(1, 2), terms)


def expected(run: Run) -> torch.Tensor:
    t = run.terms
    return attention_weights(
        run.q, run.k, mask=t.mask, bias=t.bias, scale=t.scale, soft_cap=t.soft_cap, sinks=t.sinks,
        q_coords=t.q_coords, k_coords=t.k_coords,
    )  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("copies", [1, 1 << 20], ids=["one by one", "together"])
def test_weights_are_those_of_the_formula(name, copies, monkeypatch):
    monkeypatch.setattr("mmattn.observation.weights._COPIES", copies)
    run = run_of(terms_of(name))
    out = torch.full((B, H, N, M), torch.nan)
    written = write(run, out)
    torch.testing.assert_close(out, expected(run), rtol=0, atol=2e-6)
    assert written.sinks == (name == "sinks")
    # a place inside a padded result
    wide = torch.zeros(B + 1, H, N + 2, M + 3)
    write(run, wide[1:, :, :N, :M])
    assert torch.equal(wide[1:, :, :N, :M], out)
    assert wide.sum() == pytest.approx(float(out.sum()), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("room", [1, 1 << 22], ids=["one by one", "together"])
def test_statistics_are_the_same_by_blocks_and_by_weights(name, room, monkeypatch):
    run = run_of(terms_of(name))
    monkeypatch.setattr(found_in, "_SMALL", 0)
    by_blocks = statistics_of(run, 2)
    monkeypatch.setattr(found_in, "_SMALL", 1 << 30)
    monkeypatch.setattr(found_in, "_ROOM", room)
    monkeypatch.setattr("mmattn.observation.weights._ROOM", room)
    by_weights = statistics_of(run, 2)
    t = run.terms
    reference = statistics(
        run.q, run.k, mask=t.mask, bias=t.bias, scale=t.scale, soft_cap=t.soft_cap, sinks=t.sinks,
        q_coords=t.q_coords, k_coords=t.k_coords, first_keys=2,
    )  # fmt: skip
    for one, other, third in zip(by_blocks, by_weights, reference, strict=True):
        assert torch.equal(one, third)
        torch.testing.assert_close(other, third, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("heads", [[4], [5, 0, 2]])
def test_chosen_heads_are_those_of_all(name, heads):
    run = run_of(terms_of(name))
    part = run.of_heads(heads)
    torch.testing.assert_close(expected(part), expected(run)[:, heads], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_parts_of_a_batch_are_those_of_the_whole(name):
    run = run_of(terms_of(name))
    together = torch.cat([expected(part) for _, part in run.parts(2)])
    torch.testing.assert_close(together, expected(run), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_sums_are_those_over_the_batch(name, monkeypatch):
    monkeypatch.setattr(found_in, "_ROOM", 2 * 4 * H * N * M)
    run = run_of(terms_of(name))
    found, total = summed(run, 1, weights=True)
    torch.testing.assert_close(total, expected(run).double().sum(0), rtol=1e-5, atol=1e-5)
    assert found.entropy.shape == (B, H, N)


def test_weights_that_the_host_made_are_copied_and_leave_no_logits():
    given = torch.rand(B, H, N, M).softmax(-1)
    given[0, 0, 0] = 0
    call = Call((Run(None, None, None, given),), H)
    wanted = Wanted(True, None, 1 << 30, 1)
    tensors, later = kept(call, (B, H, N, M), wanted)
    before = given.clone()
    given.zero_()
    assert torch.equal(tensors["weights"], before)
    found = later()
    torch.testing.assert_close(found.entropy, torch.special.entr(before).sum(-1))
    assert found.max_logit[0, 0, 0] == -torch.inf
    assert found.max_logit[1:].isnan().all()


def test_half_precision_is_observed_in_single():
    run = run_of(terms_of("mask"))
    half = Run(run.q.bfloat16(), run.k.bfloat16(), run.terms)
    with torch.autocast("cpu", torch.bfloat16):
        out = torch.empty(B, H, N, M)
        write(half, out)
    torch.testing.assert_close(
        out, expected(Run(half.q.float(), half.k.float(), run.terms)), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(("b", "n", "m"), [(0, 4, 4), (2, 0, 3), (2, 3, 0)])
def test_nothing_to_see_gives_zeros(b, n, m):
    run = Run(torch.randn(b, 2, n, 4), torch.randn(b, 2, m, 4), Terms(1.0))
    out = torch.zeros(b, 2, n, m)
    assert write(run, out).max_logit.shape == (b, 2, n)
    found = statistics_of(run, 1)
    assert found.entropy.shape == (b, 2, n)
    assert not found.entropy.any()
