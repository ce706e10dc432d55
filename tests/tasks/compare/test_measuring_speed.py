"""Timings: that equals are compared, and that every name is there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import MultiHeadAttention
from tasks.compare.measuring import Pace, measure_speed
from tasks.compare.measuring.contenders import LoopedHeads, Recurrent, contenders, count


def test_the_loop_computes_what_the_fused_step_does():
    torch.manual_seed(0)
    attention = MultiHeadAttention(embed_dim=12, num_heads=3)
    with torch.no_grad():
        attention.qkv_proj.bias.normal_()
    looped = LoopedHeads(attention)
    x = torch.randn(2, 7, 12)
    found = []
    for module in (attention, looped):
        y = module(x)
        y.square().sum().backward()
        found.append((y, attention.qkv_proj.weight.grad, attention.out_proj.bias.grad))
        attention.zero_grad()
    for fused, loop in zip(*found, strict=True):
        torch.testing.assert_close(fused, loop, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("embed_dim", "depth"), [(64, 1), (96, 2), (128, 3)])
def test_recurrent_networks_have_as_many_parameters(embed_dim, depth):
    known = {name: count(model) for name, model in contenders(embed_dim, depth, 4).items()}
    assert known["fused"] == known["loop"]
    for name in ("lstm", "gru"):
        assert known[name] == pytest.approx(known["attention"], rel=0.02)


def test_the_nearest_width_is_taken():
    sizes = {width: count(nn.GRU(8, width, 2)) for width in range(1, 40)}
    found = Recurrent(nn.GRU, 8, 2, 3000)
    assert found.layers.hidden_size == min(sizes, key=lambda width: abs(sizes[width] - 3000))
    assert found(torch.randn(3, 5, 8)).shape == (3, 5, found.layers.hidden_size)


def test_every_round_of_everything_is_kept():
    torch.manual_seed(0)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    pace = Pace(
        lengths=(5, 11), batch=2, rounds=3, seconds=1e-6, embed_dim=16, depth=1, num_heads=2, threads=(1, 2)
    )
    found = measure_speed(pace, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert (found.domain, found.arm, found.seed) == ("speed", "speed", 7)
    names = {
        f"{what}/{mode}/{length}"
        for what in ("fused", "loop", "attention", "lstm", "gru")
        for mode in ("train", "infer")
        for length in (5, 11)
    } | {f"attention_threads{n}/train/{length}" for n in (1, 2) for length in (5, 11)}
    assert {name for name in found.repeats if "_cuda/" not in name} == names
    assert all(len(times) == 3 and min(times) > 0 for times in found.repeats.values())
    assert {"cpu", "cores", "threads", "torch", "platform"} <= set(found.environment)


def test_threads_go_up_to_the_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert Pace().threads_or_all() == (1, 2, 4)
    assert Pace(threads=(3,)).threads_or_all() == (3,)
    with pytest.raises(ValueError, match=r"^Pace must have lengths, counts and sizes of at least 1: got 0$"):
        Pace(lengths=(64, 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_second_device_is_timed_beside_the_first():
    found = measure_speed(Pace(lengths=(16,), batch=2, rounds=2, embed_dim=16, depth=1, num_heads=2))
    beside = {name.replace("_cuda/", "/") for name in found.repeats if "_cuda/" in name}
    assert beside == {name for name in found.repeats if "_" not in name}
    assert "cuda" in found.environment
