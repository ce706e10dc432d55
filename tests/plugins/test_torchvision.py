"""torchvision's models with attention: outputs, gradients and weights with the core inside, and without it again."""

from __future__ import annotations

import pytest
import torch

models = pytest.importorskip("torchvision.models")


def test_vit(sharpen, checked):
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=7
    )
    checked(sharpen(model), torch.randn(2, 3, 32, 32), count=2)


@pytest.mark.parametrize("version", [1, 2])
def test_swin(version, sharpen, checked):
    """Shifted windows, a picture that the windows do not divide, and version 2's cosine and masked key bias."""
    from torchvision.models import swin_transformer as swin

    block = swin.SwinTransformerBlock if version == 1 else swin.SwinTransformerBlockV2
    merge = swin.PatchMerging if version == 1 else swin.PatchMergingV2
    model = swin.SwinTransformer(
        [4, 4], 16, [2, 2], [2, 4], [3, 3], stochastic_depth_prob=0.0, num_classes=5, block=block,
        downsample_layer=merge,
    )  # fmt: skip
    checked(sharpen(model), torch.randn(2, 3, 40, 28), count=4)


def test_swin_of_videos(sharpen, checked):
    model = models.video.SwinTransformer3d(
        [2, 4, 4], 16, [2, 2], [2, 4], [2, 3, 3], stochastic_depth_prob=0.0, num_classes=5
    )
    checked(sharpen(model), torch.randn(1, 3, 6, 40, 28), count=4)


def test_maxvit(sharpen, checked):
    """Windows and a grid over the whole picture; the scale is that of the model's width."""
    model = models.MaxVit(
        input_size=(64, 64), stem_channels=8, partition_size=2, block_channels=[8, 16], block_layers=[1, 1],
        head_dim=4, stochastic_depth_prob=0.0, num_classes=5,
    )  # fmt: skip
    checked(sharpen(model), torch.randn(2, 3, 64, 64), count=4)


@pytest.mark.parametrize("residual", [False, True])
def test_mvit(residual, sharpen, checked):
    """Pooled queries, keys and values; in version 2 with relative positions and the query added to the result."""
    settings = [
        models.video.mvit.MSBlockConfig(
            num_heads=heads, input_channels=8 * heads, output_channels=16,
            kernel_q=[3, 3, 3] if stride else [], kernel_kv=[3, 3, 3],
            stride_q=[1, stride, stride] if stride else [], stride_kv=[1, 2, 2],
        )
        for heads, stride in ((1, 2), (2, 0))
    ]  # fmt: skip
    model = models.video.mvit.MViT(
        (16, 16), 4, settings, residual_pool=residual, residual_with_cls_embed=False,
        rel_pos_embed=residual, proj_after_attn=residual, num_classes=5,
        patch_embed_kernel=(3, 3, 3), patch_embed_stride=(2, 2, 2), patch_embed_padding=(1, 1, 1),
    )  # fmt: skip
    checked(sharpen(model), torch.randn(2, 3, 4, 16, 16), count=2)
