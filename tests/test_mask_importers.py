"""Masks of other libraries: their attention with their mask is ours with the imported one, on equal weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import MultiHeadAttention, attend
from mmattn.convert import from_projections, from_torch_nn
from mmattn.masks import KeyLengths
from mmattn.masks.importers import (
    from_additive_mask,
    from_attention_mask,
    from_attn_mask,
    from_batch_mask,
    from_key_padding_mask,
    from_sdpa_mask,
)

B, N, M, H, K = 2, 5, 7, 3, 11
D = H * K
LENGTHS = (3, 5)
#: for self-attention over N tokens: which are real, and which query may attend to which key
REAL = torch.arange(N) < torch.tensor(LENGTHS)[:, None]
PAIRS = torch.ones(N, N, dtype=torch.bool).tril(1)
PAGE = Path(__file__).parents[1] / "docs" / "masks.md"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def close(one, other):
    """float32 rounding of sums over a few dozen products of size 1."""
    torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


def qkv(queries=N, keys=N):
    return torch.randn(B, H, queries, K), torch.randn(B, H, keys, K), torch.randn(B, H, keys, K)


def varied(*shape):
    """A mask True = attend that differs along every axis; each query has its first key."""
    mask = torch.rand(*shape) > 0.5
    mask[..., 0] = True
    return mask


# ----------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("batch_first", [True, False])
def test_key_padding_mask_of_torch(batch_first):
    theirs = nn.MultiheadAttention(D, H, batch_first=batch_first).eval()
    x = torch.randn(B, N, D)
    given = x if batch_first else x.transpose(0, 1)
    expected = theirs(given, given, given, key_padding_mask=~REAL)[0]
    expected = expected if batch_first else expected.transpose(0, 1)
    close(from_torch_nn(theirs)(x, mask=from_key_padding_mask(~REAL)), expected)


@pytest.mark.parametrize("shape", [(N, M), (B * H, N, M)])
@pytest.mark.parametrize("number", [None, -torch.inf, torch.finfo(torch.float32).min])
def test_attn_mask_of_torch(shape, number):
    theirs = nn.MultiheadAttention(D, H, batch_first=True).eval()
    x, y, ignored = torch.randn(B, N, D), torch.randn(B, M, D), ~varied(*shape)
    mask = ignored if number is None else torch.zeros(shape).masked_fill(ignored, number)
    imported = from_attn_mask(mask, num_heads=H)
    assert imported.shape == ((1, 1, N, M) if len(shape) == 2 else (B, H, N, M))
    close(from_torch_nn(theirs)(x, y, mask=imported), theirs(x, y, y, attn_mask=mask)[0])


def test_masks_of_torch_encoder_layers():
    theirs = nn.TransformerEncoderLayer(D, H, 7, batch_first=True, norm_first=True).eval()
    x = torch.randn(B, N, D)
    ours = from_torch_nn(theirs.self_attn)
    mask = from_key_padding_mask(~REAL) & from_attn_mask(~PAIRS)
    after = x + ours(theirs.norm1(x), mask=mask)
    after = after + theirs.linear2(F.relu(theirs.linear1(theirs.norm2(after))))
    expected = theirs(x, src_mask=~PAIRS, src_key_padding_mask=~REAL)
    close(after[REAL], expected[REAL])


@pytest.mark.parametrize("shape", [(N, M), (H, N, M), (B, 1, 1, M), (B, H, N, M)])
def test_attn_mask_of_sdpa(shape):
    q, k, v = qkv(N, M)
    mask = varied(*shape)
    imported = from_sdpa_mask(mask)
    assert imported.ndim == 4
    close(attend(q, k, v, mask=imported), F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


def test_mask_mod_of_flex_attention():
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    lengths, q, k, v = torch.tensor((3, 7)), *qkv(M, M)

    def allowed(b, h, query, key):
        return (key < lengths[b]) & (query + h >= key)

    blocks = flex.create_block_mask(allowed, B, H, M, M, device="cpu")
    expected = flex.flex_attention(q, k, v, block_mask=blocks)
    imported = from_sdpa_mask(flex.create_mask(allowed, B, H, M, M, device="cpu"))
    close(attend(q, k, v, mask=imported), expected)


# -------------------------------------------------------------------------------------- pictures and text


def test_attn_mask_and_patch_valid_of_timm():
    vision_transformer = pytest.importorskip("timm.models.vision_transformer")
    from mmattn.convert import from_timm

    theirs = vision_transformer.Attention(D, num_heads=H).eval()
    x, mask = torch.randn(B, N, D), varied(B, 1, N, N)
    ours = from_timm(theirs)
    close(ours(x, mask=from_sdpa_mask(mask)), theirs(x, attn_mask=mask))
    naflex = pytest.importorskip("timm.models.naflexvit")
    numbers = naflex.create_attention_mask(REAL, symmetric=False, dtype=torch.float32)
    close(ours(x, mask=from_attention_mask(REAL)), theirs(x, attn_mask=numbers))
    assert torch.equal(
        from_additive_mask(numbers).expand(B, 1, N, N), KeyLengths(LENGTHS).dense(N, N).expand(B, 1, N, N)
    )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_attention_mask_of_hugging_face(implementation, dtype):
    transformers = pytest.importorskip("transformers")
    bert = pytest.importorskip("transformers.models.bert.modeling_bert")
    from mmattn.convert import from_transformers

    config = transformers.BertConfig(
        hidden_size=D, num_attention_heads=H, num_hidden_layers=1, intermediate_size=7, vocab_size=13,
        attn_implementation=implementation,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    seen: dict[str, Any] = {}
    assert isinstance(model.encoder.layer[0].attention, bert.BertAttention)
    inner = model.encoder.layer[0].attention.self
    inner.register_forward_hook(lambda m, a, kw, out: seen.update(kw, x=a[0], out=out[0]), with_kwargs=True)
    mask = REAL.to(dtype)
    model(torch.randint(0, 13, (B, N)), attention_mask=mask)
    dense = nn.Linear(D, D)
    ours = from_transformers(inner, dense)
    expected = dense(seen["out"])
    close(ours(seen["x"], mask=from_attention_mask(mask)), expected)
    # what the model makes of it for its layers: booleans for sdpa, numbers for eager
    inside = seen["attention_mask"]
    imported = from_sdpa_mask(inside) if implementation == "sdpa" else from_additive_mask(inside)
    assert inside.ndim == 4
    close(ours(seen["x"], mask=imported), expected)


def test_masks_of_x_transformers():
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    from mmattn.convert import from_x_transformers

    theirs = x_transformers.Attention(D, dim_head=K, heads=H).eval()
    x, ours = torch.randn(B, N, D), from_x_transformers(theirs)
    for mask in (varied(N, N), varied(H, N, N), varied(B, H, N, N)):
        imported = from_attention_mask(REAL) & from_sdpa_mask(mask)
        close(ours(x, mask=imported)[REAL], theirs(x, mask=REAL, attn_mask=mask)[REAL])


def test_mask_of_torchtune():
    modules = pytest.importorskip("torchtune.modules", exc_type=ImportError)
    parts = [nn.Linear(D, D) for _ in range(4)]
    names = ("q_proj", "k_proj", "v_proj", "output_proj")
    theirs = modules.MultiHeadAttention(
        embed_dim=D,
        num_heads=H,
        num_kv_heads=H,
        head_dim=K,
        is_causal=False,
        **dict(zip(names, parts, strict=True)),
    ).eval()
    x, mask = torch.randn(B, N, D), varied(B, N, N)
    close(from_projections(*parts, H)(x, mask=from_batch_mask(mask)), theirs(x, x, mask=mask))


def test_mask_of_torchmultimodal():
    layers = pytest.importorskip("torchmultimodal.modules.layers.multi_head_attention", exc_type=ImportError)
    theirs = layers.MultiHeadAttentionWithCache(D, D, H).eval()
    x, y, mask = torch.randn(B, N, D), torch.randn(B, M, D), varied(B, 1, N, M)
    ours = from_projections(theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.output_proj, H)
    close(ours(x, y, mask=from_sdpa_mask(mask)), theirs(x, y, y, attn_mask=mask))


# --------------------------------------------------------------------------------------------- speech


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_mask_of_torchaudio_wav2vec2(dtype):
    components = pytest.importorskip("torchaudio.models.wav2vec2.components")
    theirs = components.SelfAttention(D, H).eval()
    x = torch.randn(B, N, D)
    encoder = components.Encoder(nn.Identity(), nn.Identity())
    mask = encoder._preprocess(x.to(dtype), torch.tensor(LENGTHS))[1]  # -1e4 in the dtype of the features
    assert mask.dtype == dtype
    ours = from_projections(theirs.q_proj, theirs.k_proj, theirs.v_proj, theirs.out_proj, H)
    close(ours(x, mask=from_additive_mask(mask)), theirs(x, mask.float())[0])


def test_key_padding_mask_of_torchaudio_conformer():
    conformer = pytest.importorskip("torchaudio.models.conformer")
    layer = conformer.ConformerLayer(D, 7, H, 3).eval()
    mask, seen = conformer._lengths_to_padding_mask(torch.tensor(LENGTHS)), {}
    layer.self_attn.register_forward_hook(
        lambda m, a, kw, out: seen.update(kw, out=out[0].transpose(0, 1)), with_kwargs=True
    )
    layer(torch.randn(N, B, D), mask)
    x = seen["query"].transpose(0, 1)
    close(from_torch_nn(layer.self_attn)(x, mask=from_key_padding_mask(mask)), seen["out"])


def test_key_padding_mask_of_torchaudio_wavlm():
    wavlm = pytest.importorskip("torchaudio.models.wav2vec2.wavlm_attention")
    theirs = wavlm.WavLMSelfAttention(D, H, has_relative_attention_bias=True, gru_rel_pos=False).eval()
    x = torch.randn(B, N, D)
    ours, bias = from_torch_nn(theirs.attention), theirs.compute_bias(N, N)[None]
    expected = theirs(x, key_padding_mask=~REAL)[0]
    close(ours(x, mask=from_key_padding_mask(~REAL), bias=bias), expected)


@pytest.mark.parametrize("number", [None, -torch.inf])
def test_masks_of_speechbrain(number):
    attention = pytest.importorskip("speechbrain.nnet.attention", exc_type=ImportError)
    theirs = attention.MultiheadAttention(H, D).eval()
    x = torch.randn(B, N, D)
    pairs = ~PAIRS if number is None else torch.zeros(N, N).masked_fill(~PAIRS, number)
    mask = from_attn_mask(pairs) & from_key_padding_mask(~REAL)
    expected = theirs(x, x, x, attn_mask=pairs, key_padding_mask=~REAL)[0]
    close(from_torch_nn(theirs.att)(x, mask=mask), expected)


@pytest.mark.parametrize("shape", [(B, 1, N), (B, N, N)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_mask_of_espnet(shape, dtype):
    attention = pytest.importorskip("espnet.nets.pytorch_backend.transformer.attention", exc_type=ImportError)
    theirs = attention.MultiHeadedAttention(H, D, 0.0).eval()
    x, mask = torch.randn(B, N, D), varied(*shape).to(dtype)
    ours = from_projections(theirs.linear_q, theirs.linear_k, theirs.linear_v, theirs.linear_out, H)
    close(ours(x, mask=from_batch_mask(mask)), theirs(x, x, x, mask))


# -------------------------------------------------------------------------------- rows without any key


def test_a_query_without_any_key_gets_zeros_whatever_others_make_of_it():
    q, k, v = qkv()
    nothing = torch.zeros(N, N, dtype=torch.bool)
    lowest = torch.full((N, N), torch.finfo(torch.float32).min)
    wav2vec2 = torch.full((N, N), -1e4)
    # torch gives zeros for booleans, the mean of the values for the lowest number, which swallows the logits,
    # and attention as if there were no mask (rounded) for a smaller one, which does not
    unmasked = F.scaled_dot_product_attention(q, k, v)
    mild = F.scaled_dot_product_attention(q, k, v, attn_mask=wav2vec2)
    torch.testing.assert_close(mild, unmasked, atol=1e-2, rtol=0)
    close(F.scaled_dot_product_attention(q, k, v, attn_mask=nothing), torch.zeros(B, H, N, K))
    close(
        F.scaled_dot_product_attention(q, k, v, attn_mask=lowest), v.mean(2, keepdim=True).expand(B, H, N, K)
    )
    for mask in (
        from_sdpa_mask(nothing),
        from_additive_mask(lowest),
        from_additive_mask(wav2vec2),
        from_attn_mask(~nothing),
    ):
        assert torch.equal(attend(q, k, v, mask=mask), torch.zeros(B, H, N, K))


def test_a_padded_sequence_of_nothing_makes_torch_nan_and_ours_the_bias():
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    nn.init.normal_(theirs.out_proj.bias)
    x, ignored = torch.randn(B, N, D), torch.tensor([[True], [False]]).expand(B, N)
    out = theirs(x, x, x, key_padding_mask=ignored)[0]
    assert out[0].isnan().all()
    ours = from_torch_nn(theirs)
    result = ours(x, mask=from_key_padding_mask(ignored))
    close(result[0], theirs.out_proj.bias.expand(N, D))
    close(result[1], out[1])
    result.sum().backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())


# ------------------------------------------------------------------------------------------- the importers


@pytest.mark.parametrize(
    ("importer", "mask"),
    [
        (from_key_padding_mask, ~REAL),
        (from_attention_mask, REAL),
        (from_attention_mask, REAL.long()),
        (from_batch_mask, REAL[:, None]),
        (from_batch_mask, REAL[:, None].to(torch.float16)),
        (from_sdpa_mask, REAL[:, None, None]),
        (from_additive_mask, torch.zeros(B, 1, 1, N).masked_fill(~REAL[:, None, None], -1e4)),
        (from_additive_mask, torch.zeros(B, 1, 1, N).masked_fill(~REAL[:, None, None], -torch.inf)),
        (from_attn_mask, ~REAL.repeat_interleave(H, 0)[:, None]),
    ],
)
def test_padding_in_every_convention_is_that_of_the_lengths(importer, mask):
    imported = importer(mask, num_heads=H) if importer is from_attn_mask else importer(mask)
    assert imported.dtype == torch.bool
    assert torch.equal(imported.expand(B, H, N, N), KeyLengths(LENGTHS).dense(N, N).expand(B, H, N, N))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("number", [-1e4, "lowest", -torch.inf])
def test_each_dtype_has_its_own_rounding_of_the_masked_number(dtype, number):
    number = torch.finfo(dtype).min if number == "lowest" else number
    mask = torch.tensor([[0.0, number, -0.0]], dtype=dtype)
    assert from_additive_mask(mask).tolist() == [[[[True, False, True]]]]


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (
            r"attn_mask must be \[N, M\] or \[B \* H, N, M\]: got shape \[3\]",
            lambda: from_attn_mask(torch.ones(3)),
        ),
        (
            r"needs num_heads that divides B \* H: got num_heads=None for shape \[6, 2, 2\]",
            lambda: from_attn_mask(torch.ones(6, 2, 2) > 0),
        ),
        (
            r"needs num_heads that divides B \* H: got num_heads=4 for shape \[6, 2, 2\]",
            lambda: from_attn_mask(torch.ones(6, 2, 2) > 0, num_heads=4),
        ),
        (r"an additive mask must be floating-point", lambda: from_attn_mask(torch.ones(2, 2).long())),
        (
            r"True = attend: got torch.float32 \[2, 2\]",
            lambda: from_sdpa_mask(torch.ones(2, 2)),
        ),
        (r"attn_mask must be boolean .*: got torch.bool \[2\]", lambda: from_sdpa_mask(torch.ones(2) > 0)),
        (
            r"mask must be \[B, N, M\] or \[B, 1, M\] of 0 and 1: got shape \[2, 5\]",
            lambda: from_batch_mask(REAL),
        ),
        (r"mask must be \[B, N, M\] .* of 0 and 1", lambda: from_batch_mask(torch.full((1, 2, 2), 2))),
        (
            r"must hold 0 and values up to -1e4 alone \(pass other numbers as bias=\): got -0.5",
            lambda: from_additive_mask(torch.tensor([[0.0, -0.5]])),
        ),
        (r"values up to -1e4 alone .*: got 1", lambda: from_additive_mask(torch.ones(2, 2))),
        (r"values up to -1e4 alone .*: got -9999", lambda: from_additive_mask(torch.full((2, 2), -9999.0))),
        (r"values up to -1e4 alone .*: got nan", lambda: from_additive_mask(torch.full((2, 2), torch.nan))),
        (r"values up to -1e4 alone .*: got 3", lambda: from_attn_mask(torch.full((2, 2), 3.0))),
        (r"must be floating-point .*: got torch.bool \[2, 5\]", lambda: from_additive_mask(REAL)),
        (r"must be floating-point .*: got torch.float32 \[2\]", lambda: from_additive_mask(torch.zeros(2))),
    ],
)
def test_what_is_refused(text, make):
    with pytest.raises(ValueError, match=text):
        make()


# ----------------------------------------------------------------------------------------------- the page


def test_the_examples_of_the_page_run():
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    shown = set(re.findall(r"\bfrom_\w*mask\b", "".join(blocks)))
    assert shown == {
        "from_additive_mask", "from_attention_mask", "from_attn_mask", "from_batch_mask", "from_key_padding_mask",
        "from_sdpa_mask",
    }  # fmt: skip
    assert isinstance(namespace["attention"], MultiHeadAttention)
