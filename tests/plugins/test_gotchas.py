"""One test for each trap in other libraries' attention; those of transformers are with its models.

The numbers are those of the list of what was found; torch.nn's fast paths are tested in more depth by themselves.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.site import site_of, sites
from mmattn.plugins.swap import detach
from tests.plugins.shown import B, ByTorch, D, H, N, Shown

timm = pytest.importorskip("timm")

PAD = torch.arange(N) >= torch.tensor([[6], [4]])  # True = padding


# Rows without any key


@pytest.mark.parametrize("fused", [True, False])
def test_fully_masked_rows_of_timm_are_zeros(fused, sharpen):
    """NaN in timm's own formula, zeros in torch's kernel."""
    module = sharpen(timm.layers.Attention(D, H, proj_bias=False)).eval()
    module.fused_attn = fused
    x = torch.randn(B, N, D, requires_grad=True)
    mask = torch.ones(B, 1, N, N, dtype=torch.bool)
    mask[0, :, 2] = False
    assert module(x, attn_mask=mask)[0, 2].isnan().all() == (not fused)
    plug_in(module)
    out = module(x, attn_mask=mask)
    assert (out[0, 2] == 0).all()
    grads = torch.autograd.grad(out.square().sum(), [x, *module.parameters()])
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("need_weights", [True, False])
def test_fully_masked_rows_of_torch_nn_are_zeros(need_weights):
    """NaN in torch with weights, and without gradients; zeros with gradients and without weights."""
    module = nn.MultiheadAttention(D, H, batch_first=True, bias=False)
    x = torch.randn(B, N, D, requires_grad=True)
    hidden = PAD | torch.tensor([[False], [True]])
    host = module(x, x, x, key_padding_mask=hidden, need_weights=need_weights)[0]
    assert host[1].isnan().all() == need_weights
    plug_in(module)
    out, weights = module(x, x, x, key_padding_mask=hidden, need_weights=need_weights)
    assert (out[1] == 0).all()
    assert weights is None or (weights[1] == 0).all()
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


# Traps, by their number in the list of what was found


def test_trap_1_the_encoder_layer_passes_its_attention_by(sharpen, close):
    """In eval without gradients ``self_attn`` runs 0 times in the host, and once while plugged in."""
    layer = sharpen(nn.TransformerEncoderLayer(D, H, 32, batch_first=True)).eval()
    calls = []
    forward = nn.MultiheadAttention.forward

    class Counting(nn.MultiheadAttention):
        pass

    Counting.forward = lambda self, *a, **k: (calls.append(1), forward(self, *a, **k))[1]
    x = torch.randn(B, N, D)
    other = copy.deepcopy(layer)
    other.self_attn.__class__ = Counting
    with torch.no_grad():
        wanted = other(x)
        assert calls == []
        plug_in(layer)
        close(layer(x), wanted)
    assert site_of(layer.self_attn).routed_calls == 1


def test_trap_2_padded_positions_of_nested_batches(sharpen, close):
    """Zeros in the host, other numbers with the core: only valid positions are the same."""
    layer = nn.TransformerEncoderLayer(D, H, 32, batch_first=True)
    model = sharpen(nn.TransformerEncoder(layer, 2)).eval()
    x = torch.randn(B, N, D)
    with torch.no_grad():
        wanted = model(x, src_key_padding_mask=PAD)
        plug_in(model)
        got = model(x, src_key_padding_mask=PAD)
    assert (wanted[PAD] == 0).all()
    assert (got[PAD] != 0).all()
    close(got[~PAD], wanted[~PAD])


def test_trap_3_timm_decides_for_its_fused_path_at_construction(sharpen, close):
    """The attribute may be flipped afterwards, plugged in or not; both ways the core computes."""
    module = sharpen(timm.layers.Attention(D, H)).eval()
    x = torch.randn(B, N, D)
    wanted = module(x)
    plug_in(module)
    for i, fused in enumerate((True, False)):
        module.fused_attn = fused
        close(module(x), wanted)
        assert (site_of(module).routed_calls, site_of(module).host_calls) == (i + 1, 0)
    unplug(module)
    assert module.fused_attn is False, "what was set while plugged in stays set"


def test_trap_4_drop_path_and_layer_scale_stay_outside(sharpen):
    """Random numbers of the block are drawn by the host, as before: the same seed gives the same result."""
    block = sharpen(timm.models.vision_transformer.Block(D, H, drop_path=0.5, init_values=0.1)).train()
    x = torch.randn(8, N, D)
    torch.manual_seed(1)
    wanted = block(x)
    report = plug_in(block)
    assert report.swapped == ["attn"]
    torch.manual_seed(1)
    torch.testing.assert_close(block(x), wanted, rtol=1e-5, atol=1e-5)
    assert (wanted == x).flatten(1).all(1).any(), "a sample whose path was dropped"


def test_trap_5_queries_are_not_keys(sharpen, close):
    """Class attention has one query, a pool of latents a few."""
    x = torch.randn(B, N, D)
    for module, queries in (
        (timm.models.cait.ClassAttn(D, H), 1),
        (timm.layers.AttentionPoolLatent(D, num_heads=H, latent_len=3), 3),
    ):
        sharpen(module).eval()
        with torch.no_grad():
            wanted = module(x)
        shown = Shown(module)
        close(shown(x), wanted)
        assert [w.shape for w in shown.weights] == [(B, H, queries, N)]


def test_trap_5_rope_skips_prefix_tokens(sharpen, close):
    module = sharpen(timm.layers.AttentionRope(D, H, num_prefix_tokens=2)).eval()
    rope = torch.randn(N - 2, 2 * D // H)
    x = torch.randn(B, N, D)
    wanted = module(x, rope=rope)
    assert not torch.allclose(wanted, module(x))
    plug_in(module)
    close(module(x, rope=rope), wanted)


def test_trap_7_several_calls_of_one_module_in_one_forward(sharpen, close):
    """Differential attention calls twice, cascaded heads once for each head."""
    difference = sharpen(timm.layers.DiffAttention(D, 2)).eval()
    x = torch.randn(B, N, D)
    with torch.no_grad():
        wanted = difference(x)
    shown = Shown(difference)
    close(shown(x), wanted)
    assert [w.shape for w in shown.weights] == [(B, 2, N, N)] * 2
    assert not torch.allclose(*shown.weights)
    cascade = timm.models.efficientvit_msra.CascadedGroupAttention(
        D, 4, num_heads=4, attn_ratio=1, resolution=3
    )
    sharpen(cascade).eval()
    picture = torch.randn(B, D, 3, 3)
    with torch.no_grad():
        wanted = cascade(picture)
    shown = Shown(cascade)
    close(shown(picture), wanted)
    assert len(shown.weights) == 4


def test_trap_7_one_module_under_two_names_stays_shared():
    module = timm.layers.Attention(D, H)
    model = nn.ModuleDict({"a": module, "b": module})
    assert plug_in(model).swapped == ["a"]
    assert model["a"] is model["b"]


def test_trap_8_calls_with_five_axes(sharpen, close):
    """Hiera's windows are an axis of their own: weights come out as (batch x windows, heads, N, M)."""
    module = sharpen(
        timm.models.hiera.MaskUnitAttention(D, D, H, window_size=4, use_mask_unit_attn=True)
    ).eval()
    x = torch.randn(B, 12, D)
    with torch.no_grad():
        wanted = module(x)
    shown = Shown(module)
    close(shown(x), wanted)
    assert [w.shape for w in shown.weights] == [(B * 3, H, 4, 4)]
    torch.testing.assert_close(shown.weights[0].sum(-1), torch.ones(B * 3, H, 4))


