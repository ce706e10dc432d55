"""timm's vision transformers as ours, and back: modules, states and files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mmattn.vit.model import VisionTransformer
from mmattn.vit.names import TIMM, to_ours
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
    from timm.models.vision_transformer import VisionTransformer as TimmViT


def from_timm(
    source: Source,
    *,
    num_heads: int | None = None,
    image_size: tuple[int, int] | None = None,
    global_pool: str | None = None,
) -> VisionTransformer:
    """A ``timm.models.vision_transformer.VisionTransformer`` as ours, with equal outputs.

    Class token and registers take their positions with them, layer scales go into the projections before them,
    and a picture of another size than timm's gets resampled positions, as with ``dynamic_img_size``.

    Args:
        source: the module, its state, or a file of it (safetensors, or what ``torch.load(weights_only=True)`` takes).
        num_heads: of a state or file; ``None`` takes those of the published models of this width.
        image_size: of a state or file whose positions are no square.
        global_pool: of a state or file: ``"token"``, ``"avg"`` or ``""``; ``None`` takes ``"avg"`` where there is a
            norm behind the pool or no class token.

    Returns:
        The model, in the mode of the module; of a state or file in evaluation mode.

    Raises:
        TypeError: the module is another one, or a subclass with a forward of its own.
        ValueError: there is what ours has not; the message names it.

    Example:
        >>> from timm.models.vision_transformer import VisionTransformer as Theirs
        >>> theirs = Theirs(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.allclose(from_timm(theirs)(x), theirs(x), atol=1e-5)
        True
    """
    if isinstance(source, nn.Module):
        return _from_timm_module(source)
    state, patch = opened(source), "patch_embed.proj.weight"
    grid = grid_of(image_size, state[patch].shape[-1]) if patch in state else None
    by_norm = "fc_norm.weight" in state or TIMM.class_token not in state
    pool = global_pool or ("avg" if by_norm else "token")
    pool = "" if global_pool == "" else pool
    _check_pool(pool)
    ours = to_ours(state, TIMM, grid=grid)
    return from_state(ours, "timm", num_heads=num_heads, grid=grid, pool=pool).eval()


def timm_state(model: VisionTransformer) -> dict[str, Tensor]:
    """The weights as a timm checkpoint holds them; ``safetensors.torch.save_file`` takes them.

    Raises:
        ValueError: the model has what timm's has not; the message names it.
    """
    check_plain("to_timm", model)
    return exported(model, TIMM)


def to_timm(model: VisionTransformer) -> TimmViT:
    """Ours as a ``timm.models.vision_transformer.VisionTransformer``, with equal outputs.

    Raises:
        ValueError: the model has what timm's has not; the message names it.
    """
    from timm.models.vision_transformer import VisionTransformer as Theirs

    state = timm_state(model)
    blocks = blocks_of(model)
    first, patches, prefix = blocks[0], model.adapter.patches, model.adapter.prefix_length
    normed = [not isinstance(norm, nn.Identity) for norm in (model.encoder.norm, model.head.norm)]
    if all(normed):
        raise ValueError("to_timm cannot carry a norm before and behind the pool: got both")
    with torch.device("meta"):
        theirs = Theirs(
            img_size=image_size_of(model),
            patch_size=patches.patch_size,
            in_chans=patches.in_channels,
            num_classes=model.head.num_classes,
            global_pool=cast(Any, model.head.pool),
            embed_dim=model.embed_dim,
            depth=len(blocks),
            num_heads=first.attention.num_heads,
            mlp_ratio=(hidden_of(first) + 0.5) / model.embed_dim,
            qkv_bias=first.attention.qkv_proj.bias is not None,
            class_token=prefix > 0,
            reg_tokens=max(prefix - 1, 0),
            pos_embed="learn" if TIMM.positions in state else "none",
            final_norm=any(normed),
            fc_norm=normed[1],
            drop_rate=model.head.dropout.p,
            pos_drop_rate=model.adapter.dropout.p,
            proj_drop_rate=first.dropout.p,
            attn_drop_rate=first.attention.dropout,
            drop_path_rate=blocks[-1].drop_path.p,
            norm_layer=partial(nn.LayerNorm, eps=eps_of(first)),
            dynamic_img_size=True,  # as ours, it takes pictures of other sizes
            weight_init="skip",
        )
    theirs.load_state_dict(state, assign=True)
    return theirs.train(model.training)


def _from_timm_module(source: nn.Module) -> VisionTransformer:
    from timm.models.vision_transformer import VisionTransformer as Theirs

    check_kind("from_timm", source, Theirs)
    theirs: Any = source
    first = _check_timm_blocks(theirs)
    _check_pool(theirs.global_pool)
    if theirs.global_pool == "avg" and getattr(theirs, "pool_include_prefix", False):
        raise ValueError(
            "from_timm cannot carry a pool over class token and registers: got pool_include_prefix"
        )
    if not isinstance(theirs.patch_drop, nn.Identity):
        raise ValueError(f"from_timm cannot carry dropped patches: got patch_drop={theirs.patch_drop.prob}")
    model = from_state(
        to_ours(theirs.state_dict(), TIMM, prefix_on_grid=not theirs.no_embed_class),
        "timm",
        num_heads=first.attn.num_heads,
        grid=tuple(theirs.patch_embed.grid_size),
        pool=theirs.global_pool,
        norm_eps=first.norm1.eps,
        dropout=first.attn.proj_drop.p,
        attention_dropout=first.attn.attn_drop.p,
        token_dropout=theirs.pos_drop.p,
        head_dropout=theirs.head_drop.p,
    )
    for ours, block in zip(blocks_of(model), theirs.blocks, strict=True):
        ours.drop_path.p = float(getattr(block.drop_path1, "drop_prob", 0.0) or 0.0)
    return model.train(theirs.training)


def _check_timm_blocks(theirs: Any) -> Any:
    """The first block, where all are plain."""
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import Block as Plain

    for block in theirs.blocks:
        if type(block) is not Plain:
            raise ValueError(f"from_timm needs timm's plain Block: got {type(block).__name__}")
        if type(block.mlp) is not Mlp or not _is_gelu(block.mlp.act):
            kind = (
                f"{type(block.mlp).__name__} with {block.mlp.act}" if hasattr(block.mlp, "act") else block.mlp
            )
            raise ValueError(f"from_timm needs feed-forward layers with the exact GELU: got {kind}")
        for norm in (block.norm1, block.norm2):
            if not isinstance(norm, nn.LayerNorm):
                raise ValueError(f"from_timm needs LayerNorm: got {type(norm).__name__}")
    return theirs.blocks[0]


def _is_gelu(act: nn.Module) -> bool:
    return isinstance(act, nn.GELU) and act.approximate == "none"


def _check_pool(pool: str) -> None:
    if pool not in ("token", "avg", ""):
        raise ValueError(f"from_timm can carry global_pool 'token', 'avg' or '': got {pool!r}")
