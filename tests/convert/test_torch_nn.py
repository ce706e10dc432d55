"""nn.MultiheadAttention as ours, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import MultiHeadAttention, RotaryPositions
from mmattn.convert import from_torch_nn, to_torch_nn
from mmattn.masks.importers import from_attn_mask, from_key_padding_mask
from mmattn.positions import ALiBi

B, N, M, H, D, C = 2, 5, 7, 3, 33, 13

KINDS = {
    "plain": {"batch_first": True},
    "sequence first": {},
    "without bias": {"bias": False, "batch_first": True},
    "dropout": {"dropout": 0.3, "batch_first": True},
    "context": {"kdim": C, "vdim": C, "batch_first": True},
    "context without bias": {"kdim": C, "vdim": C, "bias": False},
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def theirs(request, randomise):
    return randomise(nn.MultiheadAttention(D, H, **request.param)).eval()


def run(theirs, x, y, **masks):
    if not theirs.batch_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    out = theirs(x, y, y, need_weights=False, **masks)[0]
    return out if theirs.batch_first else out.transpose(0, 1)


def test_outputs_are_equal_under_both_masks(theirs, close):
    ours = from_torch_nn(theirs)
    x, y = torch.randn(B, N, D), torch.randn(B, M, theirs.kdim)
    ignored = torch.arange(M) >= torch.tensor([[4], [M]])
    future = torch.triu(torch.ones(N, M, dtype=torch.bool), 2)
    close(ours(x, y), run(theirs, x, y))
    mask = from_key_padding_mask(ignored) & from_attn_mask(future)
    close(ours(x, y, mask=mask), run(theirs, x, y, key_padding_mask=ignored, attn_mask=future))


def test_self_attention_is_equal(randomise, close):
    theirs = randomise(nn.MultiheadAttention(D, H, batch_first=True)).eval()
    x = torch.randn(B, N, D)
    close(from_torch_nn(theirs)(x), theirs(x, x, x)[0])


def test_there_and_back(theirs, same_state, assert_faithful):
    ours = from_torch_nn(theirs)
    back = to_torch_nn(ours, batch_first=theirs.batch_first)
    same_state(back.state_dict(), theirs.state_dict())
    same_state(from_torch_nn(back).state_dict(), ours.state_dict())
    assert (back.dropout, back.batch_first, back.kdim) == (theirs.dropout, theirs.batch_first, theirs.kdim)
    assert ours.dropout == theirs.dropout
    assert_faithful(from_torch_nn, theirs)
    assert_faithful(to_torch_nn, ours)


def test_the_result_of_to_torch_nn_works(close):
    ours = MultiHeadAttention(D, H, context_dim=C)
    x, y = torch.randn(B, N, D), torch.randn(B, M, C)
    close(to_torch_nn(ours)(x, y, y)[0], ours(x, y))
    assert to_torch_nn(ours).batch_first


def test_a_bias_that_only_some_have_becomes_zeros(randomise, close):
    ours = randomise(MultiHeadAttention(D, H))
    ours.qkv_proj.register_parameter("bias", None)
    theirs = to_torch_nn(ours)
    assert theirs.in_proj_bias.tolist() == [0.0] * 3 * D
    x = torch.randn(B, N, D)
    close(theirs(x, x, x)[0], ours(x))


def test_parts_are_frozen_one_by_one():
    theirs = nn.MultiheadAttention(D, H)
    theirs.in_proj_weight.requires_grad_(False)
    ours = from_torch_nn(theirs)
    frozen = [name for name, p in ours.named_parameters() if not p.requires_grad]
    assert frozen == ["qkv_proj.weight"]
    assert [n for n, p in to_torch_nn(ours).named_parameters() if not p.requires_grad] == ["in_proj_weight"]


class Own(nn.MultiheadAttention):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize(
    ("error", "text", "make"),
    [
        (
            ValueError,
            "cannot carry bias_k and bias_v: got add_bias_kv=True",
            lambda: nn.MultiheadAttention(D, H, add_bias_kv=True),
        ),
        (ValueError, "cannot carry add_zero_attn", lambda: nn.MultiheadAttention(D, H, add_zero_attn=True)),
        (
            ValueError,
            "kdim and vdim must be equal: got kdim=13, vdim=33",
            lambda: nn.MultiheadAttention(D, H, kdim=C),
        ),
        (TypeError, "takes MultiheadAttention with its own forward: got Own", lambda: Own(D, H)),
        (
            TypeError,
            "takes MultiheadAttention with its own forward: got Linear",
            lambda: nn.Linear(D, D),
        ),
    ],
)
def test_what_from_torch_nn_refuses(error, text, make):
    with pytest.raises(error, match=text):
        from_torch_nn(make())


def test_keys_and_values_frozen_apart_are_refused():
    theirs = nn.MultiheadAttention(D, H, kdim=C, vdim=C)
    theirs.k_proj_weight.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"weights of k and v must be all frozen or all trained: got \[False, True\]"
    ):
        from_torch_nn(theirs)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("cannot carry num_kv_heads: got num_kv_heads=1", {"num_kv_heads": 1}),
        ("cannot carry head_dim: got head_dim=7", {"head_dim": 7}),
        ("cannot carry qk_norm: got qk_norm=LayerNorm", {"qk_norm": nn.LayerNorm(11)}),
        ("cannot carry scale: got scale=0.5", {"scale": 0.5}),
        ("cannot carry positions: got positions=RotaryPositions", {"positions": RotaryPositions()}),
        ("cannot carry position_bias: got position_bias=ALiBi", {"position_bias": ALiBi(H)}),
        ("cannot carry soft_cap: got soft_cap=3.0", {"soft_cap": 3.0}),
        ("cannot carry sinks: got sinks=Parameter", {"sinks": True}),
        ("cannot carry gate: got gate=Linear", {"gate": nn.Linear(D, H)}),
    ],
)
def test_what_to_torch_nn_refuses(text, options):
    with pytest.raises(ValueError, match=text):
        to_torch_nn(MultiHeadAttention(D, H, **options))


def test_to_torch_nn_takes_ours_alone():
    with pytest.raises(TypeError, match="to_torch_nn takes a MultiHeadAttention: got Linear"):
        to_torch_nn(nn.Linear(2, 2))
