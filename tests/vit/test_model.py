"""VisionTransformer: pictures of any sizes in one batch, presets, positions."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from mmattn import ImagePatches, Registers, SinusoidalPositions, TokenBatch, build_encoder
from mmattn.vit import (
    PRESETS,
    GridPositions,
    PictureHead,
    PictureTokens,
    VisionTransformer,
    VitPreset,
    build_vit,
)

SMALL = VitPreset(24, 2, 3, 4, (12, 20), prefix=3)
#: Every way to know where a patch is, to pool and to embed occurs.
KINDS = {
    "class token": SMALL,
    "average of the patches": VitPreset(24, 2, 3, 4, (12, 20), prefix=2, pool="avg", norm_before_pool=False),
    "no prefix": VitPreset(24, 2, 3, 4, (12, 20), prefix=0, pool="avg"),
    "compact": VitPreset(
        24, 2, 3, 4, (8, 8), stem="conv", stem_dim=5, positions="rotary", prefix=0, pool="attention"
    ),
    "rotary with registers": VitPreset(24, 2, 3, 4, (8, 8), positions="rotary", prefix=2, pool="attention"),
    "no positions": VitPreset(24, 2, 3, 4, (8, 8), positions="none"),
}
SIZES = [(12, 20), (8, 28), (12, 20), (4, 4), (21, 13), (28, 8)]


def model_of(kind: str, classes: int = 7, spread: float = 0.1, **changes) -> VisionTransformer:
    model = build_vit(KINDS[kind], classes, **changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # positions, prefix and biases must all matter
            parameter.add_(torch.randn_like(parameter) * spread)
    return model


def pictures() -> list[torch.Tensor]:
    return [torch.randn(3, height, width) for height, width in SIZES]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_unlike_sizes_are_each_as_alone(kind):
    model, items = model_of(kind), pictures()
    together = model(items)
    assert together.shape == (len(SIZES), 7)
    for picture, logits in zip(items, together, strict=True):
        torch.testing.assert_close(model([picture])[0], logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(picture[None])[0], logits, atol=1e-5, rtol=1e-5)
    features = model.features(items)
    prefix = KINDS[kind].prefix
    assert features.sizes == tuple(prefix + -(-h // 4) * -(-w // 4) for h, w in SIZES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_a_list(kind):
    model, stack = model_of(kind), torch.randn(5, 3, 16, 24)
    torch.testing.assert_close(model(stack), model(list(stack)), atol=1e-5, rtol=1e-5)
    dense = model.features(stack)
    assert dense.shape == (5, KINDS[kind].prefix + 24, 24)
    torch.testing.assert_close(dense.flatten(0, 1), model.features(list(stack)).values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["class token", "compact", "rotary with registers"])
def test_where_a_patch_is_matters(kind):
    model, picture = model_of(kind, spread=0.5), torch.randn(3, 8, 12)
    turned = picture.flip(1).unflatten(1, (2, 4)).flip(2).flatten(1, 2)  # rows of patches exchanged
    assert not torch.equal(turned, picture)
    assert not torch.allclose(model([picture]), model([turned]), atol=1e-4)


def test_without_positions_rows_of_patches_may_be_exchanged():
    model, picture = model_of("no positions"), torch.randn(3, 8, 12)
    turned = torch.cat([picture[:, 4:], picture[:, :4]], dim=1)
    torch.testing.assert_close(model([picture]), model([turned]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["class token", "compact"])
def test_gradients_are_the_same_packed_dense_and_recomputed(kind):
    model, stack = model_of(kind, drop_path=0.0).train(), torch.randn(3, 3, 12, 16)

    def gradients(items, saving=False):
        model.zero_grad()
        model.grad_checkpointing = saving
        model(items).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    wanted = gradients(list(stack))
    assert all(g.abs().sum() > 0 for g in wanted)
    for found in (gradients(stack), gradients(stack, saving=True)):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


# ---- positions


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (6, 5), (2, 9), (1, 1), (11, 13)])
def test_positions_are_resampled_as_timm_does(rows, columns):
    pos_embed = pytest.importorskip("timm.layers.pos_embed")
    positions = GridPositions((3, 5), 7)
    flat = positions.table.detach().flatten(0, 1)[None]
    wanted = pos_embed.resample_abs_pos_embed(flat, [rows, columns], [3, 5], num_prefix_tokens=0)
    found = positions.grid(rows, columns).flatten(0, 1)
    torch.testing.assert_close(found, wanted[0], atol=1e-6, rtol=1e-5)


def test_positions_reach_the_patches_and_not_the_prefix():
    adapter = PictureTokens(ImagePatches(6, 4), GridPositions((2, 3), 6), Registers(2, 6))
    nn.init.zeros_(adapter.patches.embed.weight)
    tokens = adapter([torch.randn(3, 8, 12), torch.randn(3, 4, 4)]).split()
    assert torch.equal(
        tokens[0].values, torch.cat([adapter.prefix.table, adapter.positions.table.flatten(0, 1)])
    )
    assert torch.equal(tokens[1].values[:2], adapter.prefix.table)
    assert [len(part) for part in adapter.regions([torch.randn(3, 8, 12), torch.randn(3, 4, 4)])] == [8, 3]
    assert adapter.regions([torch.randn(3, 8, 12)])[0][:3].tolist() == [
        [0, 0, 8, 12],
        [0, 0, 8, 12],
        [0, 0, 4, 4],
    ]


def test_positions_refuse_a_grid_that_is_not_the_tokens():
    with pytest.raises(ValueError, match=r"as many cells as there are tokens: got \(4,\), \(5,\)"):
        GridPositions((2, 2), 3)(TokenBatch(torch.zeros(5, 3), [5]), [(2, 2)])
    with pytest.raises(ValueError, match=r"sides of a grid must be at least 1: got \(0, 2\)"):
        GridPositions((0, 2), 3)


# ---- presets

#: ViT and DeiT as published (timm, torchvision); ours has no position of the class token, which is one row less.
PUBLISHED = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
}
COUNTS = {
    "vit_pico_conv4_32": 309_122,
    "vit_nano_conv8_32": 795_498,
    "vit_micro_conv4_32": 3_231_274,
    "vit_tiny_patch4_32": 5_362_570,
}


def count(preset: str, classes: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_vit(preset, classes).parameters())


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_presets_have_their_parameters(preset):
    assert count(preset, 1000) + PRESETS[preset].embed_dim == PUBLISHED[preset]


@pytest.mark.parametrize("preset", COUNTS)
def test_presets_of_our_own_have_the_parameters_that_are_written(preset):
    assert count(preset, 10) == COUNTS[preset]


def test_every_preset_is_counted():
    assert {*PUBLISHED, *COUNTS} == set(PRESETS)


def test_a_preset_can_be_changed():
    model = build_vit(
        "vit_pico_conv4_32", 3, depth=2, in_channels=1, norm_eps=1e-4, drop_path=0.3, head_dropout=0.2
    )
    assert len(model.encoder.blocks) == 2
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    assert {part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)} == {1e-4}
    assert [block.drop_path.p for block in model.encoder.blocks] == [0.0, 0.3]
    assert model.head.dropout.p == 0.2
    assert build_vit(SMALL, 0)(torch.randn(2, 3, 12, 20)).shape == (2, 24)
    with pytest.raises(ValueError, match=r"preset must be one of vit_pico_conv4_32, .*: got 'vit_huge'"):
        build_vit("vit_huge", 3)


# ---- what does not fit


def test_parts_that_do_not_fit():
    adapter = PictureTokens(ImagePatches(8, 4), prefix=Registers(1, 8))
    encoder = build_encoder(8, 1, 2, positions="none")
    with pytest.raises(ValueError, match=r"must have the same embed_dim: got \(8, 8, 12\)"):
        VisionTransformer(adapter, encoder, PictureHead(12, 3))
    with pytest.raises(ValueError, match="must agree on the tokens in front: got 1 and 2"):
        VisionTransformer(adapter, encoder, PictureHead(8, 3, prefix_length=2))
    encoder.positions = SinusoidalPositions(8)
    with pytest.raises(ValueError, match="positions belong to the adapter: got an encoder with Sinusoidal"):
        VisionTransformer(adapter, encoder, PictureHead(8, 3))
    with pytest.raises(ValueError, match=r"must have the width of the patches, 8: got \[6\]"):
        PictureTokens(ImagePatches(8, 4), prefix=Registers(1, 6))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("pool must be one of 'token', 'avg', 'attention', '': got 'max'", {"pool": "max"}),
        ("pool 'token' needs a class token in front of the patches", {"prefix_length": 0}),
        ("num_classes must not be negative: got -1", {"num_classes": -1}),
    ],
)
def test_a_head_that_does_not_fit(text, options):
    with pytest.raises(ValueError, match=text):
        PictureHead(**{"embed_dim": 8, "num_classes": 3, **options})


@pytest.mark.parametrize("kind", ["class token", "compact"])
def test_torch_export_takes_a_stack(kind):
    model, stack = model_of(kind), torch.randn(2, 3, 12, 20)
    program = torch.export.export(model, (stack,))
    torch.testing.assert_close(program.module()(stack), model(stack), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_in_bfloat16_is_near_the_step_in_float32(kind):
    model, stack = model_of(kind).train(), torch.randn(4, 3, 12, 20)
    labels = torch.tensor([0, 3, 6, 1])

    def step(items, lower):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            loss = nn.functional.cross_entropy(model(items).float(), labels)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])

    wanted, exact = step(stack, lower=False)
    for items in (stack, list(stack)):
        loss, gradient = step(items, lower=True)
        assert abs(loss - wanted) < 0.05
        assert nn.functional.cosine_similarity(gradient, exact, dim=0) > 0.98


def test_importing_the_room_loads_no_host_library():
    code = "import sys, mmattn.vit; sys.exit(bool({'timm', 'torchvision', 'lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
