"""What the conversions of vision transformers share: refusals, numbers, and how a source is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.blocks import Block
from mmattn.vit.model import VisionTransformer
from mmattn.vit.names import Names, State, to_theirs
from mmattn.vit.states import read_state

Source = nn.Module | State | str | Path


def blocks_of(model: VisionTransformer) -> list[Block]:
    """The blocks, typed."""
    return cast("list[Block]", list(model.encoder.blocks))


def check_kind(caller: str, module: nn.Module, kind: type[Any]) -> None:
    """Refuse a module of another class, and a subclass that computes something of its own."""
    same = all(
        getattr(type(module), name, None) is getattr(kind, name, None)
        for name in ("forward", "forward_features", "forward_head")
    )
    if not isinstance(module, kind) or not same or "forward" in vars(module):
        raise TypeError(f"{caller} takes {kind.__name__} with its own forward: got {type(module).__name__}")


def check_plain(caller: str, model: VisionTransformer) -> None:
    """Refuse what the published vision transformers have not."""
    if not isinstance(model.adapter.patches.embed, nn.Conv2d):
        raise ValueError(f"{caller} cannot carry a convolutional stem: got stem='conv'")
    if model.head.attention is not None:
        raise ValueError(f"{caller} cannot carry attention pooling: got pool='attention'")
    for block in blocks_of(model):
        attention: MultiHeadAttention = block.attention
        if attention.num_kv_heads != attention.num_heads or type(attention.q_norm) is not nn.Identity:
            raise ValueError(f"{caller} cannot carry grouped heads or norms of queries and keys")
        for name in ("positions", "position_bias", "gate", "sinks", "soft_cap", "scale", "context_dim"):
            if getattr(attention, name) is not None:
                raise ValueError(f"{caller} cannot carry {name} of the attention")


def exported(model: VisionTransformer, names: Names) -> dict[str, Tensor]:
    """Copies of the weights with their names."""
    return {name: value.detach().clone() for name, value in to_theirs(model.state_dict(), names).items()}


def opened(source: State | str | Path) -> dict[str, Tensor]:
    """A state, or the one in a file."""
    return dict(source) if isinstance(source, Mapping) else read_state(source)


def image_size_of(model: VisionTransformer) -> tuple[int, int]:
    """Height and width that the positions are for; one patch where there are none."""
    size, table = model.adapter.patches.patch_size, model.adapter.positions
    rows, columns = (1, 1) if table is None else table.table.shape[:2]
    return rows * size, columns * size


def grid_of(image_size: tuple[int, int] | None, patch_size: int) -> tuple[int, int] | None:
    """Rows and columns of patches."""
    return None if image_size is None else (image_size[0] // patch_size, image_size[1] // patch_size)


def hidden_of(block: Block) -> int:
    """Width between the feed-forward layers."""
    return cast(nn.Linear, cast(nn.Sequential, block.feed_forward)[0]).out_features


def eps_of(block: Block) -> float:
    """What the norms add to the variance."""
    return cast(nn.LayerNorm, block.attention_norm).eps
