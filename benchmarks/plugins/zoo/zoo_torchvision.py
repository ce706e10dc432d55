"""Models of torchvision, made small."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import models

from benchmarks.plugins.zoo.case import Case, Inputs, picture


def _vit(**options: int) -> Any:
    given = {"num_layers": 2, "num_heads": 3, "hidden_dim": 48, "mlp_dim": 64} | options
    return models.VisionTransformer(image_size=32, patch_size=8, num_classes=7, **given)


def _swin(version: int, window: int = 4, **options: float) -> Any:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    parts = {} if version == 1 else {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer(
        patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[window, window],
        num_classes=7, **parts, **options,
    )  # fmt: skip


def _swin3d() -> Any:
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[2, 4, 4],
        num_classes=7,
    )


def _maxvit(head: int = 16) -> Any:
    return models.MaxVit(
        input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[32, 48], block_layers=[1, 2],
        head_dim=head, stochastic_depth_prob=0.0, num_classes=7,
    )  # fmt: skip


def _mvit(residual: bool, aside: bool) -> Any:
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    def block(heads: int, width: int, out: int, q: list[int], kv: list[int]) -> MSBlockConfig:
        return MSBlockConfig(
            num_heads=heads, input_channels=width, output_channels=out, kernel_q=[3, 3, 3] if q else [],
            kernel_kv=[3, 3, 3], stride_q=q, stride_kv=kv,
        )  # fmt: skip

    return MViT(
        spatial_size=(32, 32), temporal_size=4, num_classes=7, residual_pool=residual, residual_with_cls_embed=aside,
        rel_pos_embed=residual, proj_after_attn=residual,
        block_setting=[block(1, 16, 32, [1, 1, 1], [1, 2, 2]), block(2, 32, 32, [1, 2, 2], [1, 1, 1])],
    )  # fmt: skip


def _film(frames: int, size: int) -> Inputs:
    return Inputs((torch.randn(1, 3, frames, size, size),))


CASES = [
    Case("torchvision/vit", _vit, picture(32), quick=True),
    Case("torchvision/vit_one_head", lambda: _vit(num_heads=1), picture(32)),
    Case("torchvision/vit_deep", lambda: _vit(num_layers=5), picture(32)),
    Case("torchvision/swin", lambda: _swin(1), picture(64), quick=True),
    Case("torchvision/swin_odd", lambda: _swin(1, 3), picture(56)),
    Case("torchvision/swin_v2", lambda: _swin(2), picture(64), quick=True),
    Case("torchvision/swin_v2_odd", lambda: _swin(2, 3), picture(56)),
    Case("torchvision/swin3d", _swin3d, lambda: _film(4, 32), quick=True),
    Case("torchvision/maxvit", _maxvit, picture(64), heads_axis=2, gain=3.0, quick=True),
    Case("torchvision/maxvit_narrow_heads", lambda: _maxvit(8), picture(64), heads_axis=2, gain=3.0),
    Case("torchvision/mvit_v1", lambda: _mvit(False, True), lambda: _film(4, 32), gain=3.0),
    Case("torchvision/mvit_v2", lambda: _mvit(True, False), lambda: _film(4, 32), quick=True),
    Case("torchvision/resnet18", lambda: models.resnet18(num_classes=7), picture(64), mixes=False),
]
