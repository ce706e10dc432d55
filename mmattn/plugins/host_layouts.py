"""Where the heads of other libraries' attention lie: known by the names and the source of its parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from mmattn.plugins.cuts import (
    Block,
    Cut,
    Heads,
    Layout,
    NoLayoutError,
    features,
    heads_of,
    projection,
    rows,
    width_of,
)
from mmattn.plugins.find import class_name
from mmattn.plugins.layout_names import (
    BLOCKS,
    BY_HEAD,
    CHECKED,
    FUSED,
    IN_BLOCKS,
    LATER_NORMS,
    NARROW,
    OUT,
    PAIR_IN_BLOCKS,
    PAIRS,
    TABLES,
    TRIPLES,
)
from mmattn.plugins.site import HEADS


def host_layout(model: nn.Module, name: str, module: nn.Module, kind: str) -> Layout:
    """The layout of a module of another library.

    Raises:
        NoLayoutError: it is not known.
    """
    heads = heads_of(module)
    source = _source(type(module))
    cuts, width = _projections(module, heads, kind, source)
    out = _first(module, OUT) or _beside(model, name)
    if out is None:
        raise NoLayoutError("its output projection was not found")
    cuts += features(out, (Block(_value_width(cuts)),), 1)
    gate = getattr(module, "gate", None)
    if isinstance(gate, nn.Linear):
        cuts += features(gate, (Block(width),), 0)
    cuts += tables(module, heads)
    _check_norms(module, heads, width)
    if HEADS not in module.__dict__:
        heads.narrow = _can_be_narrow(model, kind, source) and not _left_over(module, cuts, width)
    for cut in cuts:
        _check_length(cut, heads)
    counts = _counts(module, heads, width) if heads.narrow else {}
    return Layout(cuts, heads, counts, kind in CHECKED or is_plain(source))


def _projections(module: nn.Module, heads: Heads, kind: str, source: str) -> tuple[list[Cut], int]:
    """Cuts of queries, keys and values, and the width of a head's queries."""
    now = len(heads.rest)
    for names in TRIPLES:
        parts = [projection(module, name) for name in names]
        if all(part is not None for part in parts):
            q, k, v = (part for part in parts if part is not None)
            width = width_of(rows(q), now)
            _set_groups(module, heads, width_of(rows(k), len(heads.rest_kv)), width)
            value = Block(width_of(rows(v), len(heads.rest_kv)), True)
            cuts = features(q, (Block(width),), 0) + features(k, (Block(width, True),), 0)
            return cuts + features(v, (value,), 0), width
    for first, second in PAIRS:
        q_part, kv_part = projection(module, first), projection(module, second)
        if q_part is not None and kv_part is not None:
            width = width_of(rows(q_part), now)
            if rows(kv_part) != 2 * width * now or not PAIR_IN_BLOCKS.search(source):
                raise NoLayoutError("its keys and values are not laid out in a way that is known")
            cuts = features(q_part, (Block(width),), 0)
            return cuts + features(kv_part, (Block(width, True), Block(width, True)), 0), width
    fused = _first(module, FUSED)
    if fused is None:
        raise NoLayoutError("its projections are not laid out in a way that is known")
    width = width_of(rows(fused), 3 * now)
    return features(fused, _fused_blocks(module, kind, source, width), 0), width


def _set_groups(module: nn.Module, heads: Heads, found: int, width: int) -> None:
    """Fewer heads of keys than of queries, in a module that has lost none yet."""
    if found == width:
        return
    kv = found * heads.total_kv // width
    if HEADS in module.__dict__ or kv < 1 or kv * width != found * heads.total_kv or heads.total % kv:
        raise NoLayoutError(
            f"its keys have {found * heads.total_kv} features, which are not heads of {width}"
        )
    heads.total_kv, heads.rest_kv = kv, list(range(kv))


def _fused_blocks(module: nn.Module, kind: str, source: str, width: int) -> tuple[Block, ...]:
    by_head = bool(BY_HEAD.search(source))
    in_blocks = bool(IN_BLOCKS.search(source)) or kind in BLOCKS or (not by_head and "chunk(" in source)
    if by_head and in_blocks and hasattr(module, "head_first"):
        by_head = bool(module.head_first)
        in_blocks = not by_head
    if by_head == in_blocks:
        raise NoLayoutError("the order of queries, keys and values in its projection is not known")
    return (Block(3 * width),) if by_head else (Block(width), Block(width, True), Block(width, True))


def _first(module: nn.Module, names: Iterable[str]) -> nn.Module | None:
    return next((part for part in (projection(module, name) for name in names) if part is not None), None)


