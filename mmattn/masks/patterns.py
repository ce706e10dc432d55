"""Who may attend to whom: small value objects, combined with ``&`` and ``|``. True = may attend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from mmattn.masks.base import Band, Pairs, Pattern

Align = Literal["bottom-right", "top-left"]
Row = TypeVar("Row")


def _offset(align: Align, num_queries: int, num_keys: int) -> int:
    return num_keys - num_queries if align == "bottom-right" else 0


def _check_align(align: str) -> None:
    if align not in ("bottom-right", "top-left"):
        raise ValueError(f"align must be 'bottom-right' or 'top-left': got {align!r}")


def _lacks(coords: str) -> ValueError:
    return ValueError(f"{coords} needs the coordinates of queries and keys: got none")


@dataclass(frozen=True)
class Causal(Pattern):
    """Each query sees the keys up to its own position.

    Args:
        align: ``"bottom-right"``: the queries are the tail of the keys, as in cached decoding, so the last
            query sees every key. ``"top-left"``: query 0 stands at key 0, as in torch's ``is_causal``.
    """

    align: Align = "bottom-right"

    def __post_init__(self) -> None:
        _check_align(self.align)

    def allowed(self, pairs: Pairs) -> Tensor:
        return pairs.key <= pairs.query + _offset(self.align, pairs.num_queries, pairs.num_keys)

    def band(self, num_queries: int, num_keys: int) -> Band | None:
        return Band(None, _offset(self.align, num_queries, num_keys))


@dataclass(frozen=True)
class Window(Pattern):
    """Each query sees at most ``left`` keys before and ``right`` keys after its own position.

    ``align`` as in :class:`Causal`: where a query stands when there are more keys than queries.
    """

    left: int
    right: int
    align: Align = "bottom-right"

    def __post_init__(self) -> None:
        if self.left < 0 or self.right < 0:
            raise ValueError(f"left and right must not be negative: got left={self.left}, right={self.right}")
        _check_align(self.align)

    def allowed(self, pairs: Pairs) -> Tensor:
        distance = pairs.key - pairs.query - _offset(self.align, pairs.num_queries, pairs.num_keys)
        return (distance >= -self.left) & (distance <= self.right)

    def band(self, num_queries: int, num_keys: int) -> Band | None:
        offset = _offset(self.align, num_queries, num_keys)
        return Band(offset - self.left, offset + self.right)

    def __repr__(self) -> str:
        tail = "" if self.align == "bottom-right" else f", align={self.align!r}"
        return f"Window(left={self.left}, right={self.right}{tail})"


@dataclass(frozen=True)
class Neighbourhood(Pattern):
    """Each query sees the keys whose coordinates differ by at most ``radius`` on every axis.

    With two axes this is neighbourhood attention (Hassani et al. 2023) over a picture of any shape; unlike
    there, windows at the border are smaller rather than moved inside.

    Args:
        radius: largest difference for each of the A axes.

    Example:
        >>> coords = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]])
        >>> Neighbourhood((1, 0)).dense(5, 5, query_coords=coords, key_coords=coords).int().tolist()[0]
        [1, 0, 1, 0, 0]
    """

    radius: tuple[float, ...]
    uses_coords = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", tuple(self.radius))
        if not self.radius or min(self.radius) < 0:
            raise ValueError(f"radius must be one number from 0 for each axis: got {self.radius}")

    def allowed(self, pairs: Pairs) -> Tensor:
        if pairs.query_coords is None or pairs.key_coords is None:
            raise _lacks("Neighbourhood")
        if pairs.query_coords.shape[-1] != len(self.radius):
            raise ValueError(
                f"radius must have one number for each axis: got {len(self.radius)} "
                f"for {pairs.query_coords.shape[-1]} axes"
            )
        # unsigned integers would wrap around below 0
        of_k, of_q = (
            c if c.is_floating_point() else c.long() for c in (pairs.key_coords, pairs.query_coords)
        )
        apart = (of_k - of_q).abs()
        inside = [apart[..., axis] <= radius for axis, radius in enumerate(self.radius)]
        return torch.stack(inside).all(0) if len(inside) > 1 else inside[0]


@dataclass(frozen=True)
class Prefix(Pattern):
    """Every query sees the first ``length`` keys; ``Causal() | Prefix(n)`` is a prefix language model.

    Args:
        length: keys of the prefix, one number for all sequences or one for each.

    Example:
        >>> (Causal() | Prefix(2)).dense(3, 3).int().tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """

    length: int | tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.length, int):
            object.__setattr__(self, "length", tuple(int(n) for n in self.length))
        if min(self._lengths, default=0) < 0:
            raise ValueError(f"length must not be negative: got {min(self._lengths)}")

    @property
    def _lengths(self) -> tuple[int, ...]:
        return (self.length,) if isinstance(self.length, int) else self.length

    @property
    def per_sequence(self) -> bool:  # type: ignore[override]  # a class constant elsewhere
        return not isinstance(self.length, int)

    def allowed(self, pairs: Pairs) -> Tensor:
        if isinstance(self.length, int):
            return pairs.key < self.length
        return pairs.key < _of_sequence(self.length, pairs)

    def select(self, sequences: Sequence[int]) -> Pattern:
        if isinstance(self.length, int):
            return self
        return Prefix(tuple(_picked("length", self.length, sequences)))


@dataclass(frozen=True)
class KeyLengths(Pattern):
    """Padding of a dense batch: sequence b has ``lengths[b]`` real keys, at the start of its row."""

    lengths: tuple[int, ...]
    per_sequence = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(int(n) for n in self.lengths))
        if any(n < 0 for n in self.lengths):
            raise ValueError(f"lengths must not be negative: got {min(self.lengths)}")

    def allowed(self, pairs: Pairs) -> Tensor:
        if self.lengths and max(self.lengths) > pairs.num_keys:
            raise ValueError(f"lengths must not exceed the {pairs.num_keys} keys: got {max(self.lengths)}")
        return pairs.key < _of_sequence(self.lengths, pairs)

    def select(self, sequences: Sequence[int]) -> Pattern:
        return KeyLengths(tuple(_picked("lengths", self.lengths, sequences)))


@dataclass(frozen=True)
class Segments(Pattern):
    """Tokens see only tokens of their own segment.

    Args:
        queries: one tuple of segment numbers for each sequence of the batch, ``[B][N]``.
        keys: the same for the keys, ``[B][M]``; ``None`` takes those of the queries.
    """

    queries: tuple[tuple[int, ...], ...]
    keys: tuple[tuple[int, ...], ...] | None = None
    per_sequence = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", tuple(tuple(map(int, row)) for row in self.queries))
        if self.keys is not None:
            object.__setattr__(self, "keys", tuple(tuple(map(int, row)) for row in self.keys))

    def allowed(self, pairs: Pairs) -> Tensor:
        rows = self.queries, self.queries if self.keys is None else self.keys
        wanted = pairs.num_queries, pairs.num_keys
        for side, number in zip(rows, wanted, strict=True):
            wrong = [len(row) for row in side if len(row) != number]
            if wrong:
                raise ValueError(
                    f"segments must cover {wanted[0]} queries and {wanted[1]} keys: got {wrong[0]} tokens"
                )
        of_queries, of_keys = (
            torch.tensor(side, dtype=torch.long, device=pairs.key.device).reshape(len(side), number)
            for side, number in zip(rows, wanted, strict=True)
        )
        if pairs.sequence is not None:
            same: Tensor = of_queries[pairs.sequence, pairs.query] == of_keys[pairs.sequence, pairs.key]
            return same
        return of_queries[:, pairs.query] == of_keys[:, pairs.key]

    def select(self, sequences: Sequence[int]) -> Pattern:
        keys = None if self.keys is None else tuple(_picked("keys", self.keys, sequences))
        return Segments(tuple(_picked("queries", self.queries, sequences)), keys)


def _of_sequence(numbers: Sequence[int], pairs: Pairs) -> Tensor:
    """One number for each sequence, in the shape of the pairs."""
    of_each = torch.tensor(numbers, device=pairs.key.device)
    return of_each[:, None, None] if pairs.sequence is None else of_each[pairs.sequence]


def _picked(name: str, rows: Sequence[Row], sequences: Sequence[int]) -> list[Row]:
    if sequences and max(sequences) >= len(rows):
        raise ValueError(f"{name} must be one for each sequence: got {len(rows)}, asked for {max(sequences)}")
    return [rows[index] for index in sequences]
