"""Four separate projections as ours, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from mmattn import MultiHeadAttention
from mmattn.convert import from_projections, to_projections

B, N, M, H, G, K, D, C = 2, 5, 7, 6, 2, 4, 17, 13


def layers(width=D, kv_heads=G, bias=(True, True, True, True)):
    """The four projections as one module, so that they have one state."""
    widths = {"q": (D, H * K), "k": (width, kv_heads * K), "v": (width, kv_heads * K), "out": (H * K, D)}
    return nn.ModuleDict(
        {name: nn.Linear(*w, bias=b) for (name, w), b in zip(widths.items(), bias, strict=True)}
    )


def convert(parts, kv_heads=G, **options):
    return from_projections(parts["q"], parts["k"], parts["v"], parts["out"], H, kv_heads, **options)


def written_out(parts, x, y, kv_heads=G):
    q, k, v = (parts[n](s).unflatten(-1, (-1, K)).transpose(1, 2) for n, s in (("q", x), ("k", y), ("v", y)))
    k, v = (t.repeat_interleave(H // kv_heads, dim=1) for t in (k, v))
    return parts["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("width", "kv_heads", "bias"),
    [
        (D, H, (True, True, True, True)),
        (D, G, (False, False, False, False)),
        (C, G, (True, True, True, True)),
        (C, H, (False, False, False, False)),
        (D, G, (False, False, False, True)),
        (D, G, (True, True, True, False)),
        (C, G, (True, False, False, False)),
    ],
)
def test_there_and_back(width, kv_heads, bias, randomise, same_state, assert_faithful, close):
    parts = randomise(layers(width, kv_heads, bias))
    ours = convert(parts, kv_heads)
    x, y = torch.randn(B, N, D), torch.randn(B, M, width)
    close(ours(x, y), written_out(parts, x, y, kv_heads))
    same_state(nn.ModuleDict(to_projections(ours)._asdict()).state_dict(), parts.state_dict())
    assert_faithful(lambda source: convert(source, kv_heads), parts)
    assert_faithful(
        lambda source: nn.ModuleDict(to_projections(source)._asdict()).train(source.training), ours
    )


@pytest.mark.parametrize("training", [True, False])
def test_projections_keep_the_mode(training):
    assert {layer.training for layer in to_projections(MultiHeadAttention(6, 2).train(training))} == {
        training
    }


def test_a_bias_that_some_lack_is_zeros_in_them(randomise, close):
    parts = randomise(layers(bias=(True, False, True, True)))
    ours = convert(parts)
    assert ours.qkv_proj.bias[H * K :][: G * K].tolist() == [0.0] * G * K
    x = torch.randn(B, N, D)
    close(ours(x), written_out(parts, x, x))


def test_options_arrive():
    q_norm, k_norm = nn.RMSNorm(K), nn.RMSNorm(K)
    nn.init.constant_(k_norm.weight, 3.0)
    ours = convert(layers(), dropout=0.3, scale=0.7, q_norm=q_norm, k_norm=k_norm, training=False)
    assert (ours.dropout, ours.scale, ours.training) == (0.3, 0.7, False)
    assert ours.k_norm.weight.tolist() == [3.0] * K
    assert ours.k_norm is not k_norm
    assert ours.q_norm.weight.tolist() == [1.0] * K


def test_the_usual_scale_is_not_named():
    assert convert(layers(), scale=K**-0.5).scale is None


def test_parts_frozen_apart_are_refused():
    parts = layers()
    parts["k"].requires_grad_(False)
    with pytest.raises(ValueError, match=r"the weights of q, k and v must be all frozen or all trained"):
        convert(parts)
    parts["out"].requires_grad_(False)
    parts["k"].requires_grad_(True)
    frozen = [name for name, p in convert(parts).named_parameters() if not p.requires_grad]
    assert frozen == ["out_proj.weight", "out_proj.bias"]


class Adapted(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def replaced(layer):
    layer.forward = lambda x: x
    return layer


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("k must be an nn.Linear: got Adapted", Adapted(D, G * K)),
        ("k must be an nn.Linear: got Identity", nn.Identity()),
        ("k must be a plain nn.Linear: got one", parametrizations.weight_norm(nn.Linear(D, G * K))),
        ("k must be a plain nn.Linear: got one", replaced(nn.Linear(D, G * K))),
    ],
)
def test_a_layer_that_computes_something_else_is_refused(text, layer):
    parts = layers()
    parts["k"] = layer
    with pytest.raises(TypeError, match=text):
        convert(parts)


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (
            "num_heads must divide the outputs of q: got num_heads=5 for 24 outputs",
            lambda p: from_projections(*p.values(), 5),
        ),
        (
            r"with H=6, H_kv=6: got \[24, 17\], \[8, 17\], \[8, 17\], \[17, 24\]",
            lambda p: from_projections(*p.values(), H),
        ),
        (
            r"must be \[H \* K, D\]",
            lambda p: from_projections(p["q"], p["k"], nn.Linear(D, 4), p["out"], H, G),
        ),
        (
            r"must be \[H \* K, D\]",
            lambda p: from_projections(p["q"], p["k"], p["v"], nn.Linear(24, 11), H, G),
        ),
        (
            r"must be \[H \* K, D\]",
            lambda p: from_projections(p["q"], p["k"], nn.Linear(C, G * K), p["out"], H, G),
        ),
    ],
)
def test_what_does_not_fit_is_refused(text, make):
    with pytest.raises(ValueError, match=text):
        make(layers())
