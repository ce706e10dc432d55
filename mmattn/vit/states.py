"""States of vision transformers: read from files, and turned into a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.vit.model import VisionTransformer
from mmattn.vit.names import State
from mmattn.vit.presets import VitPreset, build_vit

#: Heads of the published vision transformers by their width.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file: safetensors by its ending, else what ``torch.load(weights_only=True)`` takes.

    A checkpoint that holds its state under ``"state_dict"`` or ``"model"`` gives that, and the prefix ``module.``
    of a model that was trained in parallel is taken off.

    Raises:
        ImportError: safetensors is missing.
        ValueError: the file holds no state.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError(f"{path.name} needs safetensors: pip install safetensors") from error
        return load_file(path)
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"a checkpoint must hold a state of tensors: got {path}")
    state = dict(loaded)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def from_state(
    state: State,
    library: str,
    *,
    num_heads: int | None,
    grid: tuple[int, int] | None,
    pool: str,
    **options: Any,
) -> VisionTransformer:
    """A model with these weights.

    Args:
        state: named as ours is; the positions still flat, ``[cells, D]``.
        library: where it comes from, for messages.
        num_heads: attention heads; ``None`` takes those of the published models of this width.
        grid: rows and columns of the positions; ``None`` takes a square.
        pool: see :class:`~mmattn.vit.head.PictureHead`.
        options: further fields of :class:`~mmattn.vit.presets.VitPreset`.

    Raises:
        ValueError: the state is no plain vision transformer, or heads or grid must be given.
    """
    state = {name: value.detach().clone() for name, value in state.items()}
    config = _config(state, library, num_heads, pool)
    table = state.get("adapter.positions.table")
    if table is not None:
        grid = _grid(len(table), grid)
        state["adapter.positions.table"] = table.unflatten(0, grid)
        options["image_size"] = (grid[0] * config["patch_size"], grid[1] * config["patch_size"])
    else:
        options["positions"] = "none"
    num_classes = len(state["head.linear.weight"]) if "head.linear.weight" in state else 0
    with torch.device("meta"):  # nothing is drawn, so that the global random state stays as it was
        model = build_vit(VitPreset(**{"image_size": (1, 1), **config, **options}), num_classes)
        _take_off(model, state)
    model.load_state_dict(state, assign=True)
    return model


def _config(state: State, library: str, num_heads: int | None, pool: str) -> dict[str, Any]:
    """What a state says about its model."""
    weight = state.get("adapter.patches.embed.weight")
    if weight is None or weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        shape = None if weight is None else list(weight.shape)
        raise ValueError(f"from_{library} needs a square patch embedding [D, C, P, P]: got {shape}")
    width, channels, patch_size = weight.shape[:3]
    bare = [n.removesuffix("weight") for n in state if n.endswith("norm.weight")]
    if lacking := [name for name in bare if f"{name}bias" not in state]:
        raise ValueError(f"from_{library} needs norms with a bias (LayerNorm): got {lacking[0]}weight alone")
    first = "encoder.blocks.0."
    if f"{first}attention.qkv_proj.weight" not in state:
        raise ValueError(f"from_{library} needs blocks of attention: got a state without the first one")
    rows = list(state[f"{first}attention.qkv_proj.weight"].shape)
    if rows != [3 * width, width]:
        raise ValueError(f"from_{library} needs heads that share the width {width}: got qkv {rows}")
    if num_heads is None and width not in _HEADS:
        raise ValueError(f"num_heads must be given for embed_dim={width}: got None")
    blocks = {name.split(".")[2] for name in state if name.startswith("encoder.blocks.")}
    hidden = len(state[f"{first}feed_forward.0.weight"])
    prefix = state.get("adapter.prefix.table")
    return {
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": _HEADS[width] if num_heads is None else num_heads,
        "patch_size": patch_size,
        "mlp_ratio": (hidden + 0.5) / width,  # rounded down when the layer is built
        "in_channels": channels,
        "prefix": 0 if prefix is None else len(prefix),
        "pool": pool,
        "norm_before_pool": "encoder.norm.weight" in state,
    }


def _grid(cells: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    side = round(cells**0.5)
    if grid is None and side * side != cells:
        raise ValueError(f"image_size must be given where the positions are no square: got {cells} of them")
    rows, columns = (side, side) if grid is None else grid
    if rows * columns != cells:
        raise ValueError(f"positions must be those of the grid {rows} x {columns}: got {cells}")
    return rows, columns


def _take_off(model: VisionTransformer, state: State) -> None:
    """Take off the norms and the biases that a state has not."""
    if "encoder.norm.weight" not in state:
        model.encoder.norm = nn.Identity()
    if "head.norm.weight" not in state:
        model.head.norm = nn.Identity()
    for name, _ in list(model.named_parameters()):
        part, _, kind = name.rpartition(".")
        if kind == "bias" and name not in state:
            model.get_submodule(part).register_parameter("bias", None)
