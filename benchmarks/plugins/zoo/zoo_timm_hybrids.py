"""Models of timm with windows, pyramids and convolutions, made small by their own arguments where they have such."""

from __future__ import annotations

from typing import Any

from timm.models import _efficientnet_builder as efficientnet_builder
from timm.models import byobnet, efficientvit_msra, metaformer, mobilenetv3, mvitv2, nest, volo
from torch import nn

from benchmarks.plugins.zoo.case import Case, picture
from benchmarks.plugins.zoo.zoo_timm import SMALL_VIT, sized, timm_case

_LEVIT: dict[str, Any] = {"embed_dim": (32, 48, 64), "num_heads": (2, 3, 4), "depth": (1, 1, 1)}


def _mvit(**config: Any) -> nn.Module:
    small = {"depths": (1, 1, 1), "embed_dim": (24, 48, 96), "num_heads": (1, 2, 4), **config}
    return mvitv2.MultiScaleVit(mvitv2.MultiScaleVitCfg(**small), img_size=(64, 64), num_classes=7)


def _nest() -> nn.Module:
    return nest.Nest(
        img_size=32,
        patch_size=2,
        num_levels=3,
        embed_dims=(16, 32, 48),
        num_heads=(1, 2, 4),
        depths=(1, 1, 1),
        num_classes=7,
    )


def _byob(layer: str, **options: Any) -> nn.Module:
    """A residual network whose last blocks attend."""
    blocks = (
        byobnet.ByoBlockCfg(type="bottle", d=1, c=32, s=2, gs=0, br=0.5),
        byobnet.ByoBlockCfg(type="self_attn", d=2, c=64, s=1, gs=0, br=0.5),
    )
    return byobnet.ByobNet(
        byobnet.ByoModelCfg(
            blocks=blocks, stem_chs=16, stem_type="tiered", stem_pool="", fixed_input_size=layer == "bottleneck",
            self_attn_layer=layer, self_attn_kwargs=options,
        ),
        num_classes=7, img_size=64,
    )  # fmt: skip


def _cascaded() -> nn.Module:
    return efficientvit_msra.EfficientVitMsra(
        img_size=128,
        embed_dim=(32, 48, 64),
        depth=(1, 1, 1),
        num_heads=(4, 4, 4),
        window_size=(4, 4, 2),
        num_classes=7,
    )


def _mobilenet() -> nn.Module:
    """One key head for all, with and without keys of a coarser grid."""
    blocks = [
        ["cn_r1_k3_s2_c24"],
        ["mqa_r1_k3_h4_s1_v2_d16_c24", "uir_r1_a3_k5_s2_e2_c32"],
        ["mqa_r1_k3_h4_s1_d16_c32", "uir_r1_a3_k5_s1_e2_c32"],
    ]
    decode: Any = efficientnet_builder.decode_arch_def
    return mobilenetv3.MobileNetV3(
        decode(blocks), num_classes=7, stem_size=16, num_features=64, layer_scale_init_value=1.0
    )


def _volo() -> nn.Module:
    return volo.VOLO(
        layers=[1, 1, 1, 1], img_size=64, num_classes=7, embed_dims=[24, 48, 48, 48], num_heads=[2, 4, 4, 4],
        post_layers=("ca", "ca"),
    )  # fmt: skip


def _caformer() -> nn.Module:
    return metaformer.MetaFormer(
        depths=(1, 1, 2, 1), dims=(16, 32, 64, 96), num_classes=7,
        token_mixers=[metaformer.SepConv] * 2 + [metaformer.Attention] * 2,
        norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
    )  # fmt: skip


