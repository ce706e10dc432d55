"""timm's Attention as ours, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import MultiHeadAttention
from mmattn.convert import from_timm, to_timm
from mmattn.masks.importers import from_sdpa_mask

vision_transformer = pytest.importorskip("timm.models.vision_transformer")
Attention = vision_transformer.Attention

B, N, H, D = 2, 5, 3, 33

KINDS = {
    "plain": {"qkv_bias": True},
    "bias of proj alone": {},
    "without bias": {"proj_bias": False},
    "bias of qkv alone": {"qkv_bias": True, "proj_bias": False},
    "norms": {"qk_norm": True, "norm_layer": nn.LayerNorm, "qkv_bias": True},
    "dropout": {"attn_drop": 0.3},
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def theirs(request, randomise):
    return randomise(Attention(D, num_heads=H, **request.param)).eval()


@pytest.mark.parametrize("fused", [True, False])
def test_outputs_are_equal(theirs, close, fused):
    theirs.fused_attn = fused
    ours = from_timm(theirs)
    x = torch.randn(B, N, D)
    close(ours(x), theirs(x))
    attend = torch.rand(B, 1, N, N) > 0.4
    attend[..., 0] = True
    close(ours(x, mask=from_sdpa_mask(attend)), theirs(x, attn_mask=attend))


def test_there_and_back(theirs, same_state, assert_faithful, close):
    ours = from_timm(theirs)
    back = to_timm(ours)
    same_state(back.state_dict(), theirs.state_dict())
    assert ours.dropout == back.attn_drop.p == theirs.attn_drop.p
    x = torch.randn(B, N, D)
    close(back(x), ours(x))
    assert_faithful(from_timm, theirs)
    assert_faithful(to_timm, ours)


def test_a_bias_is_where_theirs_has_one():
    ours = from_timm(Attention(D, num_heads=H))
    assert sorted(ours.state_dict()) == ["out_proj.bias", "out_proj.weight", "qkv_proj.weight"]


def test_heads_of_their_own_width(randomise, close, same_state):
    try:
        theirs = randomise(Attention(D, num_heads=H, attn_head_dim=7)).eval()
    except TypeError:
        pytest.skip("this timm has no attn_head_dim")
    x = torch.randn(B, N, D)
    close(from_timm(theirs)(x), theirs(x))
    same_state(to_timm(from_timm(theirs)).state_dict(), theirs.state_dict())


def test_a_whole_vision_transformer_runs_on_ours(randomise, close):
    model = vision_transformer.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=D, depth=2, num_heads=H, num_classes=7
    )
    randomise(model).eval()
    pictures = torch.randn(B, 3, 8, 8)
    expected = model(pictures)

    class Dense(nn.Module):
        def __init__(self, ours):
            super().__init__()
            self.ours = ours

        def forward(self, x, attn_mask=None, is_causal=False):
            return self.ours(x)

    for block in model.blocks:
        block.attn = Dense(from_timm(block.attn))
    close(model(pictures), expected)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (
            "cannot carry a norm after attention: got scale_norm=LayerNorm",
            {"scale_norm": True, "norm_layer": nn.LayerNorm},
        ),
        ("cannot carry dropout after proj: got proj_drop=0.1", {"proj_drop": 0.1}),
        ("cannot carry a gate: got gated=True", {"gated": True}),
        ("needs as many outputs as inputs: got dim=33, dim_out=11", {"dim_out": 11}),
    ],
)
def test_what_from_timm_refuses(text, options):
    try:
        theirs = Attention(D, num_heads=H, **options)
    except TypeError:
        pytest.skip(f"this timm has no {' '.join(options)}")
    with pytest.raises(ValueError, match=text):
        from_timm(theirs)


def test_another_class_is_refused():
    with pytest.raises(TypeError, match="from_timm takes Attention with its own forward: got Identity"):
        from_timm(nn.Identity())


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("cannot carry num_kv_heads: got num_kv_heads=1", {"num_kv_heads": 1}),
        ("cannot carry context_dim: got context_dim=13", {"context_dim": 13}),
        ("cannot carry scale: got scale=0", {"scale": 0}),
    ],
)
def test_what_to_timm_refuses(text, options):
    with pytest.raises(ValueError, match=text):
        to_timm(MultiHeadAttention(D, H, **options))
