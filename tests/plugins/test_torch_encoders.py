"""torch.nn's encoders and decoders with the core inside, and their fast paths."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.site import site_of, sites
from mmattn.plugins.swap import Report, attach, detach
from tests.plugins.torch_cases import PAD, SELF_PAD, B, D, H, M, N, encoder, layer


def both(make, sharpen):
    """A model, and one with the same weights that is plugged in."""
    model = sharpen(make())
    other = copy.deepcopy(model)
    plug_in(other)
    return model, other


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_encoder_on_valid_positions(padded, norm_first, training, sharpen, close):
    model, ours = both(lambda: encoder(norm_first=norm_first).train(training), sharpen)
    x = torch.randn(B, N, D, requires_grad=True)
    options = {"src_key_padding_mask": SELF_PAD} if padded else {}
    valid = ~SELF_PAD if padded else torch.ones(B, N, dtype=torch.bool)
    wanted, got = (m(x, **options)[valid] for m in (model, ours))
    close(got, wanted)
    grads = [
        torch.autograd.grad(y.square().sum(), [x, *m.parameters()]) for m, y in ((model, wanted), (ours, got))
    ]
    for old, new in zip(*grads, strict=True):
        close(new, old, 1e-4)
    with torch.no_grad():  # the host takes its fast path now
        close(ours(x, **options)[valid], model(x, **options)[valid])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_with_all_masks(norm_first, batch_first, sharpen, close):
    options = {"dropout": 0.0, "batch_first": batch_first, "norm_first": norm_first}
    model, ours = both(lambda: nn.Transformer(D, H, 2, 2, 32, **options), sharpen)
    src, tgt = torch.randn(B, M, D), torch.randn(B, N, D)
    masks = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(N), "tgt_is_causal": True,
        "src_key_padding_mask": PAD, "memory_key_padding_mask": PAD, "tgt_key_padding_mask": SELF_PAD,
    }  # fmt: skip
    if not batch_first:
        src, tgt = src.transpose(0, 1), tgt.transpose(0, 1)
    for training in (True, False):
        with torch.set_grad_enabled(training):
            outs = [m.train(training)(src, tgt, **masks) for m in (model, ours)]
            wanted, got = (y if batch_first else y.transpose(0, 1) for y in outs)
            close(got[~SELF_PAD], wanted[~SELF_PAD])
    assert sum(site.routed_calls for _, site in sites(ours)) == 2 * 6
    assert sum(site.host_calls for _, site in sites(ours)) == 0


@pytest.mark.parametrize("cached", [True, False])
def test_decoder_layers(cached, sharpen, close):
    model, ours = both(
        lambda: nn.TransformerDecoder(layer(kind=nn.TransformerDecoderLayer), 2).train(not cached), sharpen
    )
    tgt, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    mask = nn.Transformer.generate_square_subsequent_mask(N)
    with torch.set_grad_enabled(not cached):
        wanted, got = (m(tgt, memory, tgt_mask=mask, memory_key_padding_mask=PAD) for m in (model, ours))
    close(got, wanted)


def test_fast_paths_are_off_while_plugged_and_as_they_were_after(sharpen):
    model = sharpen(encoder().eval())
    model.layers[1].activation_relu_or_gelu = 2
    x = torch.randn(B, N, D)
    with torch.no_grad():
        before = model(x, src_key_padding_mask=SELF_PAD)
        assert (before[SELF_PAD] == 0).all(), "the host took its nested tensors"
        plug_in(model)
        assert [part.activation_relu_or_gelu for part in model.layers] == [0, 0]
        assert model.use_nested_tensor is False
        after = model(x, src_key_padding_mask=SELF_PAD)
        assert (after[SELF_PAD] != 0).any()
    assert [site.routed_calls for _, site in sites(model)] == [1, 1]
    unplug(model)
    assert [part.activation_relu_or_gelu for part in model.layers] == [1, 2]
    assert (model.use_nested_tensor, model.enable_nested_tensor) == (True, True)
    assert {type(m) for m in model.modules()} == {type(m) for m in encoder().modules()}
    with torch.no_grad():
        assert torch.equal(model(x, src_key_padding_mask=SELF_PAD), before)


def test_values_set_while_plugged_stay_set():
    model = encoder()
    plug_in(model)
    model.use_nested_tensor = False
    model.layers[0].activation_relu_or_gelu = 2
    unplug(model)
    assert model.use_nested_tensor is False
    assert model.layers[0].activation_relu_or_gelu == 2


def test_one_plugged_layer_among_others(sharpen, close):
    model, ours = sharpen(encoder(3).eval()), sharpen(encoder(3).eval())
    plug_in(ours, select="layers.1.*")
    x = torch.randn(B, N, D)
    with torch.no_grad():
        wanted, got = (m(x, src_key_padding_mask=SELF_PAD) for m in (model, ours))
    close(got[~SELF_PAD], wanted[~SELF_PAD])
    assert [(site.name, site.routed_calls) for _, site in sites(ours)] == [("layers.1.self_attn", 1)]


def test_a_head_mask_alone_turns_the_fast_path_off_too(sharpen, close):
    model = sharpen(encoder(1).eval())
    x = torch.randn(B, N, D)
    attach(model, Report(), routed=False)
    site = site_of(model.layers[0].self_attn)
    with torch.no_grad():
        plain = model(x)
        site.head_mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
        got = model(x)
        detach(model)
        model.layers[0].self_attn.out_proj.weight[:, D // H : 2 * D // H] = 0
        close(got, model(x))
    assert (got - plain).abs().max() > 1e-2
