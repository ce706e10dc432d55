"""An attention call as an observer sees it: queries, keys and terms, or weights that exist already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmattn.backends import Bias, Explanation, Mask, Terms


@dataclass(frozen=True, eq=False)
class Run:
    """Some sequences of equal lengths.

    Attributes:
        q: queries ``[B, H, N, K]``; None where the weights are given.
        k: keys ``[B, H_kv, M, K]``; None where the weights are given.
        terms: how the products become weights; None where they are given.
        weights: ``[B, H, N, M]`` that the host made itself.
    """

    q: Tensor | None
    k: Tensor | None
    terms: Terms | None
    weights: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """B, H, N and M."""
        if self.weights is not None:
            b, h, n, m = self.weights.shape
            return b, h, n, m
        assert self.q is not None
        assert self.k is not None
        return self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Of the results: float32, or float64 where the call is."""
        kinds = [x.dtype for x in (self.q, self.k, self.weights) if x is not None]
        return torch.float64 if torch.float64 in kinds else torch.float32

    @property
    def device(self) -> torch.device:
        """Where the call runs."""
        found = self.weights if self.q is None else self.q
        assert found is not None
        return found.device

    def of_heads(self, heads: Sequence[int]) -> Run:
        """The same for some of the heads alone."""
        if self.weights is not None:
            return replace(self, weights=self.weights[:, list(heads)])
        assert self.q is not None
        assert self.k is not None
        assert self.terms is not None
        repeats = self.q.shape[1] // self.k.shape[1]
        terms = self.terms
        sinks = None if terms.sinks is None else terms.sinks[list(heads)]
        chosen = replace(
            terms, mask=_mask_of(terms.mask, heads), bias=_bias_of(terms.bias, heads), sinks=sinks
        )
        return Run(self.q[:, list(heads)], self.k[:, [head // repeats for head in heads]], chosen)

    def parts(self, rows: int) -> Iterator[tuple[slice, Run]]:
        """The same, some sequences at a time."""
        batch = self.shape[0]
        for begin in range(0, batch, rows):
            part = slice(begin, min(begin + rows, batch))
            yield part, self._of_rows(part)

    def _of_rows(self, rows: slice) -> Run:
        if self.weights is not None:
            return replace(self, weights=self.weights[rows])
        assert self.q is not None
        assert self.k is not None
        assert self.terms is not None
        terms, batch = self.terms, self.q.shape[0]
        mask, bias = terms.mask, terms.bias
        cut = replace(
            terms,
            mask=_rows_of(mask, rows) if isinstance(mask, Tensor) or mask is None
            else mask.select(range(batch)[rows]),
            bias=_rows_of(bias, rows) if isinstance(bias, Tensor) else bias,
            q_coords=_coords_of(terms.q_coords, rows),
            k_coords=_coords_of(terms.k_coords, rows),
        )  # fmt: skip
        return Run(self.q[rows], self.k[rows], cut)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, of one run or, packed, of several.

    Attributes:
        runs: the sequences, neighbours of equal lengths together.
        num_heads: H.
        explanation: what computes the call, where that was asked for.
    """

    runs: tuple[Run, ...]
    num_heads: int
    explanation: Explanation | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the results."""
        return self.runs[0].dtype if self.runs else torch.float32

    @property
    def device(self) -> torch.device:
        """Where the call runs."""
        return self.runs[0].device if self.runs else torch.device("cpu")

    @property
    def q_lengths(self) -> list[int]:
        """Queries of each sequence."""
        return [run.shape[2] for run in self.runs for _ in range(run.shape[0])]

    @property
    def k_lengths(self) -> list[int]:
        """Keys of each sequence."""
        return [run.shape[3] for run in self.runs for _ in range(run.shape[0])]

    def of_heads(self, heads: Sequence[int] | None) -> Call:
        """The same for some of the heads alone; None: for all."""
        if heads is None:
            return self
        return Call(tuple(run.of_heads(heads) for run in self.runs), len(heads), self.explanation)


def _mask_of(mask: Mask, heads: Sequence[int]) -> Mask:
    if isinstance(mask, Tensor) and mask.ndim >= 3 and mask.shape[-3] > 1:
        return mask.index_select(-3, torch.tensor(list(heads), device=mask.device))
    return mask


def _bias_of(bias: Bias, heads: Sequence[int]) -> Bias:
    if bias is None:
        return None
    index = list(heads)
    if isinstance(bias, Tensor):
        if bias.ndim >= 3 and bias.shape[-3] > 1:
            return bias.index_select(-3, torch.tensor(index, device=bias.device))
        return bias

    def chosen(q_coords: Tensor, k_coords: Tensor) -> Tensor:
        drawn = bias(q_coords, k_coords)
        return drawn[..., index, :, :] if drawn.shape[-3] > 1 else drawn

    return chosen


def _rows_of(x: Tensor | None, rows: slice) -> Tensor | None:
    return x if x is None or x.ndim < 4 or x.shape[0] == 1 else x[rows]


def _coords_of(x: Tensor | None, rows: slice) -> Tensor | None:
    return x if x is None or x.ndim < 3 or x.shape[0] == 1 else x[rows]
