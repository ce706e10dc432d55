"""A padded batch as a model takes it, with other content in its padding, with more of it, or without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mmattn.tokens import TokenBatch


class Axes(NamedTuple):
    """What the axes of one input are.

    Attributes:
        batch: the axis of sequences; None where all share the input.
        folded: rows of that axis to each sequence: 1, or H where heads are folded into it.
        tokens: the axes of tokens, as long as the padding makes them.
        is_mask: whether it says where the padding is, rather than holding something there.
    """

    batch: int | None
    folded: int
    tokens: tuple[int, ...]
    is_mask: bool


class PaddedBatch:
    """Inputs of a model with padding behind the sequences.

    Args:
        inputs: a tensor, a tuple of arguments or a mapping of keyword arguments; of tensors and anything else.
        lengths: ``[B]``, tokens of each sequence; None takes them from the inputs: integers ``[B]``, or a mask
            ``[B, T]``.

    Raises:
        ValueError: the lengths are neither given nor found, do not differ, or fit no axis of the inputs.
    """

    def __init__(self, inputs: Any, lengths: Tensor | Sequence[int] | None = None) -> None:
        given = inputs if isinstance(inputs, (tuple, Mapping)) else (inputs,)
        self.spec: TreeSpec
        self.leaves, self.spec = tree_flatten(dict(given) if isinstance(given, Mapping) else tuple(given))
        self.named = isinstance(given, Mapping)
        found = _found_lengths(self.leaves) if lengths is None else torch.as_tensor(lengths)
        self.lengths: list[int] = [int(n) for n in found]
        if len(set(self.lengths)) < 2:
            raise ValueError(f"a padded batch must have sequences of different lengths: got {self.lengths}")
        self.size = _padded_size(self.leaves, self.lengths)
        self.axes = [self._axes(leaf) for leaf in self.leaves]

    @property
    def can_vary(self) -> bool:
        """Whether there is padding to vary: token batches have none."""
        return any(axes is not None and axes.tokens and not axes.is_mask for axes in self.axes)

    def call(self, model: Any) -> Any:
        """The model's result, for copies of the inputs."""
        leaves = [x.clone() if isinstance(x, Tensor) else x for x in self.leaves]
        given = tree_unflatten(leaves, self.spec)
        return model(**given) if self.named else model(*given)

    def alone(self, row: int) -> PaddedBatch:
        """One sequence without padding."""
        row %= len(self.lengths)
        return self._with(
            [self._cut(leaf, axes, row) for leaf, axes in zip(self.leaves, self.axes, strict=True)]
        )

    def refilled(self) -> PaddedBatch:
        """The batch with noise, or other tokens of the batch, in the padding."""
        numbers = torch.Generator().manual_seed(0)
        leaves = []
        for leaf, axes in zip(self.leaves, self.axes, strict=True):
            if axes is None or axes.is_mask or axes.batch is None or not axes.tokens:
                leaves.append(leaf)
                continue
            if leaf.is_floating_point():
                noise = torch.randn(leaf.shape, generator=numbers).to(leaf) * leaf.std() * 3
            else:
                drawn = torch.randint(leaf.numel(), leaf.shape, generator=numbers)
                noise = leaf.flatten()[drawn.to(leaf.device)]
            leaves.append(torch.where(self._valid(leaf, axes), leaf, noise))
        return self._with(leaves)

    def with_mate(self, more: int) -> PaddedBatch:
        """The batch and one more sequence, which has ``more`` tokens than all others have room for.

        Raises:
            ValueError: an input cannot be made longer: a mask between tokens.
        """
        longest, size = self.lengths.index(max(self.lengths)), self.size + more
        leaves = []
        for leaf, axes in zip(self.leaves, self.axes, strict=True):
            if axes is None or (axes.batch is None and not axes.tokens):
                leaves.append(leaf)
                continue
            if axes.batch is None or axes.folded > 1 or len(axes.tokens) > 1:
                raise ValueError(
                    f"more must be 0 where a mask between tokens is given: got one of {list(leaf.shape)}"
                )
            leaves.append(self._longer(leaf, axes, longest, size))
        other = self._with(leaves)
        other.lengths, other.size = [*self.lengths, size], size
        return other

    def _longer(self, leaf: Tensor, axes: Axes, longest: int, size: int) -> Tensor:
        assert axes.batch is not None
        last = leaf.narrow(axes.batch, longest, 1)
        if not axes.tokens:
            is_length = leaf.ndim == 1 and leaf.tolist() == self.lengths
            return torch.cat([leaf, torch.full_like(last, size) if is_length else last], axes.batch)
        axis, length = axes.tokens[0], self.lengths[longest]
        places = torch.arange(size, device=leaf.device) % length  # the longest sequence, over and over
        shape = list(leaf.shape)
        shape[axis] = size - self.size
        behind = leaf.new_zeros(shape)
        if axes.is_mask:
            shortest = self.lengths.index(min(self.lengths))
            behind = leaf.narrow(axes.batch, shortest, 1).narrow(axis, self.size - 1, 1).expand(shape)
        return torch.cat([torch.cat([leaf, behind], axis), last.index_select(axis, places)], axes.batch)

    def _with(self, leaves: list[Any]) -> PaddedBatch:
        other = object.__new__(PaddedBatch)
        other.__dict__.update(self.__dict__, leaves=leaves)
        return other

    def _cut(self, leaf: Any, axes: Axes | None, row: int) -> Any:
        if isinstance(leaf, TokenBatch):
            return leaf.split()[row]
        if axes is None:
            return leaf
        if axes.batch is not None:
            leaf = leaf.narrow(axes.batch, row * axes.folded, axes.folded)
        for axis in axes.tokens:
            leaf = leaf.narrow(axis, 0, self.lengths[row])
        return leaf

    def _valid(self, leaf: Tensor, axes: Axes) -> Tensor:
        """``leaf``-shaped, True where a sequence has tokens."""
        assert axes.batch is not None
        lengths = torch.tensor(self.lengths, device=leaf.device).repeat_interleave(axes.folded)
        valid = torch.ones(leaf.shape, dtype=torch.bool, device=leaf.device)
        for axis in axes.tokens:
            places = torch.arange(self.size, device=leaf.device)
            shape = [1] * leaf.ndim
            shape[axes.batch], shape[axis] = len(lengths), self.size
            inside = places < lengths[:, None]
            valid &= (inside if axes.batch < axis else inside.T).reshape(shape)
        return valid

    def _axes(self, leaf: Any) -> Axes | None:
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            return None
        count = len(self.lengths)
        batch = next((axis for axis in range(min(2, leaf.ndim)) if leaf.shape[axis] == count), None)
        tokens = [axis for axis, size in enumerate(leaf.shape) if size == self.size and axis != batch]
        folded = 1
        if batch is None and leaf.ndim == 3 and tokens == [1, 2] and leaf.shape[0] % count == 0:
            batch, folded = 0, leaf.shape[0] // count
        if leaf.ndim == 3 and batch is not None and folded == 1:
            tokens = tokens[:1]  # the features happen to be as many
        is_mask = bool(tokens) and (len(tokens) > 1 or _is_mask(leaf, self.lengths))
        return Axes(batch, folded, tuple(tokens), is_mask)