def _beside(model: nn.Module, name: str) -> nn.Module | None:
    """The output projection of families that keep it in a module beside: ``output.dense``."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return projection(getattr(parent, "output", nn.Identity()), "dense")


def _value_width(cuts: list[Cut]) -> int:
    block = cuts[-1].blocks[-1]
    return block.width if block.of_keys else block.width // 3


def tables(module: nn.Module, heads: Heads) -> list[Cut]:
    """Cuts of the tensors that have a place for each head."""
    cuts = []
    for path, dim in TABLES.items():
        place, _, name = path.rpartition(".")
        try:
            owner = module.get_submodule(place)
        except AttributeError:
            continue
        tensor = owner._parameters.get(name)
        if place == "rel_pos" and not class_name(type(owner)).endswith(".RelPosBias"):
            continue  # others keep a table of the same name with other axes
        if tensor is not None:
            width = width_of(tensor.shape[dim], len(heads.rest))
            cuts.append(Cut(owner, name, dim, (Block(width),)))
    return cuts


def _check_norms(module: nn.Module, heads: Heads, width: int) -> None:
    """A norm over all heads at once would see other numbers with fewer of them."""
    whole = {heads.total * width, heads.total_kv * width} - {width}
    for name, part in module.named_children():
        weight = part._parameters.get("weight")
        if "norm" not in name.lower() or name in LATER_NORMS or _is_elsewhere(module) or weight is None:
            continue
        if weight.numel() in whole:
            raise NoLayoutError(f"its {name} norms all heads together")


def _is_elsewhere(module: nn.Module) -> bool:
    """Whether the norm of a module is that of its reduced tokens, or of what it pools."""
    pools = class_name(type(module)) == "timm.layers.attention_pool.AttentionPoolLatent"
    return hasattr(module, "sr") or pools


def _left_over(module: nn.Module, cuts: list[Cut], width: int) -> bool:
    """Whether a module has parameters that may count heads and are not cut."""
    known = {(id(cut.owner), cut.name) for cut in cuts} | {(id(cut.owner), "bias") for cut in cuts}
    return any(
        (id(owner), name) not in known and tensor is not None and tensor.numel() != width
        for owner in module.modules()
        for name, tensor in owner._parameters.items()
    )


def _can_be_narrow(model: nn.Module, kind: str, source: str) -> bool:
    """Whether a class takes the number of its heads from its projections or its own attributes."""
    if kind in NARROW:
        return True
    if not is_plain(source) or "position_bias" in source or "self.config.num" in source:
        return False
    # a bias for all heads that is made elsewhere and handed in
    return not any(re.search("position_bias|rel_pos|alibi", name) for name, _ in _named(model))


def is_plain(source: str) -> bool:
    """Whether a class of transformers cuts heads by their width and joins them one after the other."""
    return "(*input_shape, -1, self." in source and "reshape(*input_shape, -1)" in source


def _named(model: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from model.named_modules()
    yield from model.named_parameters()
    yield from model.named_buffers()


def _counts(module: nn.Module, heads: Heads, width: int) -> dict[str, str | int]:
    """Attributes that count heads or their features, and what they count."""
    now, now_kv = len(heads.rest), len(heads.rest_kv)
    known: list[tuple[tuple[str, ...], str | int, int]] = [
        (("num_heads", "num_attention_heads", "n_heads", "n_head", "heads"), "heads", now),
        (("num_kv_heads", "num_key_value_heads"), "kv", now_kv),
        (("num_kv_groups", "num_key_value_groups"), "groups", now // now_kv),
        (("attn_dim", "all_head_size", "inner_dim", "split_size"), width, now * width),
    ]
    return {
        name: what
        for names, what, value in known
        for name in names
        if isinstance(module.__dict__.get(name), int) and module.__dict__[name] == value
    }


def _check_length(cut: Cut, heads: Heads) -> None:
    tensor = cut.tensor
    assert tensor is not None
    wanted = cut.size(len(heads.rest), len(heads.rest_kv))
    if tensor.shape[cut.dim] != wanted:
        raise NoLayoutError(
            f"its {cut.name} has {tensor.shape[cut.dim]} places where its heads make {wanted}"
        )


def _source(kind: Any) -> str:
    kind = getattr(kind, "plugged_kind", kind)
    found = []
    for base in kind.__mro__:
        if base is nn.Module:
            break
        if "gap_names" in vars(base):
            continue
        try:
            found.append(inspect.getsource(base))
        except (OSError, TypeError):
            continue
        if "forward" in vars(base):
            break
    return "".join(found)
