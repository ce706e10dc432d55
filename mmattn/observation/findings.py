"""What is wanted of a call, computed: weights, statistics, or their sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.observation.calls import Call, Run
from mmattn.observation.measures import Statistics, statistics
from mmattn.observation.weights import Written, of_weights, write

Heads = Sequence[int] | Mapping[str, Sequence[int]] | None
Shape = tuple[int, int, int, int]

#: Bytes of one sequence's weights up to which writing them, some sequences at a time, is faster than to go
#: sequence by sequence without them; and of the room for that.
_SMALL, _ROOM = 1 << 17, 4 << 20


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of a call.

    Attributes:
        weights: all N x M weights; statistics are then computed when they are read.
        heads: which; by module name or for all.
        max_bytes: that the record may hold.
        first_keys: that count towards ``sink_mass``.
    """

    weights: bool
    heads: Heads
    max_bytes: int
    first_keys: int

    def heads_of(self, name: str, num_heads: int) -> tuple[int, ...]:
        """The heads to observe in a module that has H of them."""
        heads = self.heads.get(name) if isinstance(self.heads, Mapping) else self.heads
        if heads is None:
            return tuple(range(num_heads))
        outside = [head for head in heads if not 0 <= head < num_heads]
        if outside or not heads:
            raise ValueError(f"heads must lie between 0 and {num_heads - 1}: got {list(heads)} for {name!r}")
        return tuple(heads)


class Place(NamedTuple):
    """Where the sequences of one run stand in a padded result, and what their statistics need.

    Attributes:
        rows, queries, keys: ``[rows, :, :queries, :keys]``.
        written: what came with their weights.
        q_coords, k_coords: where the tokens stand.
    """

    rows: slice
    queries: int
    keys: int
    written: Written
    q_coords: Tensor | None
    k_coords: Tensor | None


def kept(
    call: Call, shape: Shape, wanted: Wanted
) -> tuple[dict[str, Tensor], Callable[[], Statistics] | None]:
    """The tensors of a call by name, and what computes the statistics when only the weights are there."""
    if not wanted.weights:
        found = [statistics_of(run, wanted.first_keys) for run in call.runs]
        return padded(found, shape)._asdict(), None
    weights = torch.zeros(shape, dtype=call.dtype, device=call.device)
    places, begin = [], 0
    for run in call.runs:
        b, _, n, m = run.shape
        rows = slice(begin, begin + b)
        places.append(Place(rows, n, m, write(run, weights[rows, :, :n, :m]), *comparable(run)))
        begin += b

    def later() -> Statistics:
        with torch.no_grad():
            found = [
                of_weights(
                    weights[p.rows, :, : p.queries, : p.keys],
                    p.written,
                    p.q_coords,
                    p.k_coords,
                    wanted.first_keys,
                )
                for p in places
            ]
            return padded(found, shape)

    return {"weights": weights}, later


def padded(found: Sequence[Statistics], shape: Shape) -> Statistics:
    """The statistics of the runs of a call in one, zeros behind (``max_logit``: -inf)."""
    if len(found) == 1:
        return found[0]
    b, h, n, m = shape
    like = found[0].entropy if found else torch.empty(0)
    whole = {name: like.new_zeros(b, h, n) for name in Statistics._fields}
    whole["received"] = like.new_zeros(b, h, m)
    whole["max_logit"].fill_(-torch.inf)
    begin = 0
    for one in found:
        rows = slice(begin, begin + len(one.entropy))
        for name, x in one._asdict().items():
            whole[name][rows, :, : x.shape[2]] = x
        begin = rows.stop
    return Statistics(**whole)


def summed(run: Run, first_keys: int, weights: bool) -> tuple[Statistics, Tensor | None]:
    """The statistics of a run, and, where wanted, the sum of its weights over the sequences, ``[H, N, M]``."""
    if not weights:
        return statistics_of(run, first_keys), None
    _, h, n, m = run.shape
    wide = torch.float32 if run.device.type == "mps" else torch.float64
    total = torch.zeros(h, n, m, dtype=wide, device=run.device)
    return _by_weights(run, first_keys, total), total


def statistics_of(run: Run, first_keys: int) -> Statistics:
    """The statistics of a run, without all of its weights at a time."""
    b, h, n, m = run.shape
    if run.weights is not None or (b > 1 and 0 < h * n * m * run.dtype.itemsize <= _SMALL):
        return _by_weights(run, first_keys)
    assert run.q is not None
    assert run.k is not None
    assert run.terms is not None
    terms = run.terms
    q_coords, k_coords = comparable(run)
    return statistics(
        run.q, run.k, mask=terms.mask, bias=terms.bias, scale=terms.scale, soft_cap=terms.soft_cap,
        sinks=terms.sinks, q_coords=q_coords, k_coords=k_coords, first_keys=first_keys,
    )  # fmt: skip


def _by_weights(run: Run, first_keys: int, total: Tensor | None = None) -> Statistics:
    """By writing the weights of some sequences at a time; they are added to ``total``."""
    _, h, n, m = run.shape
    found = []
    rows = max(1, _ROOM // max(1, h * n * m * run.dtype.itemsize))
    for _, part in run.parts(rows):
        weights = torch.empty(part.shape, dtype=run.dtype, device=run.device)
        written = write(part, weights)
        found.append(of_weights(weights, written, *comparable(part), first_keys))
        if total is not None:
            for one in weights:
                total += one
    return Statistics(*map(torch.cat, zip(*found, strict=True)))


def comparable(run: Run) -> tuple[Tensor | None, Tensor | None]:
    """The coordinates of queries and keys, or none where they stand on different axes."""
    if run.terms is None or run.terms.q_coords is None or run.terms.k_coords is None:
        return None, None
    q_coords, k_coords = run.terms.q_coords, run.terms.k_coords
    return (q_coords, k_coords) if q_coords.shape[-1] == k_coords.shape[-1] else (None, None)


def missing(name: str, call: Call, weights: bool) -> dict[str, str]:
    """What cannot be read of a call, and why."""
    reasons = {}
    if not weights:
        reasons["weights"] = f"weights must be asked for by observe(..., weights=True): got {name!r} without"
    for run in call.runs:
        if run.weights is not None:
            reasons["max_logit"] = (
                f"max_logit needs queries and keys: got {name!r}, whose library makes the weights by itself"
            )
        elif run.terms is not None and run.terms.q_coords is not None and comparable(run)[0] is None:
            assert run.terms.k_coords is not None
            axes = run.terms.q_coords.shape[-1], run.terms.k_coords.shape[-1]
            reasons["distance"] = (
                f"distance needs queries and keys on the same axes: got {axes[0]} and {axes[1]} in {name!r}"
            )
    return reasons
