"""How timm and torchvision name the parts of a vision transformer, and what else differs in their states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Names:
    """The names of one library.

    Args:
        library: its name, for messages.
        parts: its name -> ours, for each module with a weight and a bias; ``{}`` is the number of a block.
        class_token: name of the class token ``[1, 1, D]``.
        registers: name of the registers ``[1, R, D]``; empty where the library has none.
        positions: name of the positions ``[1, prefix + cells, D]`` or ``[1, cells, D]``.
        joined: a parameter of its own -> ours, where weight and bias are not named like that.
    """

    library: str
    parts: dict[str, str]
    class_token: str
    registers: str
    positions: str
    joined: dict[str, str]

    def ours(self) -> list[tuple[re.Pattern[str], str]]:
        """Patterns of their names with our names for them."""
        named = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in self.parts.items()
                 for kind in ("weight", "bias")} | self.joined  # fmt: skip
        return [
            (re.compile(re.escape(theirs).replace(r"\{\}", r"(\d+)")), ours) for theirs, ours in named.items()
        ]


_BLOCK = "encoder.blocks.{}"

TIMM = Names(
    "timm",
    {
        "patch_embed.proj": "adapter.patches.embed",
        "blocks.{}.norm1": f"{_BLOCK}.attention_norm",
        "blocks.{}.attn.qkv": f"{_BLOCK}.attention.qkv_proj",
        "blocks.{}.attn.proj": f"{_BLOCK}.attention.out_proj",
        "blocks.{}.norm2": f"{_BLOCK}.feed_forward_norm",
        "blocks.{}.mlp.fc1": f"{_BLOCK}.feed_forward.0",
        "blocks.{}.mlp.fc2": f"{_BLOCK}.feed_forward.3",
        "norm": "encoder.norm",
        "fc_norm": "head.norm",
        "head": "head.linear",
    },
    class_token="cls_token",
    registers="reg_token",
    positions="pos_embed",
    joined={},
)

_LAYER = "encoder.layers.encoder_layer_{}"

TORCHVISION = Names(
    "torchvision",
    {
        "conv_proj": "adapter.patches.embed",
        f"{_LAYER}.ln_1": f"{_BLOCK}.attention_norm",
        f"{_LAYER}.self_attention.out_proj": f"{_BLOCK}.attention.out_proj",
        f"{_LAYER}.ln_2": f"{_BLOCK}.feed_forward_norm",
        f"{_LAYER}.mlp.0": f"{_BLOCK}.feed_forward.0",
        f"{_LAYER}.mlp.3": f"{_BLOCK}.feed_forward.3",
        "encoder.ln": "encoder.norm",
        "heads.head": "head.linear",
    },
    class_token="class_token",
    registers="",
    positions="encoder.pos_embedding",
    joined={
        f"{_LAYER}.self_attention.in_proj_weight": f"{_BLOCK}.attention.qkv_proj.weight",
        f"{_LAYER}.self_attention.in_proj_bias": f"{_BLOCK}.attention.qkv_proj.bias",
    },
)

_SCALE = re.compile(r"blocks\.(\d+)\.ls([12])\.gamma")
_OLD_MLP = re.compile(r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_([12])\.(weight|bias)")


def to_ours(
    state: State, names: Names, prefix_on_grid: bool | None = None, grid: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """A state with our names. What stands in front of the patches gets its position added, since ours have none;
    layer scales (CaiT, DeiT III, DINOv2) are multiplied into the projections before them.

    Args:
        state: theirs.
        names: how they name it.
        prefix_on_grid: whether the positions begin with those of the tokens in front; ``None`` finds out by
            whether the rest is the grid, or a square where no grid is given.
        grid: rows and columns of the positions.

    Raises:
        ValueError: there is a part that ours has not; all of them are named.
    """
    state = {_OLD_MLP.sub(_new_mlp, name): value for name, value in state.items()}
    scales = {name: state.pop(name) for name in list(state) if _SCALE.fullmatch(name)}
    front = [state.pop(name)[0] for name in (names.class_token, names.registers) if name in state]
    table = state.pop(names.positions)[0] if names.positions in state else None
    found = _renamed(state, names)
    for name, gamma in scales.items():
        _multiply(found, name, gamma)
    prefix = torch.cat(front) if front else None
    if table is not None:
        count = 0 if prefix is None else len(prefix)
        if prefix_on_grid is None:
            cells = len(table) - count
            prefix_on_grid = _is_square(cells) if grid is None else cells == grid[0] * grid[1]
        if prefix is not None and prefix_on_grid:
            prefix, table = prefix + table[:count], table[count:]
        found["adapter.positions.table"] = table
    if prefix is not None:
        found["adapter.prefix.table"] = prefix
    return found


def to_theirs(state: State, names: Names) -> dict[str, Tensor]:
    """A state of ours with their names; positions of what stands in front are zeros, since it has them already.

    Raises:
        ValueError: there is a part that theirs has not.
    """
    state = dict(state)
    prefix, table = state.pop("adapter.prefix.table", None), state.pop("adapter.positions.table", None)
    back = {ours: theirs for theirs, ours in names.parts.items()}
    joined = {ours: theirs for theirs, ours in names.joined.items()}
    found = {}
    for name, value in state.items():
        general = re.sub(r"(?<=encoder\.blocks\.)\d+", "{}", name)
        number = re.findall(r"(?<=encoder\.blocks\.)\d+", name)
        part, _, kind = general.rpartition(".")
        theirs = joined.get(general) or (f"{back[part]}.{kind}" if part in back else "")
        if not theirs:
            raise ValueError(f"to_{names.library} cannot carry {name}: {names.library} has no such part")
        found[theirs.format(*number)] = value
    rows = []
    if prefix is not None:
        rows.append(torch.zeros_like(prefix))
        found[names.class_token] = prefix[None, :1]
        if len(prefix) > 1:
            if not names.registers:
                raise ValueError(f"to_{names.library} cannot carry registers: got {len(prefix) - 1}")
            found[names.registers] = prefix[None, 1:]
    if table is not None:
        found[names.positions] = torch.cat([*rows, table.flatten(0, -2)])[None]
    return found


def _renamed(state: State, names: Names) -> dict[str, Tensor]:
    """The same tensors with our names."""
    found: dict[str, Tensor] = {}
    unknown = []
    patterns = names.ours()
    for name, value in state.items():
        for pattern, ours in patterns:
            if matched := pattern.fullmatch(name):
                found[ours.format(*matched.groups())] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"from_{names.library} takes the plain vision transformer: got also {', '.join(unknown[:5])}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        )
    return found


def _multiply(found: dict[str, Tensor], name: str, gamma: Tensor) -> None:
    """Put a layer scale into the projection before it."""
    matched = _SCALE.fullmatch(name)
    assert matched is not None
    number, which = matched.groups()
    part = f"encoder.blocks.{number}." + ("attention.out_proj" if which == "1" else "feed_forward.3")
    for kind in ("weight", "bias"):
        if f"{part}.{kind}" in found:
            value = found[f"{part}.{kind}"]
            found[f"{part}.{kind}"] = value * (gamma[:, None] if value.ndim == 2 else gamma)


def _new_mlp(matched: re.Match[str]) -> str:
    """torchvision's name of a feed-forward layer since version 0.12."""
    part, number, kind = matched.groups()
    return f"{part}.{3 * (int(number) - 1)}.{kind}"


def _is_square(count: int) -> bool:
    return count > 0 and round(count**0.5) ** 2 == count
