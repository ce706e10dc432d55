"""Rotary positions against other libraries. These make angles in float32: places stay small, tolerances at 1e-5."""

from __future__ import annotations

import pytest
import torch

from mmattn.positions import RotaryPositions, ntk_base

B, N, H, K = 2, 7, 3, 14
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def turned(rotary, x, coords) -> torch.Tensor:
    """``[B, H, N, K]``, the order of axes of the other libraries."""
    return rotary.rotate(x.transpose(1, 2), rotary.tables(coords, x.shape[-1])).transpose(1, 2)


def test_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=H * K,
        num_attention_heads=H,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    q, k = torch.randn(2, B, H, N, K)
    places = torch.randint(0, 50, (B, N))
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, places)
    rotary = RotaryPositions(500.0, interleaved=False)
    for x, want in zip((q, k), llama.apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        torch.testing.assert_close(turned(rotary, x, places[..., None]), want, **CLOSE)


@pytest.mark.parametrize("rope_type", ["linear", "dynamic"])
def test_longer_input_in_llama(rope_type):
    """Linear interpolation, and NTK-aware scaling of the base."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    trained, factor = 8, 4.0
    config = llama.LlamaConfig(
        hidden_size=H * K, num_attention_heads=H, max_position_embeddings=trained,
        rope_parameters={"rope_type": rope_type, "rope_theta": 500.0, "factor": factor},
    )  # fmt: skip
    q, places = torch.randn(1, H, 3 * trained, K), torch.arange(3 * trained)
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, places[None])
    if rope_type == "linear":
        rotary = RotaryPositions(500.0, interpolation=factor, interleaved=False)
    else:  # the factor for inputs three times as long, as transformers computes it
        rotary = RotaryPositions(ntk_base(500.0, factor * 3 - (factor - 1), K), interleaved=False)
    want, _ = llama.apply_rotary_pos_emb(q, q, cos, sin)
    torch.testing.assert_close(turned(rotary, q, places[:, None]), want, **CLOSE)


def test_partial_rotary_of_gpt_neox():
    neox = pytest.importorskip("transformers.models.gpt_neox.modeling_gpt_neox")
    width = 40  # 0.25 of it is turned
    config = neox.GPTNeoXConfig(
        hidden_size=H * width, num_attention_heads=H,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
    )  # fmt: skip
    q, places = torch.randn(B, H, N, width), torch.randint(0, 50, (B, N))
    cos, sin = neox.GPTNeoXRotaryEmbedding(config)(q, places)
    assert cos.shape[-1] == 10
    want, _ = neox.apply_rotary_pos_emb(q, q, cos, sin)
    rotary = RotaryPositions(500.0, rotary_dim=10, interleaved=False)
    torch.testing.assert_close(turned(rotary, q, places[..., None]), want, **CLOSE)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {"base": 10_000.0}),
        ({"base": 70, "interpolation_factor": 3.0}, {"base": 70.0, "interpolation": 3.0}),
        ({"base_rescale_factor": 5.0}, {"base": ntk_base(10_000.0, 5.0, 10)}),
    ],
    ids=["plain", "interpolated", "rescaled"],
)
def test_x_transformers(theirs, ours):
    library = pytest.importorskip("x_transformers.x_transformers")
    x, places = torch.randn(B, H, N, K), torch.arange(N)
    freqs, scale = library.RotaryEmbedding(10, **theirs)(places)
    want = library.apply_rotary_pos_emb(x, freqs, scale)
    rotary = RotaryPositions(rotary_dim=10, **ours)
    torch.testing.assert_close(turned(rotary, x, places[:, None]), want, **CLOSE)


@pytest.mark.parametrize("half", [False, True], ids=["neighbours", "halves"])
def test_axial_rotary_of_timm(half):
    layers = pytest.importorskip("timm.layers.pos_embed_sincos")
    rows, columns, width = 3, 5, 20
    sin, cos = layers.build_rotary_pos_embed(
        [rows, columns], dim=width, temperature=70.0, in_pixels=False, rotate_half=half
    )
    x = torch.randn(B, H, rows * columns, width)
    want = layers.apply_rot_embed(x, sin, cos, half=half)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    torch.testing.assert_close(turned(RotaryPositions(70.0, interleaved=not half), x, grid), want, **CLOSE)