def _is_mask(x: Tensor, lengths: list[int]) -> bool:
    """Whether a tensor says where the padding is: one value for all tokens, another behind them."""
    if x.dtype == torch.bool or batch_free(x, lengths):
        return True
    if x.ndim != 2 or len(x) != len(lengths):
        return False
    inside = torch.cat([row[:n] for row, n in zip(x, lengths, strict=True)])
    return bool((inside == inside[0]).all())


def batch_free(x: Tensor, lengths: list[int]) -> bool:
    """Whether a tensor is shared by all sequences, as a mask of queries and keys is."""
    return x.ndim == 2 and x.shape[0] == x.shape[1] and x.shape[0] != len(lengths)


def _found_lengths(leaves: list[Any]) -> Tensor:
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    for x in leaves:
        if isinstance(x, TokenBatch):
            return x.lengths
    for x in tensors:
        if x.ndim == 1 and not x.is_floating_point() and x.dtype != torch.bool:
            return x
    for x in tensors:
        if x.ndim == 2 and len(x) > 1 and not batch_free(x, [0] * len(tensors[0])):
            same = (x == x[:, :1]).cumprod(1).sum(1)
            behind = torch.arange(x.shape[1], device=x.device) >= same[:, None]
            two = x.unique()
            if len(two) == 2 and bool((x[:, 0] == x[0, 0]).all()) and bool(((x != x[0, 0]) == behind).all()):
                return same
    raise ValueError(
        "lengths must be given, or found in the inputs as integers [B] or a mask [B, T]: got neither"
    )


def _padded_size(leaves: list[Any], lengths: list[int]) -> int:
    """T: the longest sequence, or what the inputs are padded to beyond it."""
    if any(isinstance(x, TokenBatch) for x in leaves):
        return -1
    sizes = {
        size
        for x in leaves
        if isinstance(x, Tensor) and x.ndim > 1
        for axis, size in enumerate(x.shape)
        if size >= max(lengths) and not (axis == 0 and size == len(lengths))
    }
    if max(lengths) in sizes:
        return max(lengths)
    if len(sizes) != 1:
        raise ValueError(
            f"one axis of the inputs must hold up to {max(lengths)} tokens: got axes of {sorted(sizes)}"
        )
    return sizes.pop()
