"""The presets of vision transformers as models of timm.

After ``import mmattn.vit.timm_models``, ``timm.create_model("mmattn_vit_tiny_patch4_32", num_classes=10)`` works,
with timm's conventions: ``forward_features``, ``forward_head``, ``reset_classifier``, ``features_only``, layer decay.
The names are those of :data:`mmattn.vit.PRESETS` behind ``mmattn_``. There are no pretrained weights of ours, but a
file of timm's own ViT of the same shape can be named: ``pretrained=True, pretrained_cfg_overlay={"file": path}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mmattn.adapters.image import Images
from mmattn.vit.head import Pool
from mmattn.vit.model import VisionTransformer
from mmattn.vit.names import TIMM, to_ours
from mmattn.vit.positions import resampled
from mmattn.vit.presets import PRESETS, VitPreset, build_vit, find_preset

__all__ = ["TimmVisionTransformer", "default_cfgs"]


class TimmVisionTransformer(VisionTransformer):
    """A :class:`~mmattn.vit.VisionTransformer` with the arguments and methods of timm's models.

    Args:
        preset: a name of :data:`mmattn.vit.PRESETS`, or a preset of your own.
        img_size: height and width that positions are learned for; pictures of other sizes are taken as well.
        in_chans: channels of the pictures.
        num_classes: number of classes; 0 leaves the classifier out.
        global_pool: ``"token"``, ``"avg"``, ``"attention"`` or ``""``; ``None`` takes the preset's. As in timm, the
            last norm comes behind an average.
        drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate: dropout before the classifier, on
            the tokens, on the branches, on the attention weights, and of whole branches.

    Raises:
        ValueError: an argument does not fit.
    """

    def __init__(
        self,
        preset: str | VitPreset,
        *,
        img_size: int | tuple[int, int] | None = None,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Pool | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        config = find_preset(preset)
        size = config.image_size if img_size is None else img_size
        pool = config.pool if global_pool is None else global_pool
        made = build_vit(
            config,
            num_classes,
            image_size=(size, size) if isinstance(size, int) else tuple(size),
            in_channels=in_chans,
            pool=pool,
            norm_before_pool=pool != "avg",
            head_dropout=drop_rate,
            token_dropout=pos_drop_rate,
            dropout=proj_drop_rate,
            attention_dropout=attn_drop_rate,
            drop_path=drop_path_rate,
        )
        super().__init__(made.adapter, made.encoder, made.head)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.global_pool: str = pool
        self.num_features = self.head_hidden_size = config.embed_dim
        self.num_prefix_tokens = config.prefix
        self.feature_info = [
            {"module": f"encoder.blocks.{i}", "num_chs": config.embed_dim, "reduction": config.patch_size}
            for i in range(config.depth)
        ]

    def forward_features(self, x: Images) -> Tensor:
        """Normed tokens ``[B, N, D]`` of pictures ``[B, C, H, W]``."""
        return cast(Tensor, self.features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits ``[B, C]`` of tokens ``[B, N, D]``, or what goes into the classifier, ``[B, D]``."""
        return cast(Tensor, self.head(x, pre_logits))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Tokens behind some of the blocks, as timm's models give them.

        Args:
            x: pictures ``[B, C, H, W]``.
            indices: the last n blocks, or these blocks; ``None`` takes all.
            return_prefix_tokens: give pairs with the tokens in front of the patches, ``[B, n, D]``.
            norm: put them through the last norm.
            stop_early: leave out the blocks behind the last one asked for.
            output_fmt: ``"NCHW"``: ``[B, D, rows, columns]``, or ``"NLC"``: ``[B, rows * columns, D]``.
            intermediates_only: leave out the final tokens, which are otherwise given first.

        Raises:
            ValueError: the format is another one.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be 'NCHW' or 'NLC': got {output_fmt!r}")
        wanted = _numbers(len(self.encoder.blocks), indices)
        tokens, kept = self.through_blocks(
            *self.adapter.stack(x), keep=wanted, last=max(wanted) if stop_early else None
        )
        grid = self.adapter.patches.grids(x[:1])[0]
        found: list[Any] = []
        for one in cast("list[Tensor]", kept):
            values = self.encoder.norm(one) if norm else one
            front, patches = values.split([self.num_prefix_tokens, grid[0] * grid[1]], dim=1)
            if output_fmt == "NCHW":
                patches = patches.transpose(1, 2).unflatten(2, grid).contiguous()
            found.append((patches, front) if return_prefix_tokens and self.num_prefix_tokens else patches)
        return found if intermediates_only else (self.encoder.norm(tokens), found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Take off the blocks behind the last one asked for; the numbers of those asked for."""
        wanted = _numbers(len(self.encoder.blocks), indices)
        self.encoder.blocks = self.encoder.blocks[: max(wanted) + 1]
        if prune_norm:
            self.encoder.norm = nn.Identity()
        if prune_head:
            self.head.norm = nn.Identity()
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head.linear

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """A new last layer, and another pool where one is given; norms stay where they are."""
        self.head.reset(num_classes, global_pool)
        self.head.train(self.training)
        self.num_classes = num_classes
        self.global_pool = self.head.pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block's activations again in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters belong to which layer, for layer-wise learning rates."""
        return {
            "stem": r"^adapter",
            "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.norm", (99999,))],
        }


def adapted(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A checkpoint as a model takes it: one of timm's own ViT gets our names, positions get the model's grid."""
    if f"{TIMM.positions}" in state or "patch_embed.proj.weight" in state:
        state = to_ours(state, TIMM)
    name = "adapter.positions.table"
    if name in state and isinstance(model, VisionTransformer) and model.adapter.positions is not None:
        table, (rows, columns) = state[name], model.adapter.positions.table.shape[:2]
        if table.ndim == 2:
            side = round(len(table) ** 0.5)
            table = table.unflatten(0, (side, side))
        state = {**state, name: resampled(table.float(), rows, columns)}
    return state


def _numbers(count: int, indices: int | list[int] | tuple[int, ...] | None) -> list[int]:
    """The blocks that timm means by indices: the last n, these (below 0 from the end), or all."""
    if indices is None or isinstance(indices, int):
        taken = count if indices is None else indices
        asked = list(range(count - taken, count))
    else:
        asked = [index + count if index < 0 else index for index in indices]
    if not asked or min(asked) < 0 or max(asked) >= count:
        raise ValueError(f"indices must name blocks among {count}: got {indices}")
    return asked


def _cfg(preset: VitPreset) -> dict[str, Any]:
    linear = preset.stem == "linear"
    return {
        "url": "",
        "num_classes": 1000 if preset.image_size[0] > 32 else 10,
        "input_size": (preset.in_channels, *preset.image_size),
        "pool_size": None,
        "crop_pct": 0.9 if preset.image_size[0] > 32 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": False,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "adapter.patches.embed" if linear else "adapter.patches.embed.0",
        "classifier": "head.linear",
    }


default_cfgs = generate_default_cfgs({f"mmattn_{name}": _cfg(preset) for name, preset in PRESETS.items()})


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """A function of timm's registry that builds one preset."""

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(
            TimmVisionTransformer,
            create.__name__,
            pretrained,
            pretrained_filter_fn=adapted,
            feature_cfg={"out_indices": 3, "feature_cls": "getter"},
            preset=name,
            **kwargs,
        )

    create.__name__ = create.__qualname__ = f"mmattn_{name}"
    create.__doc__ = f"The preset {name!r} of mmattn; arguments as in TimmVisionTransformer."
    return create


for _name in PRESETS:
    globals()[f"mmattn_{_name}"] = register_model(_entrypoint(_name))
