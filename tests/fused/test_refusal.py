"""A block knows when it may not be one node, and says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import (
    ALiBi,
    Causal,
    HeadGate,
    MultiHeadAttention,
    RotaryPositions,
    TokenBatch,
    Window,
    fused,
)
from mmattn.dropout import Dropout

LENGTHS = [7, 3, 0, 11, 3, 1, 13]
TOTAL = sum(LENGTHS)


class Other(nn.LayerNorm):
    pass


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: setattr(b, "attention_norm", nn.RMSNorm(12)), "norms must be nn.LayerNorm"),
        (lambda b: setattr(b, "attention_norm", Other(12)), "norms must be nn.LayerNorm"),
        (lambda b: setattr(b, "feed_forward", nn.Linear(12, 12)), "feed-forward part must be"),
        (lambda b: setattr(b.feed_forward[1], "approximate", "tanh"), "exact"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, gate=HeadGate(12, 2))), "no gate"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, position_bias=ALiBi(2))), "no position_bias"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, sinks=True)), "no sinks"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, soft_cap=3.0)), "no soft_cap"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, num_kv_heads=1)), "as many heads of keys"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, qk_norm=nn.RMSNorm(6))), "no qk_norm"),
        (lambda b: setattr(b.attention, "k_norm", nn.RMSNorm(6)), "no qk_norm"),
        (lambda b: setattr(b, "attention", MultiHeadAttention(12, 2, backend="math")), "'math'"),
        (lambda b: setattr(b.attention, "positions", RotaryPositions(interleaved=False)), "interleaved"),
        (lambda b: nn.utils.parametrizations.weight_norm(b.attention.out_proj), "must be nn.Linear"),
        (lambda b: b.feed_forward[2].register_forward_hook(lambda *_: None), "hooks"),
        (lambda b: b.attention.out_proj.register_forward_pre_hook(lambda *_: None), "hooks"),
        (lambda b: b.attention_norm.register_full_backward_hook(lambda *_: None), "hooks"),
        (lambda b: setattr(b.feed_forward, "forward", lambda x: x), "hooks or another forward"),
    ],
)  # fmt: skip
def test_what_is_not_fused(make_block, change, text):
    block = make_block().double()
    tokens = TokenBatch(torch.randn(TOTAL, 12, dtype=torch.float64), LENGTHS)
    assert block.unfused(tokens) is None
    change(block)
    block.double()
    assert text in block.unfused(tokens)
    block(tokens).values.sum().backward()


def test_masks_and_modes_that_are_not_fused(make_block):
    block = make_block().double()
    tokens = TokenBatch(torch.randn(TOTAL, 12, dtype=torch.float64), LENGTHS)
    assert "causal or none" in block.unfused(tokens, Window(2, 2))
    assert "causal or none" in block.unfused(tokens, Causal() | Window(0, 1))
    with torch.no_grad():
        assert block.unfused(tokens) == "no gradient is wanted"
    with torch.autocast("cpu", torch.float16):
        assert "bfloat16" in block.unfused(tokens)
    assert "no tokens" in block.unfused(TokenBatch(torch.zeros(0, 12), [0]))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert "hooks" in block.unfused(tokens)
    handle.remove()
    assert block.unfused(tokens) is None


RATES = {"branch": 0.1, "hidden": 0.1, "dropout": 0.1}


@pytest.mark.parametrize("absent", RATES)
def test_float32_is_fused_where_everything_is_dropped(make_block, absent):
    tokens = TokenBatch(torch.randn(TOTAL, 12), LENGTHS)
    block = make_block(**RATES)
    assert block.unfused(tokens) is None
    reason = "in float32 the parts are faster unless weights, hidden features and branches are dropped"
    assert block.eval().unfused(tokens) == reason
    other = make_block(**RATES | {absent: 0.001})  # rounds to none
    assert other.unfused(tokens) == reason
    with torch.autocast("cpu", torch.bfloat16):
        assert other.unfused(tokens) is None
    assert other.double().unfused(tokens.replace(tokens.values.double())) is None
    assert other.bfloat16().unfused(tokens.replace(tokens.values.bfloat16())) is None


def test_a_torch_without_the_kernels(make_block, monkeypatch):
    block = make_block().double()
    tokens = TokenBatch(torch.randn(TOTAL, 12, dtype=torch.float64), LENGTHS)
    monkeypatch.setattr(fused, "HAS_FLASH", False)
    assert block.unfused(tokens) == "this torch lacks the kernels that it calls"


def test_dropout_modules_tell_their_threshold():
    part = Dropout(0.1)
    assert part.threshold == 26
    assert part.eval().threshold == 0
