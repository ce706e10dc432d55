"""The two halves of a published vision transformer, for those who put their own head on it."""

from __future__ import annotations

from typing import Literal, cast

from mmattn.blocks import Block
from mmattn.encoder import Encoder
from mmattn.vit.model import VisionTransformer
from mmattn.vit.of_timm import from_timm
from mmattn.vit.of_torchvision import from_torchvision
from mmattn.vit.tokens import PictureTokens

Library = Literal["timm", "torchvision"]


def tokens_of(checkpoint: str, library: Library = "timm", num_heads: int | None = None) -> PictureTokens:
    """Patches, positions and class token of a checkpoint: what a configuration names as its adapter.

    Args:
        checkpoint: a file of weights, as :func:`~mmattn.vit.from_timm` takes.
        library: whose names it has.
        num_heads: attention heads; ``None`` takes those of the published models of this width.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no plain vision transformer.
    """
    return _model(checkpoint, library, num_heads).adapter.train()


def encoder_of(
    checkpoint: str, library: Library = "timm", num_heads: int | None = None, drop_path: float = 0.0
) -> Encoder:
    """The blocks of a checkpoint; arguments as in :func:`tokens_of`.

    Args:
        drop_path: of the last block; grows linearly from 0 at the first.
    """
    encoder = _model(checkpoint, library, num_heads).encoder.train()
    last = max(len(encoder.blocks) - 1, 1)
    for index, block in enumerate(cast("list[Block]", list(encoder.blocks))):
        block.drop_path.p = drop_path * index / last
    return encoder


def _model(checkpoint: str, library: Library, num_heads: int | None) -> VisionTransformer:
    if library not in ("timm", "torchvision"):
        raise ValueError(f"library must be 'timm' or 'torchvision': got {library!r}")
    convert = from_timm if library == "timm" else from_torchvision
    return convert(checkpoint, num_heads=num_heads)
