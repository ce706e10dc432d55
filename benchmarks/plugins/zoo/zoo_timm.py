"""Vision transformers of timm, made small by their own arguments."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from benchmarks.plugins.zoo.case import Case, as_it_is, picture

SMALL_VIT: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def timm_case(
    name: str, size: int, id: str | None = None, options: dict[str, Any] | None = None, **about: Any
) -> Case:
    """``options`` go to timm, the rest to :class:`Case`."""
    given = {"num_classes": 7, **(options or {})}

    def build() -> nn.Module:
        return timm.create_model(name, **given)

    return Case(f"timm/{id or name}", build, picture(size), **about)


def sized(name: str, size: int, options: dict[str, Any] | None = None, **about: Any) -> Case:
    """For models that want to be told the size of their pictures."""
    return timm_case(name, size, options={"img_size": size, **(options or {})}, **about)


_VITS = [
    sized("vit_tiny_patch16_224", 64, SMALL_VIT, quick=True),
    sized("vit_base_patch16_siglip_224", 64, SMALL_VIT, quick=True),
    sized("vit_base_patch16_clip_224", 64, SMALL_VIT),
    sized("vit_base_patch14_dinov2", 56, SMALL_VIT),
    sized("vit_base_patch14_reg4_dinov2", 56, SMALL_VIT, quick=True),
    sized("vit_base_patch16_rpn_224", 64, SMALL_VIT),
    sized("vit_base_patch16_xp_224", 64, SMALL_VIT),
    sized("vit_small_patch16_36x1_224", 64, SMALL_VIT),
    sized("vit_small_patch16_18x2_224", 64, SMALL_VIT, quick=True),
    sized("vit_medium_patch16_gap_256", 64, SMALL_VIT),
    sized("vit_so150m_patch16_reg4_map_256", 64, SMALL_VIT),
    sized("vit_wee_patch16_reg1_gap_256", 64, SMALL_VIT, quick=True),
    sized("vit_pwee_patch16_reg1_gap_256", 64, SMALL_VIT),
    sized(
        "vit_dlittle_patch16_reg1_gap_256",
        64,
        SMALL_VIT | {"num_heads": 2, "embed_dim": 32},
        explicit=as_it_is,
        quick=True,
    ),
    sized(
        "vit_dwee_patch16_reg1_gap_256", 64, SMALL_VIT | {"num_heads": 2, "embed_dim": 32}, explicit=as_it_is
    ),
    sized("vit_intern300m_patch14_448", 56, SMALL_VIT),
    sized("aimv2_large_patch14_224", 56, SMALL_VIT, quick=True),
    sized("beit3_base_patch16_224", 64, SMALL_VIT),
    sized("deit_tiny_distilled_patch16_224", 64, SMALL_VIT),
    sized("deit3_small_patch16_224", 64, SMALL_VIT),
    timm_case("test_vit", 64),
    timm_case("test_vit2", 64),
    timm_case("test_vit3", 160),
    timm_case("test_vit4", 64),
    timm_case("vit_small_r26_s32_224", 64, options={"img_size": 64, **SMALL_VIT}, gain=1.5),
    timm_case("vit_base_mci_224", 64, options={"img_size": 64, "depth": 1}),
    timm_case("vit_relpos_small_patch16_224", 64, options={"img_size": 64, **SMALL_VIT}, quick=True),
    timm_case("vit_relpos_base_patch16_cls_224", 64, options={"img_size": 64, **SMALL_VIT}),
    timm_case("vit_srelpos_small_patch16_224", 64, options={"img_size": 64, **SMALL_VIT}),
    timm_case("vit_relpos_medium_patch16_rpn_224", 64, options={"img_size": 64, **SMALL_VIT}),
    timm_case("test_vit_relpos", 160),
    timm_case("naflexvit_base_patch16_gap", 64, options=SMALL_VIT, quick=True),
    timm_case("naflexvit_base_patch16_map", 64, options=SMALL_VIT),
    timm_case("naflexvit_base_patch16_par_gap", 64, options=SMALL_VIT),
    timm_case("gemma4_vit_167m", 64, options={"depth": 2}),
    timm_case("qwen3_vit_88m", 64, options={"depth": 2}),
    timm_case("deepseek_vit_412m", 56, options={"img_size": 56, **SMALL_VIT}),
]

_EVAS = [
    sized("eva02_tiny_patch14_224", 56, SMALL_VIT, quick=True),
    sized("eva02_base_patch16_clip_224", 64, SMALL_VIT),
    sized("eva_large_patch14_196", 56, SMALL_VIT),
    sized("vit_base_patch16_rope_reg1_gap_256", 64, SMALL_VIT),
    sized("vit_small_patch16_rope_224", 64, SMALL_VIT),
    sized("vit_small_patch16_rope_mixed_224", 64, SMALL_VIT, quick=True),
    sized("vit_small_patch16_rope_mixed_ape_224", 64, SMALL_VIT),
    sized("vit_small_patch16_dinov3", 64, SMALL_VIT),
    sized("vit_small_plus_patch16_dinov3_qkvb", 64, SMALL_VIT),
    sized("vit_pe_core_tiny_patch16_384", 64, SMALL_VIT, quick=True),
    sized("vit_pe_spatial_tiny_patch16_512", 64, SMALL_VIT),
    sized("beit_base_patch16_224", 64, SMALL_VIT, quick=True),
    sized("beitv2_base_patch16_224", 64, SMALL_VIT),
]

CASES = [*_VITS, *_EVAS]
