"""x-transformers' Attention as ours, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Causal, MultiHeadAttention, RotaryPositions
from mmattn.convert import from_x_transformers, to_x_transformers
from mmattn.masks.importers import from_attention_mask, from_sdpa_mask

x_transformers = pytest.importorskip("x_transformers.x_transformers")
Attention = x_transformers.Attention

B, N, M, H, K, D, C = 2, 5, 7, 6, 8, 17, 13
# their softmax is float32 whatever it is given, unless flash is on
FLOAT32 = 1e-5

KINDS = {
    "plain": {},
    "flash": {"flash": True},
    "causal": {"causal": True},
    "grouped": {"kv_heads": 2},
    "grouped flash": {"kv_heads": 3, "flash": True},
    "one key head": {"one_kv_head": True},
    "dropout": {"dropout": 0.3},
    "context": {"dim_context": C, "kv_heads": 3},
    "sinks": {"head_learned_sink": True, "kv_heads": 2},
    "soft cap": {"softclamp_logits": True, "logit_softclamp_value": 3.0},
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def theirs(request, randomise):
    return randomise(Attention(D, dim_head=K, heads=H, **request.param)).eval()


def tolerance(theirs):
    return 1e-12 if theirs.attend.flash else FLOAT32


def test_outputs_are_equal(theirs, close):
    ours = from_x_transformers(theirs)
    x, width = torch.randn(B, N, D), theirs.to_k.in_features
    causal = {"mask": Causal()} if theirs.causal else {}
    if width == D:
        close(ours(x, **causal), theirs(x), tolerance(theirs))
    y = torch.randn(B, M, width)
    close(ours(x, y, **causal), theirs(x, y), tolerance(theirs))


def test_masks_mean_the_same(theirs, close):
    ours, x, y = from_x_transformers(theirs), torch.randn(B, N, D), torch.randn(B, M, theirs.to_k.in_features)
    real = torch.arange(M) < torch.tensor([[4], [M]])
    attend = torch.rand(H, N, M) > 0.4
    attend[..., 0] = True
    # a mask for each head tells whether the heads were reordered
    attend[:] = attend[:1] if theirs.kv_heads < H else attend
    mask = from_attention_mask(real) & from_sdpa_mask(attend)
    if theirs.causal:
        mask = mask & Causal().dense(N, M)
    close(ours(x, y, mask=mask), theirs(x, y, context_mask=real, attn_mask=attend), tolerance(theirs))


def test_padding_of_self_attention(randomise, close):
    theirs = randomise(Attention(D, dim_head=K, heads=H, flash=True)).eval()
    x, real = torch.randn(B, N, D), torch.arange(N) < torch.tensor([[3], [N]])
    ours = from_x_transformers(theirs)(x, mask=from_attention_mask(real))
    close(ours[real], theirs(x, mask=real)[real])


def test_there_and_back(theirs, same_state, assert_faithful, close):
    ours = from_x_transformers(theirs)

    def back(module):
        return to_x_transformers(module, causal=theirs.causal, flash=theirs.attend.flash)

    same_state(back(ours).state_dict(), theirs.state_dict())
    same_state(from_x_transformers(back(ours)).state_dict(), ours.state_dict())
    assert ours.dropout == theirs.attend.dropout == back(ours).attend.dropout
    x, y = torch.randn(B, N, D), torch.randn(B, M, theirs.to_k.in_features)
    close(back(ours)(x, y), theirs(x, y))
    assert_faithful(from_x_transformers, theirs)
    assert_faithful(back, ours)


def test_grouped_heads_are_tiled_there_and_repeated_here(randomise, close):
    theirs = randomise(Attention(D, dim_head=K, heads=H, kv_heads=2)).eval()
    ours, x = from_x_transformers(theirs), torch.randn(B, N, D)
    # their head 1 takes key head 1; ours takes key head 0 with heads 0 to 2, and theirs of those are 0, 2 and 4
    rows = theirs.to_q.weight.unflatten(0, (H, K))
    assert torch.equal(ours.qkv_proj.weight[: H * K].unflatten(0, (H, K)), rows[[0, 2, 4, 1, 3, 5]])
    _, k, v = ours.qkv_proj.weight.split([H * K, 2 * K, 2 * K])
    untouched = torch.cat([theirs.to_q.weight, k, v])
    ours.qkv_proj.weight = nn.Parameter(untouched)
    assert not torch.allclose(ours(x), theirs(x), atol=FLOAT32)


@pytest.mark.parametrize("turned", [K, 4])
def test_rotary_positions(randomise, close, turned):
    theirs = randomise(Attention(D, dim_head=K, heads=H, kv_heads=2, flash=True)).eval()
    rotary = x_transformers.RotaryEmbedding(turned)
    x = torch.randn(B, N, D)
    ours = from_x_transformers(theirs, positions=RotaryPositions(rotary_dim=turned))
    expected = theirs(x, rotary_pos_emb=rotary.forward_from_seq_len(N))
    close(ours(x), expected, 1e-6)  # their tables are float32
    close(to_x_transformers(ours, flash=True)(x, rotary_pos_emb=rotary.forward_from_seq_len(N)), expected)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("cannot carry qk_norm: got qk_norm=True", {"qk_norm": True}),
        ("cannot carry parts of its own: got .*q_rmsnorm", {"qk_rmsnorm": True}),
        ("cannot carry parts of its own: got .*pre_softmax_talking_heads", {"pre_talking_heads": True}),
        ("cannot carry parts of its own: got .*post_softmax_talking_heads", {"post_talking_heads": True}),
        ("cannot carry num_mem_kv: got num_mem_kv=3", {"num_mem_kv": 3}),
        ("cannot carry sparse_topk: got sparse_topk=2", {"sparse_topk": 2}),
        ("cannot carry attn_fn", {"sigmoid": True}),
        ("cannot carry attn_fn", {"hard": True}),
        ("cannot carry add_zero_kv: got add_zero_kv=True", {"add_zero_kv": True}),
        ("cannot carry head_scale: got head_scale=True", {"head_scale": True}),
        ("cannot carry max_attend_past: got max_attend_past=3", {"max_attend_past": 3}),
        ("cannot carry parts of its own: got sublayer_dropout", {"sublayer_dropout": 0.1}),
        ("cannot carry parts of its own: got to_v_gate", {"gate_values": True}),
        ("cannot carry parts of its own: got to_v_head_gate", {"gate_value_heads": True}),
        ("cannot carry laser: got laser=True", {"laser": True}),
        ("cannot carry l2_distance: got l2_distance=True", {"l2_distance": True}),
        ("cannot carry selective: got selective=True", {"selective": True, "causal": True}),
        ("cannot carry widths of their own", {"value_dim_head": 3}),
        ("cannot carry widths of their own", {"dim_out": 11}),
        ("cannot carry rotate_num_heads: got rotate_num_heads=2", {"rotate_num_heads": 2}),
        ("cannot carry cog_signed: got cog_signed=True", {"cog_signed": True}),
        ("cannot carry inverted_attention", {"inverted_attention": True}),
        ("cannot carry qkv_receive_diff_residuals", {"qkv_receive_diff_residuals": True}),
        ("cannot carry parts of its own: got data_dependent_alibi", {"data_dependent_alibi": True}),
        ("to_out must be an nn.Linear: got Sequential", {"on_attn": True}),
    ],
)
def test_switches_are_refused_by_name(text, options):
    try:
        theirs = Attention(D, dim_head=K, heads=H, **options)
    except TypeError:
        pytest.skip(f"this x-transformers has no {' '.join(options)}")
    with pytest.raises((ValueError, TypeError), match=text):
        from_x_transformers(theirs)


def test_a_module_without_output_projection_is_refused():
    with pytest.raises(ValueError, match=r"needs an output projection: got to_out=Identity"):
        from_x_transformers(Attention(K, dim_head=K, heads=1))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("cannot carry biases: got a module with bias=True", {}),
        ("cannot carry scale: got scale=0.5", {"bias": False, "scale": 0.5}),
        ("cannot carry qk_norm: got qk_norm=LayerNorm", {"bias": False, "qk_norm": nn.LayerNorm(8)}),
    ],
)
def test_what_to_x_transformers_refuses(text, options):
    with pytest.raises(ValueError, match=text):
        to_x_transformers(MultiHeadAttention(48, H, **options))
