"""Who may attend to whom: small value objects, combined with ``&`` and ``|``. True = may attend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


class Pattern(ABC):
    """A rule over pairs of query and key positions.

    Patterns are frozen, comparable and printable. ``a & b`` allows what both allow, ``a | b`` what either does.

    Example:
        >>> Causal() & Window(1, 0)
        And(Causal(align='bottom-right'), Window(left=1, right=0))
        >>> (Causal() & Window(1, 0)).dense(3, 3).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """

    #: True when the answer depends on which sequence of the batch is asked about.
    per_sequence = False

    @abstractmethod
    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        """Whether query positions may attend to key positions (integer tensors that broadcast)."""

    def dense(self, num_queries: int, num_keys: int, device: torch.device | str = "cpu") -> Tensor:
        """The pattern as a boolean tensor ``[N, M]`` (``[B, 1, N, M]`` when it differs between sequences)."""
        query = torch.arange(num_queries, device=device)[:, None]
        key = torch.arange(num_keys, device=device)[None, :]
        return self.allowed(query, key, num_queries, num_keys)

    def __and__(self, other: Pattern) -> Pattern:
        return And(self, other)

    def __or__(self, other: Pattern) -> Pattern:
        return Or(self, other)


def _key_offset(align: str, num_queries: int, num_keys: int) -> int:
    return num_keys - num_queries if align == "bottom-right" else 0


@dataclass(frozen=True)
class Causal(Pattern):
    """Each query sees the keys up to its own position.

    Args:
        align: ``"bottom-right"``: the queries are the tail of the keys, as in cached decoding, so the last
            query sees every key. ``"top-left"``: query 0 stands at key 0, as in torch's ``is_causal``.
    """

    align: Literal["bottom-right", "top-left"] = "bottom-right"

    def __post_init__(self) -> None:
        if self.align not in ("bottom-right", "top-left"):
            raise ValueError(f"align must be 'bottom-right' or 'top-left': got {self.align!r}")

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        return key <= query + _key_offset(self.align, num_queries, num_keys)


@dataclass(frozen=True)
class Window(Pattern):
    """Each query sees at most ``left`` keys before and ``right`` keys after its own position.

    ``align`` as in :class:`Causal`: where a query stands when there are more keys than queries.
    """

    left: int
    right: int
    align: Literal["bottom-right", "top-left"] = "bottom-right"

    def __post_init__(self) -> None:
        if self.left < 0 or self.right < 0:
            raise ValueError(f"left and right must not be negative: got left={self.left}, right={self.right}")
        if self.align not in ("bottom-right", "top-left"):
            raise ValueError(f"align must be 'bottom-right' or 'top-left': got {self.align!r}")

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        distance = key - query - _key_offset(self.align, num_queries, num_keys)
        return (distance >= -self.left) & (distance <= self.right)

    def __repr__(self) -> str:
        tail = "" if self.align == "bottom-right" else f", align={self.align!r}"
        return f"Window(left={self.left}, right={self.right}{tail})"


@dataclass(frozen=True)
class KeyLengths(Pattern):
    """Padding of a dense batch: sequence b has ``lengths[b]`` real keys, at the start of its row."""

    lengths: tuple[int, ...]
    per_sequence = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(int(n) for n in self.lengths))
        if any(n < 0 for n in self.lengths):
            raise ValueError(f"lengths must not be negative: got {min(self.lengths)}")

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        if self.lengths and max(self.lengths) > num_keys:
            raise ValueError(f"lengths must not exceed the {num_keys} keys: got {max(self.lengths)}")
        lengths = torch.tensor(self.lengths, device=key.device)[:, None, None, None]
        return (key < lengths) & (query >= 0)


@dataclass(frozen=True)
class Segments(Pattern):
    """Tokens of a dense batch see only tokens of their own segment.

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

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        of_queries = torch.tensor(self.queries, device=query.device)
        of_keys = of_queries if self.keys is None else torch.tensor(self.keys, device=key.device)
        if of_queries.shape[1] != num_queries or of_keys.shape[1] != num_keys:
            raise ValueError(
                f"segments must cover {num_queries} queries and {num_keys} keys: "
                f"got {of_queries.shape[1]} and {of_keys.shape[1]}"
            )
        return (of_queries[:, query] == of_keys[:, key])[:, None]


@dataclass(frozen=True)
class And(Pattern):
    """What both patterns allow."""

    first: Pattern
    second: Pattern

    @property
    def per_sequence(self) -> bool:  # type: ignore[override]  # a class constant elsewhere, derived here
        return self.first.per_sequence or self.second.per_sequence

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        shape = (num_queries, num_keys)
        return self.first.allowed(query, key, *shape) & self.second.allowed(query, key, *shape)

    def __repr__(self) -> str:
        return f"And({self.first!r}, {self.second!r})"


@dataclass(frozen=True)
class Or(Pattern):
    """What either pattern allows."""

    first: Pattern
    second: Pattern

    @property
    def per_sequence(self) -> bool:  # type: ignore[override]  # a class constant elsewhere, derived here
        return self.first.per_sequence or self.second.per_sequence

    def allowed(self, query: Tensor, key: Tensor, num_queries: int, num_keys: int) -> Tensor:
        shape = (num_queries, num_keys)
        return self.first.allowed(query, key, *shape) | self.second.allowed(query, key, *shape)

    def __repr__(self) -> str:
        return f"Or({self.first!r}, {self.second!r})"


def from_key_padding_mask(mask: Tensor) -> Tensor:
    """torch.nn's ``key_padding_mask`` ``[B, M]`` (True = ignore) as a mask ``[B, 1, 1, M]`` (True = attend).

    Raises:
        ValueError: the mask is not a boolean ``[B, M]``.
    """
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(
            f"key_padding_mask must be boolean [B, M], True = ignore: got {mask.dtype} {list(mask.shape)}"
        )
    return ~mask[:, None, None, :]


def from_attention_mask(mask: Tensor) -> Tensor:
    """Hugging Face's ``attention_mask`` ``[B, M]`` (1 = attend) as a mask ``[B, 1, 1, M]`` (True = attend).

    Raises:
        ValueError: the mask is not ``[B, M]`` or holds other values than 0 and 1.
    """
    if mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"attention_mask must be [B, M] of 0 and 1: got shape {list(mask.shape)}")
    return mask[:, None, None, :] == 1
