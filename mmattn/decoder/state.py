"""What a decoder keeps between steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmattn.attention import MultiHeadAttention
from mmattn.cache import KVCache, Memory, checked_rows


class DecoderState:
    """What a decoder keeps between steps; :meth:`Decoder.start` makes one.

    Attributes:
        caches: keys and values of the tokens so far, one cache for each block.
        memories: keys and values of the context, one for each block; empty without a context.
        length: tokens so far.
        batch_size: sequences B; None while nothing has been decoded and nothing told it.
    """

    def __init__(
        self, caches: Sequence[KVCache], memories: Sequence[Memory] = (), batch_size: int | None = None
    ) -> None:
        self.caches = list(caches)
        self.memories = list(memories)
        self.batch_size = batch_size
        self.length = 0
        # rotary tables [L, P, 2] by module and head width
        self._tables: dict[tuple[int, int], Tensor] = {}
        # the row of each sequence among the contexts as they were when the memories were last taken
        self._sources = None if not memories else list(range(memories[0].batch_size))

    def select(self, rows: Tensor | Sequence[int]) -> None:
        """Keep the sequences with these indices, in this order, some perhaps twice (beam search).

        Memories are left alone where every sequence goes on with the context it had, as among the beams of one
        context.

        Raises:
            ValueError: an index is outside the batch.
        """
        index = checked_rows(rows, self.batch_size)
        order = index.tolist()
        if order == list(range(self.batch_size or 0)):
            return
        for cache in self.caches:
            cache.select(index)
        if self._sources is not None:
            sources = [self._sources[row] for row in order]
            if sources != self._sources:
                self.memories = [memory.select(index) for memory in self.memories]
                self._sources = sources
        self.batch_size = len(order)

    def tables_of(self, attention: MultiHeadAttention, x: Tensor) -> Tensor:
        """Rotary tables ``[N, P, 2]`` of the next tokens ``[B, N, D]``, cut from tables made for many steps."""
        assert attention.positions is not None
        key, end = (id(attention.positions), attention.head_dim), self.length + x.shape[1]
        if key not in self._tables or len(self._tables[key]) < end:
            room = max(64, 2 * end, self.caches[0].capacity or 0)
            coords = torch.arange(room, device=x.device)[:, None]
            self._tables[key] = attention.positions.tables(coords, attention.head_dim, x.dtype)
        return self._tables[key][self.length : end]

    def __repr__(self) -> str:
        memory = ", with a context" if self.memories else ""
        return f"DecoderState(batch_size={self.batch_size}, length={self.length}{memory})"