def test_trap_8_heads_folded_into_the_batch(sharpen, close):
    module = timm.models.vision_transformer_sam.Attention(D, H, use_rel_pos=True, input_size=(3, 3))
    sharpen(module).eval()
    x = torch.randn(B, 3, 3, D)
    with torch.no_grad():
        wanted = module(x)
    shown = Shown(module)
    close(shown(x), wanted)
    assert [w.shape for w in shown.weights] == [(B, H, 9, 9)]


def test_trap_8_one_key_head_for_all(sharpen, close):
    module = sharpen(timm.layers.MultiQueryAttention2d(D, num_heads=H, key_dim=6, value_dim=6)).eval()
    x = torch.randn(B, D, 3, 3)
    with torch.no_grad():
        wanted = module(x)
    shown = Shown(module)
    close(shown(x), wanted)
    assert [w.shape for w in shown.weights] == [(B, H, 9, 9)]


def test_trap_9_values_wider_than_keys(sharpen, close):
    module = timm.models.levit.Attention(D, 4, num_heads=H, attn_ratio=2.0, resolution=3)
    sharpen(module).eval()
    x = torch.randn(B, 9, D)
    wanted = module(x)
    plug_in(module)
    close(module(x), wanted)
    assert (site_of(module).routed_calls, site_of(module).host_calls) == (1, 0)


