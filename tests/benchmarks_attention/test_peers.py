"""The libraries compared with: the same sizes, fused and plain as asked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mmattn
from benchmarks.attention import data, peers, steps


@pytest.fixture
def fused_calls(monkeypatch):
    """Counts the calls of torch's fused attention."""
    calls, genuine = [], F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs.get("attn_mask"))
        return genuine(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return calls


def needed(name: str) -> None:
    pytest.importorskip({"x-transformers": "x_transformers", "torch.nn": "torch"}.get(name, name))


@pytest.mark.parametrize("name", peers.ATTENTION_LAYERS)
def test_every_layer_has_four_products_of_weights_and_fused_attention(name, fused_calls):
    if not name.startswith("mmattn"):
        needed(name)
    layer = peers.ATTENTION_LAYERS[name](12, 3).train()
    assert sum(p.numel() for p in layer.parameters() if p.ndim == 2) == 4 * 12**2
    assert layer(torch.randn(2, 5, 12)).shape == (2, 5, 12)
    if not name.startswith("mmattn"):
        assert len(fused_calls) == 1


@pytest.mark.parametrize("name", peers.ENCODERS)
def test_peers_compute_the_same_fused_and_plain_and_ignore_padding(name, fused_calls):
    needed(name)
    (batch,) = data.batches_of([[2, 7, 3]], 12, classes=10)
    values, mask = batch.padded
    outs = {}
    for how, fused in (("sdpa", 2), ("plain", 0)):
        fused_calls.clear()
        model = peers.seeded(peers.ENCODERS[name], 12, 2, 3, 0.0, how).train()
        outs[how] = model(values, mask)
        assert len(fused_calls) == fused
    torch.testing.assert_close(outs["sdpa"][mask], outs["plain"][mask], rtol=1e-4, atol=1e-5)
    elsewhere = model(values.masked_fill(~mask[..., None], 5.0), mask)
    torch.testing.assert_close(elsewhere[mask], outs["plain"][mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", peers.ENCODERS)
def test_peers_drop_out_where_they_can(name):
    needed(name)
    model = peers.ENCODERS[name](12, 1, 3, 0.1, "plain")
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts.count(0.1) >= 3
    probabilities = {getattr(module, "dropout", None) for module in model.modules()}
    in_attention = [p for p in probabilities if isinstance(p, float)]
    assert 0.1 in in_attention or dropouts.count(0.1) >= 4


def test_timm_is_fused_or_plain_as_asked_and_its_global_switch_stays(fused_calls):
    needed("timm")
    from timm.layers import use_fused_attn

    before = use_fused_attn()
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
    for how, calls in (("sdpa", 1), ("plain", 0)):
        fused_calls.clear()
        peers.vision_transformer(how, **sizes)(torch.randn(2, 3, 8, 8))
        assert len(fused_calls) == calls
    assert use_fused_attn() == before


def test_our_encoder_has_the_sizes_of_the_peers():
    ours = peers.count_parameters(mmattn.build_encoder(24, 4, 4, positions="none"))
    assert peers.count_parameters(peers.TorchEncoder(24, 4, 4, 0.0, "sdpa")) == ours


def test_a_step_moves_the_weights_and_gives_the_loss():
    batches = data.batches_of([[2, 5, 3]], 8, steps.CLASSES)
    for step in (steps.ours(8, 0.0, False), steps.peer("torch.nn", 8, 0.0)):
        losses = [step(batches[0]).item() for _ in range(30)]
        assert losses[0] == pytest.approx(math.log(steps.CLASSES), abs=1.0)
        assert losses[-1] < losses[0]


def test_a_missing_peer_ends_the_run_with_its_name():
    with pytest.raises(SystemExit, match="the benchmark needs no-such-peer, which is not installed"):
        peers.load("no_such_peer.module")
