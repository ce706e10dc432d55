"""Vision transformers by name, from 0.3 million parameters to ViT-B/16."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from mmattn.adapters.image import ImagePatches
from mmattn.builders import build_encoder
from mmattn.encoder import Encoder
from mmattn.registers import Registers
from mmattn.vit.head import PictureHead, Pool
from mmattn.vit.model import VisionTransformer
from mmattn.vit.positions import GridPositions
from mmattn.vit.tokens import PictureTokens


@dataclass(frozen=True)
class VitPreset:
    """What a vision transformer is made of.

    Args:
        embed_dim: width D.
        depth: blocks.
        num_heads: attention heads.
        patch_size: side of a patch in pixels.
        image_size: height and width that learned positions are for; others are resampled.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        stem: ``"linear"`` or ``"conv"``, see :class:`~mmattn.adapters.image.ImagePatches`.
        stem_dim: channels of a convolutional stem's first layer.
        in_channels: channels of the pictures.
        positions: ``"learned"``: a table, resampled to other grids; ``"rotary"``: axial, in the attention; or none.
        rotary_base: base of the rotary positions.
        prefix: learned tokens in front of the patches, the class token among them.
        pool: see :class:`~mmattn.vit.head.PictureHead`.
        pool_heads: heads of the pooling attention.
        norm_before_pool: whether the last norm comes before pooling; timm norms after an average.
        norm_eps: of all norms.
        dropout, attention_dropout, drop_path, token_dropout, head_dropout: on the branches and hidden features, the
            attention weights, the branches of whole pictures, the tokens before the first block, the pooled features.
    """

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int
    image_size: tuple[int, int]
    mlp_ratio: float = 4.0
    stem: Literal["linear", "conv"] = "linear"
    stem_dim: int = 32
    in_channels: int = 3
    positions: Literal["learned", "rotary", "none"] = "learned"
    rotary_base: float = 100.0
    prefix: int = 1
    pool: Pool = "token"
    pool_heads: int = 4
    norm_before_pool: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    token_dropout: float = 0.0
    head_dropout: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_size
        return -(-height // self.patch_size), -(-width // self.patch_size)


def _compact(embed_dim: int, depth: int, num_heads: int, stem_dim: int, patch_size: int = 4) -> VitPreset:
    """For small pictures and little data: convolutional stem, rotary positions, attention pooling, no class token
    (after the compact convolutional transformers of Hassani et al. 2021)."""
    return VitPreset(
        embed_dim, depth, num_heads, patch_size, (32, 32), mlp_ratio=2.0, stem="conv", stem_dim=stem_dim,
        positions="rotary", prefix=0, pool="attention", norm_eps=1e-5,
    )  # fmt: skip


#: Presets by name. Those named ``patch`` are ViT and DeiT as published, with a class token and learned positions.
PRESETS: dict[str, VitPreset] = {
    "vit_pico_conv4_32": _compact(80, 4, 4, 24),
    "vit_nano_conv8_32": _compact(128, 4, 4, 32, patch_size=8),
    "vit_micro_conv4_32": _compact(192, 9, 6, 48),
    "vit_tiny_patch4_32": VitPreset(192, 12, 3, 4, (32, 32)),
    "vit_tiny_patch16_224": VitPreset(192, 12, 3, 16, (224, 224)),
    "vit_small_patch16_224": VitPreset(384, 12, 6, 16, (224, 224)),
    "vit_base_patch16_224": VitPreset(768, 12, 12, 16, (224, 224)),
}


def build_vit(preset: str | VitPreset, num_classes: int, **changes: Any) -> VisionTransformer:
    """Build a vision transformer.

    Args:
        preset: a name of :data:`PRESETS`, or a preset of your own.
        num_classes: number of classes; 0 gives the pooled features.
        changes: fields of :class:`VitPreset` to set otherwise, e.g. ``drop_path=0.1`` or ``image_size=(64, 96)``.

    Raises:
        ValueError: the name is unknown, or a number does not fit.

    Example:
        >>> model = build_vit("vit_pico_conv4_32", num_classes=10, drop_path=0.1)
        >>> sum(p.numel() for p in model.parameters())
        309122
    """
    config = replace(find_preset(preset), **changes)
    positions = GridPositions(config.grid, config.embed_dim) if config.positions == "learned" else None
    adapter = PictureTokens(
        ImagePatches(config.embed_dim, config.patch_size, config.in_channels, config.stem, config.stem_dim),
        positions,
        Registers(config.prefix, config.embed_dim) if config.prefix else None,
        config.token_dropout,
    )
    norm = nn.LayerNorm(config.embed_dim)
    head = PictureHead(
        config.embed_dim, num_classes, config.pool, prefix_length=config.prefix, num_heads=config.pool_heads,
        norm=None if config.norm_before_pool else norm, dropout=config.head_dropout,
    )  # fmt: skip
    model = VisionTransformer(adapter, _encoder(config), head)
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = config.norm_eps
    return model


def find_preset(preset: str | VitPreset) -> VitPreset:
    """The preset of a name; one that is a preset already stays itself.

    Raises:
        ValueError: the name is unknown.
    """
    if isinstance(preset, VitPreset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}: got {preset!r}")
    return PRESETS[preset]


def _encoder(config: VitPreset) -> Encoder:
    encoder = build_encoder(
        config.embed_dim, config.depth, config.num_heads,
        mlp_ratio=config.mlp_ratio, dropout=config.dropout, attention_dropout=config.attention_dropout,
        drop_path=config.drop_path, positions="rotary" if config.positions == "rotary" else "none",
        rotary_base=config.rotary_base,
    )  # fmt: skip
    if not config.norm_before_pool:
        encoder.norm = nn.Identity()
    return encoder
