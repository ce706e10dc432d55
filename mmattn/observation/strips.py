"""A call's N x M pairs drawn strip by strip: some queries of one sequence against the keys they may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmattn.backends import Bias, Mask
from mmattn.backends.base import trimmed_band
from mmattn.masks import Band, Pairs, Pattern


@dataclass(frozen=True, eq=False)
class Strip:
    """Queries ``rows`` (R of them) against keys ``keys`` (C of them) of one sequence.

    Attributes:
        rows, keys: ranges of queries and keys; no query of the strip may attend to a key outside.
        seen: who may attend to whom, ``[H | 1, R | 1, C | 1]``, True = attend; None: all.
        bias: added to the logits, ``[H | 1, R | 1, C | 1]``, or None.
        distance: between query and key in the units of the coordinates, ``[R, C]``.
    """

    rows: slice
    keys: slice
    seen: Tensor | None
    bias: Tensor | None
    distance: Tensor


@dataclass(frozen=True, eq=False)
class Sheet:
    """What mask, bias and coordinates say about the pairs of one sequence, without drawing them all.

    Attributes:
        num_queries, num_keys: N and M.
        mask: a pattern for this sequence, or a boolean ``[H, N, M]`` (a view), or None.
        bias: ``[H, N, M]`` (a view), a function of the coordinates, or None.
        q_coords, k_coords: ``[N, A]`` and ``[M, A]`` as they were given.
        q_places, k_places: the same from a common origin, in the dtype of the results.
        band: what the pattern is, where it is no more than a band.
    """

    num_queries: int
    num_keys: int
    mask: Mask
    bias: Bias
    q_coords: Tensor
    k_coords: Tensor
    q_places: Tensor
    k_places: Tensor
    band: Band | None

    def strips(self, height: int, work: Tensor) -> Iterator[Strip]:
        """All pairs that may matter, ``height`` queries at a time.

        ``work`` is ``[2 or more, height * M or more]`` numbers to write in: the distances of a strip lie in the
        first row until the next strip is drawn, the second is free again at once.
        """
        for begin in range(0, self.num_queries, height):
            rows = slice(begin, min(begin + height, self.num_queries))
            keys = self._reach(rows)
            if keys.start < keys.stop:
                yield Strip(
                    rows,
                    keys,
                    self._seen(rows, keys),
                    self._bias(rows, keys),
                    self._distance(rows, keys, work),
                )

    def _reach(self, rows: slice) -> slice:
        low, high = (None, None) if self.band is None else self.band
        begin = 0 if low is None else max(0, rows.start + low)
        end = self.num_keys if high is None else min(self.num_keys, rows.stop + high)
        return slice(begin, end)

    def _seen(self, rows: slice, keys: slice) -> Tensor | None:
        if self.mask is None:
            return None
        if isinstance(self.mask, Tensor):
            return _shared(self.mask)[:, rows, keys]
        device = self.q_coords.device
        drawn = self.mask.allowed(
            Pairs(
                torch.arange(rows.start, rows.stop, device=device)[:, None],
                torch.arange(keys.start, keys.stop, device=device)[None, :],
                self.num_queries,
                self.num_keys,
                self.q_coords[rows, None],
                self.k_coords[None, keys],
            )
        )
        return _three_axes(drawn)

    def _bias(self, rows: slice, keys: slice) -> Tensor | None:
        if self.bias is None:
            return None
        if isinstance(self.bias, Tensor):
            return _shared(self.bias)[:, rows, keys]
        return _three_axes(self.bias(self.q_coords[rows], self.k_coords[keys]))

    def _distance(self, rows: slice, keys: slice, work: Tensor) -> Tensor:
        q, k = self.q_places[rows], self.k_places[keys]
        total, step = work[:2, : len(q) * len(k)].view(2, len(q), len(k)).unbind()
        if q.shape[1] == 1:
            return torch.sub(q, k.T, out=total).abs_()
        total.zero_()
        for axis in range(q.shape[1]):
            torch.sub(q[:, axis, None], k[:, axis], out=step)
            total.addcmul_(step, step)
        return total.sqrt_()


def sheets(
    shape: tuple[int, int, int, int],
    mask: Mask,
    bias: Bias,
    q_coords: Tensor | None,
    k_coords: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Sheet]:
    """One sheet for each sequence of a dense call with ``shape`` (B, H, N, M).

    Raises:
        ValueError: mask, bias or coordinates do not fit the shape.
    """
    batch, _, n, m = shape
    mask = _expanded("mask", mask, shape) if isinstance(mask, Tensor) else mask
    bias = _expanded("bias", bias, shape) if isinstance(bias, Tensor) else bias
    q_coords = torch.arange(m - n, m, device=device)[:, None] if q_coords is None else q_coords
    k_coords = torch.arange(m, device=device)[:, None] if k_coords is None else k_coords
    q_coords = _batched("q_coords", q_coords, batch, n)
    k_coords = _batched("k_coords", k_coords, batch, m)
    if q_coords.shape[-1] != k_coords.shape[-1]:
        raise ValueError(
            f"q_coords and k_coords must have the same axes A: got {q_coords.shape[-1]} and {k_coords.shape[-1]}"
        )
    return [
        Sheet(
            n,
            m,
            mask.select((b,)) if isinstance(mask, Pattern) else None if mask is None else mask[b],
            bias[b] if isinstance(bias, Tensor) else bias,
            q_coords[b],
            k_coords[b],
            _placed(q_coords[b], k_coords[b], dtype),
            _placed(k_coords[b], k_coords[b], dtype),
            trimmed_band(mask, n, m),
        )
        for b in range(batch)
    ]


def _expanded(name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return x.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must broadcast to [B, H, N, M] = {list(shape)}: got shape {list(x.shape)}"
        ) from None


def _batched(name: str, coords: Tensor, batch: int, tokens: int) -> Tensor:
    fits = coords.ndim == 2 or (coords.ndim == 3 and coords.shape[0] in (1, batch))
    if not fits or coords.shape[-2] != tokens:
        raise ValueError(
            f"{name} must be [{tokens}, A] or [{batch}, {tokens}, A]: got shape {list(coords.shape)}"
        )
    return coords.expand(batch, -1, -1)


def _placed(coords: Tensor, origin: Tensor, dtype: torch.dtype) -> Tensor:
    """Coordinates from the first of ``origin`` on: moved before the cast, so that large ones keep small steps."""
    if not coords.is_floating_point() and not origin.is_floating_point():
        coords, origin = coords.long(), origin.long()  # an unsigned type would wrap below zero
    return (coords - origin[:1]).to(dtype)


def _shared(x: Tensor) -> Tensor:
    """``[H, N, M]`` with what all heads share drawn once."""
    return x[:1] if x.stride(0) == 0 else x


def _three_axes(x: Tensor) -> Tensor:
    return x[(None,) * (4 - x.ndim)][0]
