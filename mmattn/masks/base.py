"""What a pattern of attention is, and how two are combined. True = may attend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Pairs of a query and a key that a pattern is asked about; all tensors broadcast to one another.

    Attributes:
        query, key: positions in the sequence, integers.
        num_queries, num_keys: tokens on either side.
        query_coords, key_coords: coordinates ``[..., A]`` of the queries and keys, where the call has any.
        sequence: which sequence of the batch, integers; None where only one is meant.
    """

    query: Tensor
    key: Tensor
    num_queries: int
    num_keys: int
    query_coords: Tensor | None = None
    key_coords: Tensor | None = None
    sequence: Tensor | None = None


class Band(NamedTuple):
    """Query i may attend to the keys from ``i + low`` to ``i + high``, both included; None: no limit."""

    low: int | None
    high: int | None


class Pattern(ABC):
    """A rule over pairs of queries and keys.

    Patterns are frozen, comparable and printable. ``a & b`` allows what both allow, ``a | b`` what either does.

    Example:
        >>> from mmattn.masks import Causal, Window
        >>> Causal() & Window(1, 0)
        And(Causal(align='bottom-right'), Window(left=1, right=0))
        >>> (Causal() & Window(1, 0)).dense(3, 3).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """

    #: True when the answer depends on which sequence of the batch is asked about.
    per_sequence = False
    #: True when the answer depends on the coordinates of the tokens rather than their order.
    uses_coords = False

    @abstractmethod
    def allowed(self, pairs: Pairs) -> Tensor:
        """Whether the queries may attend to the keys: boolean, of a shape that broadcasts to the pairs."""

    def band(self, num_queries: int, num_keys: int) -> Band | None:
        """The band of keys that each query sees, where the pattern is no more than that."""
        return None

    def select(self, sequences: Sequence[int]) -> Pattern:
        """The pattern for the sequences with these indices, in this order."""
        return self

    def dense(
        self,
        num_queries: int,
        num_keys: int,
        device: torch.device | str = "cpu",
        *,
        query_coords: Tensor | None = None,
        key_coords: Tensor | None = None,
    ) -> Tensor:
        """The pattern as a boolean tensor, ``[N, M]``, or ``[B, 1, N, M]`` when it differs between sequences.

        Coordinates are ``[N, A]`` and ``[M, A]`` or ``[B, N, A]`` and ``[B, M, A]``.

        Raises:
            ValueError: the pattern needs coordinates or other numbers of tokens.
        """
        pairs = Pairs(
            torch.arange(num_queries, device=device)[:, None],
            torch.arange(num_keys, device=device)[None, :],
            num_queries,
            num_keys,
            None if query_coords is None else query_coords[..., :, None, :],
            None if key_coords is None else key_coords[..., None, :, :],
        )
        drawn = self.allowed(pairs)
        drawn = drawn.expand(*drawn.shape[:-2], num_queries, num_keys)
        return drawn if drawn.ndim == 2 else drawn[:, None]

    def __and__(self, other: Pattern) -> Pattern:
        return And(self, other)

    def __or__(self, other: Pattern) -> Pattern:
        return Or(self, other)


@dataclass(frozen=True)
class _Pair(Pattern):
    first: Pattern
    second: Pattern

    @property
    def per_sequence(self) -> bool:  # type: ignore[override]  # a class constant elsewhere, derived here
        return self.first.per_sequence or self.second.per_sequence

    @property
    def uses_coords(self) -> bool:  # type: ignore[override]
        return self.first.uses_coords or self.second.uses_coords

    def select(self, sequences: Sequence[int]) -> Pattern:
        return type(self)(self.first.select(sequences), self.second.select(sequences))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.first!r}, {self.second!r})"


@dataclass(frozen=True, repr=False)
class And(_Pair):
    """What both patterns allow."""

    def allowed(self, pairs: Pairs) -> Tensor:
        return self.first.allowed(pairs) & self.second.allowed(pairs)

    def band(self, num_queries: int, num_keys: int) -> Band | None:
        bands = self.first.band(num_queries, num_keys), self.second.band(num_queries, num_keys)
        if bands[0] is None or bands[1] is None:
            return None
        lows = [band.low for band in bands if band is not None and band.low is not None]
        highs = [band.high for band in bands if band is not None and band.high is not None]
        return Band(max(lows, default=None), min(highs, default=None))


@dataclass(frozen=True, repr=False)
class Or(_Pair):
    """What either pattern allows."""

    def allowed(self, pairs: Pairs) -> Tensor:
        return self.first.allowed(pairs) | self.second.allowed(pairs)
