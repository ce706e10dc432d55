"""torchvision's vision transformers as ours, and back: modules, states and files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mmattn.vit.model import VisionTransformer
from mmattn.vit.names import TORCHVISION, to_ours
from mmattn.vit.plain import (
    Source,
    blocks_of,
    check_kind,
    check_plain,
    eps_of,
    exported,
    grid_of,
    hidden_of,
    image_size_of,
    opened,
)  # fmt: skip
from mmattn.vit.states import from_state

if TYPE_CHECKING:
    from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT


def from_torchvision(
    source: Source, *, num_heads: int | None = None, image_size: tuple[int, int] | None = None
) -> VisionTransformer:
    """A ``torchvision.models.VisionTransformer`` as ours, with equal outputs; arguments as in :func:`from_timm`.

    Raises:
        TypeError: the module is another one, or a subclass with a forward of its own.
        ValueError: there is what ours has not: a hidden layer in the head (``representation_size``), or a stem of
            convolutions.
    """
    if not isinstance(source, nn.Module):
        state, patch = opened(source), "conv_proj.weight"
        grid = grid_of(image_size, state[patch].shape[-1]) if patch in state else None
        ours = to_ours(state, TORCHVISION, prefix_on_grid=True)
        return from_state(ours, "torchvision", num_heads=num_heads, grid=grid, pool="token").eval()
    from torchvision.models.vision_transformer import VisionTransformer as Theirs

    check_kind("from_torchvision", source, Theirs)
    ours = to_ours(source.state_dict(), TORCHVISION, prefix_on_grid=True)
    layer: Any = cast(Any, source).encoder.layers[0]
    model = from_state(
        ours,
        "torchvision",
        num_heads=layer.num_heads,
        grid=grid_of((cast(int, source.image_size),) * 2, cast(int, source.patch_size)),
        pool="token",
        norm_eps=layer.ln_1.eps,
        dropout=source.dropout,
        token_dropout=source.dropout,
        attention_dropout=source.attention_dropout,
    )
    return model.train(source.training)


def torchvision_state(model: VisionTransformer) -> dict[str, Tensor]:
    """The weights as a torchvision checkpoint holds them.

    Raises:
        ValueError: the model has what torchvision's has not; the message names it.
    """
    check_plain("to_torchvision", model)
    if model.head.pool != "token" or model.adapter.prefix_length != 1:
        raise ValueError(f"to_torchvision needs a class token that is pooled: got pool={model.head.pool!r}")
    if model.adapter.positions is None:
        raise ValueError("to_torchvision needs learned positions: got none")
    return exported(model, TORCHVISION)


def to_torchvision(model: VisionTransformer) -> TorchvisionViT:
    """Ours as a ``torchvision.models.VisionTransformer``, with equal outputs.

    Raises:
        ValueError: the model has what torchvision's has not; the message names it.
    """
    from torchvision.models.vision_transformer import VisionTransformer as Theirs

    state = torchvision_state(model)
    height, width = image_size_of(model)
    patches = model.adapter.patches
    if height != width or patches.in_channels != 3:
        raise ValueError(
            f"to_torchvision needs square pictures of 3 channels: got {height} x {width}, {patches.in_channels}"
        )
    if not model.head.num_classes:
        raise ValueError("to_torchvision needs a head with classes: got num_classes=0")
    blocks = blocks_of(model)
    with torch.device("meta"):
        theirs = Theirs(
            height,
            patches.patch_size,
            len(blocks),
            blocks[0].attention.num_heads,
            model.embed_dim,
            hidden_of(blocks[0]),
            dropout=blocks[0].dropout.p,
            attention_dropout=blocks[0].attention.dropout,
            num_classes=model.head.num_classes,
            norm_layer=partial(nn.LayerNorm, eps=eps_of(blocks[0])),
        )
    theirs.load_state_dict(state, assign=True)
    return cast("TorchvisionViT", theirs.train(model.training))
