"""What ImagePatches has for vision transformers: features where they lie, grids, residual blocks in the stem."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmattn import ImagePatches


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_features_are_the_tokens_where_they_lie(stem):
    patches, pictures = ImagePatches(6, 4, stem=stem), torch.randn(2, 3, 10, 19)
    features = patches.features(pictures)
    assert features.shape == (2, 6, 3, 5)
    tokens = patches(pictures)
    torch.testing.assert_close(features.permute(0, 2, 3, 1).reshape(-1, 6), tokens.values)
    assert patches.grids([pictures[0], torch.zeros(3, 4, 5)]) == [(3, 5), (1, 2)]
    assert patches.grids(pictures) == [(3, 5)] * 2


def test_a_stem_without_blocks_has_the_layers_that_it_had():
    names = [name for name, _ in ImagePatches(8, 4, stem="conv").named_parameters()]
    assert names == [f"embed.{i}.{kind}" for i in (0, 2, 4, 6) for kind in ("weight", "bias")]


def test_residual_blocks_begin_as_nothing_and_are_trained():
    torch.manual_seed(0)
    patches, pictures = ImagePatches(8, 4, stem="conv", stem_dim=5, stem_blocks=2), torch.randn(2, 3, 8, 12)
    blocks = [part for part in patches.modules() if type(part).__name__ == "ResidualConvs"]
    assert [block.first.in_channels for block in blocks] == [4, 4, 8, 8]
    before = patches(pictures).values
    with torch.no_grad():
        blocks[0].first.weight.mul_(7.0)
    torch.testing.assert_close(patches(pictures).values, before)
    patches(pictures).values.square().sum().backward()
    assert all(block.second.weight.grad.abs().sum() > 0 for block in blocks)


def test_a_residual_block_adds_what_its_convolutions_make():
    patches = ImagePatches(8, 4, stem="conv", stem_blocks=1)
    block = next(part for part in patches.modules() if type(part).__name__ == "ResidualConvs")
    torch.nn.init.normal_(block.second.weight)
    x = torch.randn(1, 4, 5, 7)
    made = F.conv2d(x, block.first.weight, block.first.bias, padding=1)
    wanted = x + F.conv2d(F.gelu(made), block.second.weight, block.second.bias, padding=1)
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize("options", [{"stem_blocks": -1, "stem": "conv"}, {"stem_blocks": 1}])
def test_blocks_that_do_not_fit(options):
    with pytest.raises(ValueError, match="stem_blocks must be at least 0, and 0 for a linear stem: got"):
        ImagePatches(8, 4, **options)