_WINDOWS = [
    sized(
        "swin_tiny_patch4_window7_224",
        64,
        {"window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        quick=True,
    ),
    sized(
        "swin_s3_tiny_224",
        64,
        {"window_size": (4, 4), "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
    ),
    sized(
        "swinv2_tiny_window8_256",
        64,
        {"window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        quick=True,
    ),
    sized(
        "swinv2_cr_tiny_224",
        64,
        {"window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        quick=True,
    ),
    sized(
        "swinv2_cr_tiny_ns_224",
        64,
        {"window_size": 4, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
    ),
    timm_case(
        "maxvit_nano_rw_256",
        64,
        options={"img_size": 64, "embed_dim": (32, 64), "depths": (1, 1), "stem_width": 16},
        quick=True,
    ),
    timm_case(
        "coatnet_nano_rw_224",
        64,
        options={"img_size": 64, "embed_dim": (16, 32, 64, 64), "depths": (1, 1, 1, 1)},
        gain=2.5,
    ),
    timm_case(
        "maxxvitv2_nano_rw_256",
        64,
        options={"img_size": 64, "embed_dim": (32, 64), "depths": (1, 1), "stem_width": 16},
    ),
    timm_case(
        "coatnext_nano_rw_224",
        64,
        options={"img_size": 64},
        gain=2.5,
    ),
    timm_case(
        "coatnet_rmlp_nano_rw_224",
        64,
        options={"img_size": 64, "embed_dim": (16, 32, 64, 64), "depths": (1, 1, 1, 1)},
        gain=2.5,
    ),
    timm_case(
        "maxvit_tiny_pm_256",
        64,
        options={"img_size": 64, "embed_dim": (32, 64), "depths": (1, 1), "stem_width": 16},
    ),
    timm_case(
        "maxvit_rmlp_pico_rw_256",
        64,
        options={"img_size": 64, "embed_dim": (32, 64), "depths": (1, 1), "stem_width": 16},
    ),
    sized("gcvit_xxtiny", 64, quick=True),
    Case("timm/nest", _nest, picture(32), heads_axis=1, quick=True),
    sized(
        "samvit_base_patch16",
        64,
        SMALL_VIT | {"global_attn_indexes": (1,), "window_size": 2, "neck_chans": 16},
        heads={"*": 3},
        quick=True,
    ),
    timm_case(
        "hieradet_small",
        64,
        options={"stages": (1, 1, 2, 1), "global_att_blocks": (3,), "embed_dim": 24},
        gain=2.0,
    ),
    sized("hiera_tiny_224", 64, {"stages": (1, 1, 1, 1)}, heads_axis=1, quick=True),
    sized("hiera_small_abswin_256", 64, {"stages": (1, 1, 1, 1)}, heads_axis=1),
    timm_case(
        "davit_tiny",
        64,
        gain=2.5,
        options={"window_size": 4, "depths": (1, 1), "embed_dims": (24, 48), "num_heads": (2, 4)},
        quick=True,
    ),
    timm_case("focalnet_tiny_srf", 64, mixes=False),
    timm_case(
        "twins_svt_small",
        64,
        options={
            "img_size": 64,
            "depths": (2, 2, 2),
            "embed_dims": (16, 32, 64),
            "num_heads": (1, 2, 4),
            "sr_ratios": (4, 2, 1),
            "wss": (4, 4, 4),
            "mlp_ratios": (4, 4, 4),
        },
        heads_axis=2,
        quick=True,
    ),
    timm_case("twins_pcpvt_small", 64, options={"img_size": 64, "depths": (1, 1, 1, 1)}),
    timm_case("csatv2", 128),
]

_PYRAMIDS = [
    timm_case("pvt_v2_b0", 64, quick=True),
    timm_case("pvt_v2_b2_li", 128, options={"depths": (1, 1, 1, 1)}, gain=2.5),
    Case("timm/mvitv2", _mvit, picture(64), quick=True),
    Case("timm/mvitv2_cls", lambda: _mvit(use_cls_token=True), picture(64), quick=True),
    Case("timm/mvitv2_plain", lambda: _mvit(residual_pooling=False, rel_pos_type=""), picture(64), gain=3.0),
    sized("levit_128s", 128, _LEVIT, quick=True),
    sized("levit_conv_128s", 128, _LEVIT),
    sized("levit_384", 128, _LEVIT | {"key_dim": 24, "num_heads": (2, 2, 2)}),
    timm_case("pit_ti_224", 64, options={"img_size": 64}),
    timm_case("pit_ti_distilled_224", 64, options={"img_size": 64}),
    timm_case("crossvit_tiny_240", 240, options={"depth": ((1, 1, 0),)}),
    Case("timm/volo", _volo, picture(64), left_alone=("network.0.0.attn",), gain=2.5, quick=True),
    sized("cait_xxs24_224", 64, SMALL_VIT, host_made=("blocks.0.attn", "blocks.1.attn"), quick=True),
    sized("tnt_s_patch16_224", 64, {"depth": 2}, quick=True),
    sized("tnt_s_legacy_patch16_224", 64, {"depth": 2}),
    sized(
        "convit_tiny",
        64,
        {"depth": 3, "local_up_to_layer": 2},
        host_made=("blocks.0.attn", "blocks.1.attn"),
        quick=True,
    ),
    timm_case(
        "visformer_tiny",
        64,
        options={"img_size": 64, "embed_dim": 48, "depth": (1, 1, 1), "init_channels": 8},
        quick=True,
    ),
    sized("xcit_nano_12_p16_224", 64, {"depth": 2}, quick=True),
    timm_case(
        "tiny_vit_5m_224",
        64,
        options={
            "embed_dims": (16, 32, 64, 96),
            "depths": (1, 1, 2, 1),
            "num_heads": (1, 2, 4, 6),
            "window_sizes": (4, 4, 4, 2),
        },
        quick=True,
    ),
    timm_case("nextvit_small", 64, options={"depths": (3, 1, 5, 1)}),
    timm_case("coat_tiny", 64, options={"img_size": 64}, mixes=False),
    timm_case("coat_lite_tiny", 64, options={"img_size": 64}, mixes=False),
]

_CONVOLUTIONS = [
    timm_case("efficientformer_l1", 224, options={"depths": (1, 1, 1, 2)}),
    timm_case("efficientformerv2_s0", 224, options={"depths": (1, 1, 1, 2)}, host_made=("*.token_mixer",)),
    Case("timm/efficientvit_msra", _cascaded, picture(128), gain=1.5, quick=True),
    timm_case("efficientvit_b0", 64, mixes=False),
    timm_case("mobilevit_xxs", 64),
    timm_case("mobilevitv2_050", 64, mixes=False),
    Case("timm/mobilenetv4_hybrid", _mobilenet, picture(64), quick=True),
    timm_case("fastvit_sa12", 64),
    timm_case("fastvit_mci0", 64),
    Case("timm/caformer", _caformer, picture(64), quick=True),
    timm_case("poolformer_s12", 64, mixes=False),
    timm_case("shvit_s1", 64),
    timm_case("iformer_t", 64),
    timm_case("lowformer_b0", 64),
    timm_case("cpubone_b0_bfrobust", 64),
    timm_case("efficientvim_m1", 64, mixes=False),
    timm_case("edgenext_xx_small", 64, mixes=False),
    timm_case("swiftformer_xs", 64, mixes=False),
    timm_case("vitamin_small_224", 64, options={"img_size": 64, "depth": 2}, gain=2.5),
    Case("timm/halonet", lambda: _byob("halo", block_size=4, halo_size=1), picture(64), quick=True),
    Case(
        "timm/halonet_two_heads", lambda: _byob("halo", block_size=4, halo_size=2, num_heads=2), picture(64)
    ),
    Case("timm/botnet", lambda: _byob("bottleneck"), picture(64), heads={"*": 4}, quick=True),
    Case("timm/lambda", lambda: _byob("lambda", r=5), picture(64), mixes=False),
    Case("timm/botnet_wide", lambda: _byob("bottleneck", num_heads=2), picture(64), heads={"*": 2}),
    timm_case("resnet50_clip", 64),
    timm_case("resnet50_clip_gap", 64, mixes=False),
    timm_case("convnext_atto", 64, mixes=False),
]

CASES = [*_WINDOWS, *_PYRAMIDS, *_CONVOLUTIONS]
