"""Activations for a backward pass, saved where autograd knows of them.

What merely hangs on the context of a node is out of its sight: a change in place goes unnoticed, memory is kept
until the graph goes, and hooks on saved tensors (checkpoints, moves to another memory) never see it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class _Place(NamedTuple):
    """Stands for a tensor: its place among those saved."""

    number: int


def save(ctx: Any, activations: Any) -> None:
    """Save all tensors of nested tuples and lists; what else they hold is kept as it is."""
    tensors: list[Tensor] = []
    ctx.activations = _emptied(activations, tensors)
    ctx.save_for_backward(*tensors)


def restore(ctx: Any) -> Any:
    """What :func:`save` was given."""
    return _filled(ctx.activations, ctx.saved_tensors)


def _emptied(tree: Any, tensors: list[Tensor]) -> Any:
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return _Place(len(tensors) - 1)
    return _rebuilt(tree, [_emptied(x, tensors) for x in tree]) if isinstance(tree, (tuple, list)) else tree


def _filled(tree: Any, tensors: tuple[Tensor, ...]) -> Any:
    if isinstance(tree, _Place):
        return tensors[tree.number]
    return _rebuilt(tree, [_filled(x, tensors) for x in tree]) if isinstance(tree, (tuple, list)) else tree


def _rebuilt(tree: Any, items: list[Any]) -> Any:
    """The items in a tuple, named tuple or list as ``tree`` is one."""
    return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
