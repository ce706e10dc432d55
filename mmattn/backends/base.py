"""What a backend is: dense attention, a refusal in words, and packed attention made of dense calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.masks import Pattern

Mask = Pattern | Tensor | None


@dataclass(frozen=True)
class Call:
    """What a backend needs to know of a call to say whether it can run it.

    Attributes:
        packed: tokens lie end to end, with lengths.
        num_heads, num_kv_heads, head_dim: heads of the queries, of the keys and values, and their width.
        dtype, device: of the queries.
        mask, bias: whether there is one.
        dropout: probability of dropping a weight.
        grad: whether gradients are wanted.
    """

    packed: bool
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    mask: bool
    bias: bool
    dropout: float
    grad: bool


class Backend(ABC):
    """One way to compute attention. Subclass it, or hand in any object with the same methods."""

    name: str

    def refusal(self, call: Call) -> str | None:
        """Why this backend cannot run the call, or ``None`` when it can."""
        return None

    def merit(self, call: Call) -> str:
        """Why one would choose this backend for the call."""
        return "it can run the call"

    @abstractmethod
    def dense(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        """Attention of q ``[B, H, N, K]`` over k, v ``[B, H_kv, M, K]``.

        ``mask`` is boolean (True = attend), ``bias`` is added to the scaled logits; both broadcast to
        ``[B, H, N, M]``. A query without any key gives zeros and finite gradients.
        """

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        *,
        mask: Pattern | None,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        """Attention inside each sequence of q ``[T, H, K]`` and k, v ``[T_k, H_kv, K]``, one dense call for
        each run of neighbours of equal lengths. ``bias`` is ``[H, N_max, M_max]``, cut to each length."""
        runs = list(equal_runs(q_lengths, k_lengths))
        if not runs:
            return q
        q_parts = q.split([count * n for count, n, _ in runs]) if len(runs) > 1 else (q,)
        k_parts = k.split([count * m for count, _, m in runs]) if len(runs) > 1 else (k,)
        v_parts = v.split([count * m for count, _, m in runs]) if len(runs) > 1 else (v,)
        results = []
        for (count, n, m), q_run, k_run, v_run in zip(runs, q_parts, k_parts, v_parts, strict=True):
            shape_q, shape_k = (count, n, *q.shape[1:]), (count, m, *k.shape[1:])
            out = self.dense(
                q_run.reshape(shape_q).transpose(1, 2),
                k_run.reshape(shape_k).transpose(1, 2),
                v_run.reshape(shape_k).transpose(1, 2),
                mask=None if mask is None else mask.dense(n, m, q.device),
                bias=None if bias is None else bias[..., :n, :m],
                scale=scale,
                dropout=dropout,
            )
            results.append(out.transpose(1, 2).reshape(count * n, *q.shape[1:]))
        return results[0] if len(results) == 1 else torch.cat(results)


class Run(NamedTuple):
    """Neighbouring sequences of equal lengths: how many, and the queries and keys of each."""

    sequences: int
    queries: int
    keys: int


def equal_runs(q_lengths: Sequence[int], k_lengths: Sequence[int]) -> Iterator[Run]:
    """Neighbouring sequences of equal lengths.

    Example:
        >>> list(equal_runs([3, 3, 5], [4, 4, 4]))
        [Run(sequences=2, queries=3, keys=4), Run(sequences=1, queries=5, keys=4)]
    """
    for (queries, keys), members in groupby(zip(q_lengths, k_lengths, strict=True)):
        yield Run(sum(1 for _ in members), queries, keys)


def repeat_heads(x: Tensor, num_heads: int) -> Tensor:
    """Repeat each of the H_kv heads of ``[B, H_kv, M, K]`` or ``[T, H_kv, K]`` in place, up to ``num_heads``."""
    repeats = num_heads // x.shape[1]
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1)
