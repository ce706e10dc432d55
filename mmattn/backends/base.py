"""What a backend is: dense attention, a refusal in words, and packed attention made of dense calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.backends.ready import Ready
from mmattn.masks import Band, Pattern

Mask = Pattern | Tensor | None
#: ``(query_coords [..., N, A], key_coords [..., M, A]) -> [..., H, N, M]``.
BiasFunction = Callable[[Tensor, Tensor], Tensor]
Bias = Tensor | BiasFunction | None


@dataclass(frozen=True, eq=False)
class Terms:
    """How the products of queries and keys become weights.

    In this order: products times ``scale``; soft cap; plus ``bias``; ``mask``; softmax, with a sink for each
    head; dropout.

    Attributes:
        scale: factor on the products.
        mask: who may attend to whom: a pattern, or a boolean tensor that broadcasts to ``[B, H, N, M]``.
        bias: added to the logits: a tensor that broadcasts to ``[B, H, N, M]`` (packed: ``[H, N, M]`` for the
            longest sequence, cut to each), or a function of the coordinates.
        soft_cap: logits become ``soft_cap * tanh(logits / soft_cap)``.
        sinks: ``[H]``: one more logit for each head that takes part in the softmax and belongs to no value.
        dropout: probability of dropping a weight.
        q_coords, k_coords: coordinates of queries and keys, ``[B, N, A]``, ``[N, A]`` or packed ``[T, A]``.
    """

    scale: float
    mask: Mask = None
    bias: Bias = None
    soft_cap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0
    q_coords: Tensor | None = None
    k_coords: Tensor | None = None

    def drawn_mask(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor | None:
        """The mask as a boolean tensor of four axes that broadcasts to ``[B, H, N, M]``, True = attend."""
        if not isinstance(self.mask, Pattern):
            return None if self.mask is None else four_axes(self.mask)
        return four_axes(
            self.mask.dense(
                num_queries, num_keys, device, query_coords=self.q_coords, key_coords=self.k_coords
            )
        )

    def drawn_bias(self) -> Tensor | None:
        """The bias as a tensor of four axes that broadcasts to ``[B, H, N, M]``.

        Raises:
            ValueError: it is a function of the coordinates, and there are none.
        """
        if self.bias is None:
            return None
        if isinstance(self.bias, Tensor):
            return four_axes(self.bias)
        if self.q_coords is None or self.k_coords is None:
            raise ValueError("a bias that is a function needs q_coords and k_coords: got none")
        return four_axes(self.bias(self.q_coords, self.k_coords))


def four_axes(x: Tensor) -> Tensor:
    """A mask or bias with axes of length 1 in front, up to four."""
    return x if x.ndim >= 4 else x[(None,) * (4 - x.ndim)]


@dataclass(frozen=True, eq=False)
class Call:
    """What a backend needs to know of a call to say whether it can run it.

    Attributes:
        packed: tokens lie end to end, with lengths.
        num_heads, num_kv_heads, head_dim: heads of the queries, of the keys and values, and their width.
        num_queries, num_keys: of the longest sequence.
        same_lengths: every sequence has as many queries as keys.
        dtype, device: of the queries.
        grad: whether gradients are wanted.
        terms: how logits become weights.
    """

    packed: bool
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_queries: int
    num_keys: int
    same_lengths: bool
    dtype: torch.dtype
    device: torch.device
    grad: bool
    terms: Terms

    @property
    def band(self) -> Band | None:
        """The band that the mask is, within the lengths; None without a mask and where it is more than a band."""
        return trimmed_band(self.terms.mask, self.num_queries, self.num_keys)

    @property
    def bias_grad(self) -> bool:
        """Whether the bias, a tensor, takes a gradient; a function of the coordinates may always."""
        bias = self.terms.bias
        return bias is not None and torch.is_grad_enabled() and getattr(bias, "requires_grad", True)


def trimmed_band(mask: Mask, num_queries: int, num_keys: int) -> Band | None:
    """The band of a pattern, with limits that no key reaches left out."""
    band = mask.band(num_queries, num_keys) if isinstance(mask, Pattern) else None
    if band is None:
        return None
    low = None if band.low is None or band.low <= 1 - num_queries else band.low
    high = None if band.high is None or band.high >= num_keys - 1 else band.high
    return Band(low, high)


class Backend(ABC):
    """One way to compute attention. Subclass it, or hand in any object with the same methods."""

    name: str

    def refusal(self, call: Call) -> str | None:
        """Why this backend cannot run the call, or ``None`` when it can."""
        return None

    def reluctance(self, call: Call) -> str | None:
        """Why ``auto`` should pass this backend over for a call that it can run, or ``None``."""
        return None

    def merit(self, call: Call) -> str:
        """Why one would choose this backend for the call."""
        return "it can run the call"

    def ready(self, call: Call) -> Ready | None:
        """A function of q, k, v and mask alone for all dense calls like this one; None where more must be looked at.

        It is kept for calls of the same shapes, types, scale and wish for gradients, with an equal pattern or a
        boolean mask of the same shape.
        """
        return None

    @abstractmethod
    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        """Attention of q ``[B, H, N, K]`` over k, v ``[B, H_kv, M, K]``, to ``[B, H, N, K]``.

        A query without any key gives zeros and finite gradients.
        """

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        terms: Terms,
    ) -> Tensor:
        """Attention inside each sequence of q ``[T, H, K]`` and k, v ``[T_k, H_kv, K]``; one dense call for
        each run of neighbours of equal lengths."""
        runs = list(equal_runs(q_lengths, k_lengths))
        results, q_begin, k_begin, first = [], 0, 0, 0
        for count, n, m in runs:
            q_rows, k_rows = slice(q_begin, q_begin + count * n), slice(k_begin, k_begin + count * m)
            out = self.dense(
                q[q_rows].unflatten(0, (count, n)).transpose(1, 2),
                k[k_rows].unflatten(0, (count, m)).transpose(1, 2),
                v[k_rows].unflatten(0, (count, m)).transpose(1, 2),
                _of_run(terms, range(first, first + count), n, m, q_rows, k_rows),
            )
            results.append(out.transpose(1, 2).reshape(count * n, *q.shape[1:]))
            q_begin, k_begin, first = q_rows.stop, k_rows.stop, first + count
        return torch.cat(results) if results else q


def _of_run(terms: Terms, sequences: range, n: int, m: int, q_rows: slice, k_rows: slice) -> Terms:
    """The terms of neighbouring sequences with n queries and m keys each."""
    mask, bias = terms.mask, terms.bias
    return replace(
        terms,
        mask=mask.select(sequences) if isinstance(mask, Pattern) else mask,
        bias=bias[..., :n, :m] if isinstance(bias, Tensor) else bias,
        q_coords=None if terms.q_coords is None else terms.q_coords[q_rows].unflatten(0, (len(sequences), n)),
        k_coords=None if terms.k_coords is None else terms.k_coords[k_rows].unflatten(0, (len(sequences), m)),
    )


class Run(NamedTuple):
    """Neighbouring sequences of equal lengths: how many, and the queries and keys of each."""

    sequences: int
    queries: int
    keys: int


def equal_runs(q_lengths: Sequence[int], k_lengths: Sequence[int]) -> list[Run]:
    """Neighbouring sequences of equal lengths.

    Example:
        >>> equal_runs([3, 3, 5], [4, 4, 4])
        [Run(sequences=2, queries=3, keys=4), Run(sequences=1, queries=5, keys=4)]
    """
    pairs = groupby(zip(q_lengths, k_lengths, strict=True))
    return [Run(sum(1 for _ in members), queries, keys) for (queries, keys), members in pairs]


def repeat_heads(x: Tensor, num_heads: int) -> Tensor:
    """Repeat each of the H_kv heads of ``[B, H_kv, M, K]`` or ``[T, H_kv, K]`` in place, up to ``num_heads``."""
    repeats = num_heads // x.shape[1]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1)


def fold_heads(q: Tensor, num_kv_heads: int) -> Tensor:
    """Queries ``[B, H, N, K]`` as ``[B, H_kv, H / H_kv * N, K]``: heads that share keys, as queries that do.

    Where every query sees every key this repeats none of the keys.
    """
    return q.reshape(q.shape[0], num_kv_heads, q.shape[1] // num_kv_heads * q.shape[2], q.shape[3])
