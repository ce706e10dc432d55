"""Keys and values kept between calls: of the tokens decoded so far, and of a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Tokens that a growing cache has room for at first.
_FIRST_ROOM = 64


@dataclass(frozen=True, eq=False)
class Memory:
    """Projected keys and values of a context; :meth:`mmattn.MultiHeadAttention.remember` makes one.

    Attributes:
        k, v: packed ``[T, H_kv, K]`` or dense ``[B, M, H_kv, K]``.
        sizes: lengths of the sequences when packed, else None.
        coords: where the tokens stand, ``[T, A]`` or ``[M, A]``.
    """

    k: Tensor
    v: Tensor
    sizes: tuple[int, ...] | None
    coords: Tensor

    @property
    def batch_size(self) -> int:
        """Sequences B."""
        return len(self.k) if self.sizes is None else len(self.sizes)

    def select(self, rows: Tensor | Sequence[int]) -> Memory:
        """The sequences with these indices, in this order, some perhaps twice (beam search).

        Raises:
            ValueError: an index is outside the batch.
        """
        index = checked_rows(rows, self.batch_size)
        if self.sizes is None:
            where = index.to(self.k.device)
            k, v = (x.transpose(1, 2).index_select(0, where).transpose(1, 2) for x in (self.k, self.v))
            return Memory(k, v, None, self.coords)
        sizes = torch.tensor(self.sizes, dtype=torch.long)
        chosen = sizes[index]
        shift = (sizes.cumsum(0) - sizes)[index] - (chosen.cumsum(0) - chosen)
        places = torch.arange(int(chosen.sum())) + shift.repeat_interleave(chosen)
        places = places.to(self.k.device)
        k, v, coords = (x.index_select(0, places) for x in (self.k, self.v, self.coords))
        return Memory(k, v, tuple(chosen.tolist()), coords)


class KVCache:
    """Keys and values of the tokens seen so far, one cache for each layer (incremental decoding).

    Tensors that :meth:`append` returned are never written to again: room is taken anew when it is used up,
    for at least as many tokens again, so that growing copies each token less than twice on average.

    Args:
        capacity: tokens that it has room for, taken at once on first use; ``None`` grows by doubling.
        window: keep only what a sliding window of this many tokens needs, however long decoding goes on.

    Raises:
        ValueError: a number is below 1, or both are given.

    Example:
        >>> cache = KVCache()
        >>> k, v = cache.append(torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8))
        >>> k, v = cache.append(torch.randn(2, 1, 4, 8), torch.randn(2, 1, 4, 8))
        >>> k.shape, cache.length
        (torch.Size([2, 4, 4, 8]), 4)
    """

    def __init__(self, capacity: int | None = None, window: int | None = None) -> None:
        if capacity is not None and window is not None:
            raise ValueError(f"give capacity or window, not both: got capacity={capacity}, window={window}")
        for name, number in (("capacity", capacity), ("window", window)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1: got {number}")
        self.capacity = capacity
        self.window = window
        #: tokens seen so far
        self.length = 0
        # each [B, H_kv, room, K]: heads first, so that the keys of one head lie together
        self._kept: tuple[Tensor, Tensor] | None = None
        self._begin = self._end = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens, ``[B, N, H_kv, K]``.

        Returns:
            Keys and values of all tokens that the new ones may attend to, views ``[B, M, H_kv, K]``: those of
            all tokens so far; with a window those of the last ``window - 1`` before the first new one, and of
            the new ones. The queries are their tail, so the mask ``Causal()``, or
            ``Causal() & Window(window - 1, 0)``, holds for any number of new tokens.

        Raises:
            ValueError: they do not fit those before, exceed the capacity, or want gradients.
        """
        self._check(k, v)
        new = k.shape[1]
        if self.window is not None:
            self._begin = max(self._begin, self._end - self.window + 1)
        kept = self._kept
        if kept is None or self._end + new > kept[0].shape[2]:
            kept = self._with_room(k)
        kept[0].narrow(2, self._end, new).copy_(k.transpose(1, 2))
        kept[1].narrow(2, self._end, new).copy_(v.transpose(1, 2))
        self._end += new
        self.length += new
        begin, count = self._begin, self._end - self._begin
        return kept[0].narrow(2, begin, count).transpose(1, 2), kept[1].narrow(2, begin, count).transpose(
            1, 2
        )

    def select(self, rows: Tensor | Sequence[int]) -> None:
        """Keep the sequences with these indices, in this order, some perhaps twice (beam search).

        Raises:
            ValueError: an index is outside the batch.
        """
        if self._kept is None:
            return
        of_k, of_v = self._kept
        index = checked_rows(rows, len(of_k)).to(of_k.device)
        self._kept = self._picked(of_k, index), self._picked(of_v, index)

    def _picked(self, old: Tensor, index: Tensor) -> Tensor:
        """The sequences with these indices; of the room, only what is in use is copied."""
        fresh = old.new_empty(len(index), *old.shape[1:])
        used = slice(self._begin, self._end)
        torch.index_select(old[:, :, used], 0, index, out=fresh[:, :, used])
        return fresh

    def _with_room(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Take room for the tokens kept and the new ones, and move the former there."""
        batch, new, heads, width = like.shape
        count = self._end - self._begin
        room = self.capacity or max(_FIRST_ROOM, 2 * (count + new))
        fresh = like.new_empty(batch, heads, room, width), like.new_empty(batch, heads, room, width)
        if self._kept is not None:
            for old, target in zip(self._kept, fresh, strict=True):
                target[:, :, :count] = old[:, :, self._begin : self._end]
        self._kept, self._begin, self._end = fresh, 0, count
        return fresh

    def _check(self, k: Tensor, v: Tensor) -> None:
        if k.shape != v.shape or k.ndim != 4:
            raise ValueError(f"k and v must both be [B, N, H_kv, K]: got {list(k.shape)} and {list(v.shape)}")
        if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
            raise ValueError(
                "a cache is for decoding without gradients, in torch.no_grad() or torch.inference_mode(): "
                "got keys that require one"
            )
        if self.capacity is not None and self.length + k.shape[1] > self.capacity:
            raise ValueError(
                f"a cache of capacity {self.capacity} is full: got {self.length} + {k.shape[1]} tokens"
            )
        if self._kept is None:
            return
        kept = self._kept[0]
        batch, heads, _, width = kept.shape
        if k.shape[0] != batch or k.shape[2] != heads or k.shape[3] != width:
            raise ValueError(
                f"new keys must fit those kept, [{batch}, N, {heads}, {width}]: got {list(k.shape)}"
            )
        if k.dtype != kept.dtype or k.device != kept.device:
            raise ValueError(
                f"new keys must fit those kept, {kept.dtype} on {kept.device}: got {k.dtype} on {k.device}"
            )

    def __repr__(self) -> str:
        limit = "" if self.capacity is None else f", capacity={self.capacity}"
        limit += "" if self.window is None else f", window={self.window}"
        return f"KVCache(length={self.length}{limit})"


def checked_rows(rows: Tensor | Sequence[int], batch_size: int | None) -> Tensor:
    """Indices of sequences as int64 ``[B]``.

    Raises:
        ValueError: they are not one-dimensional integers, or one lies outside the batch.
    """
    index = torch.as_tensor(rows)
    if index.numel() == 0:
        index = index.long()
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"rows must be indices [B]: got {index.dtype} {list(index.shape)}")
    index = index.long().cpu()
    low, high = (int(end) for end in index.aminmax()) if index.numel() else (0, 0)
    if low < 0 or (batch_size is not None and index.numel() and high >= batch_size):
        raise ValueError(f"rows must lie between 0 and {(batch_size or 0) - 1}: got {low} to {high}")
    return index