def test_trap_9_any_scale(sharpen, close):
    class Unscaled(ByTorch):
        def forward(self, x, mask):
            q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)

    module, x = sharpen(Unscaled(None)), torch.randn(B, N, D)
    wanted = module(x, None)
    assert not torch.allclose(ByTorch.forward(module, x, None), wanted, atol=1e-2)
    plug_in(module)
    close(module(x, None), wanted)


def test_trap_10_heads_are_masked_before_norm_gate_and_projection(sharpen, close):
    """A head whose values are zeros, which the norm and the gate behind take in: not a slice of the projection."""
    module = sharpen(timm.layers.Attention(D, H, scale_norm=True, norm_layer=nn.LayerNorm)).eval()
    x = torch.randn(B, N, D)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.qkv.weight[2 * D + 4 : 2 * D + 8] = 0
        if other.qkv.bias is not None:
            other.qkv.bias[2 * D + 4 : 2 * D + 8] = 0
    plug_in(module)
    plain = module(x)
    site_of(module).head_mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    close(module(x), other(x))
    assert (module(x) - plain).abs().max() > 1e-2


def test_trap_causal_masks_are_aligned_top_left(sharpen, close):
    """With fewer queries than keys torch lets query 0 see key 0 alone; the core's own masks are bottom-right."""

    class Cached(ByTorch):
        def forward(self, x, mask):
            q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
            return (
                F.scaled_dot_product_attention(q[:, :, -2:], k, v, is_causal=True).transpose(1, 2).flatten(2)
            )

    module, x = sharpen(Cached(None)), torch.randn(B, N, D)
    with torch.no_grad():
        wanted = module(x, None)
    shown = Shown(module)
    close(shown(x, None), wanted)
    (weights,) = shown.weights
    assert torch.equal(weights[0, 0, 0], torch.eye(N)[0])


@pytest.mark.parametrize("flash", [True, False])
def test_trap_grouped_heads_of_x_transformers_are_tiled(flash, sharpen, close):
    """It repeats grouped keys as a whole, torch and transformers each head in place: the core follows the host."""
    x_transformers = pytest.importorskip("x_transformers")
    model = x_transformers.Encoder(
        dim=D, depth=1, heads=H, attn_dim_head=4, attn_kv_heads=2, attn_flash=flash
    )
    x = torch.randn(B, N, D)
    wanted = sharpen(model).eval()(x)
    plug_in(model)
    close(model(x), wanted)


@pytest.mark.parametrize("library", ["timm", "x_transformers"])
def test_trap_maps_are_not_silently_missing_on_fused_paths(library, sharpen):
    """Both give no weights while a fused kernel runs; a watcher sees them, and changes no bit."""
    if library == "timm":
        model = timm.layers.Attention(D, H)
        assert model.fused_attn
    else:
        x_transformers = pytest.importorskip("x_transformers")
        model = x_transformers.Encoder(dim=D, depth=1, heads=H, attn_dim_head=4, attn_flash=True)
    sharpen(model).eval()
    x = torch.randn(B, N, D)
    with torch.no_grad():
        wanted = model(x)
    shown = Shown(model, routed=False)
    assert torch.equal(shown(x), wanted)
    (weights,) = shown.weights
    assert weights.shape == (B, H, N, N)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, N))
    detach(model)
    assert not list(sites(model))
