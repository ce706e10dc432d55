"""Keys that no query sees and queries that see no key: a weight of 0 times a NaN is a NaN, so they are left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from mmattn.backends.base import Terms
from mmattn.masks import Band, Pairs, Pattern


class Inside(NamedTuple):
    """What is left of a call with a band: the queries that see a key, and the keys that are seen.

    Attributes:
        q, k, v: views of the tensors of the call.
        terms: of this part of the call.
        dead: queries left out in front and behind.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    terms: Terms
    dead: tuple[int, int]

    def widen(self, out: Tensor) -> Tensor:
        """The result with zeros for the queries left out."""
        return F.pad(out, (0, 0, *self.dead)) if self.dead != (0, 0) else out


class Extent(NamedTuple):
    """Ranges of the queries that see a key and of the keys that are seen."""

    queries: tuple[int, int]
    keys: tuple[int, int]


def extent(band: Band, num_queries: int, num_keys: int) -> Extent:
    """Which queries see keys, and which keys are seen.

    Example:
        >>> extent(Band(None, 0), num_queries=3, num_keys=5)
        Extent(queries=(0, 3), keys=(0, 3))
        >>> extent(Band(-9, -1), num_queries=3, num_keys=5)
        Extent(queries=(1, 3), keys=(0, 2))
    """
    queries, keys = (0, num_queries), (0, num_keys)
    if band.low is not None:
        queries = (0, min(num_queries, num_keys - band.low))
        keys = (max(0, band.low), num_keys)
    if band.high is not None:
        queries = (max(0, -band.high), queries[1])
        keys = (keys[0], min(num_keys, num_queries + band.high))
    crossed = band.low is not None and band.high is not None and band.low > band.high
    if crossed or queries[0] >= queries[1] or keys[0] >= keys[1]:
        return Extent((0, 0), (0, 0))
    return Extent(queries, keys)


def shifted(band: Band, of: Extent) -> Band:
    """The band, counted from the first query and the first key of an extent."""
    by = of.queries[0] - of.keys[0]
    return Band(None if band.low is None else band.low + by, None if band.high is None else band.high + by)


def crop(q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Inside:
    """Leave out what a band hides from all, of dense q ``[B, H, N, K]`` and k, v ``[B, H_kv, M, K]``.

    The band that remains has ``low <= 0 <= high``. Other masks leave the call as it is.
    """
    n, m = q.shape[2], k.shape[2]
    band = terms.mask.band(n, m) if isinstance(terms.mask, Pattern) else None
    if band is None:
        return Inside(q, k, v, terms, (0, 0))
    of = extent(band, n, m)
    if of == ((0, n), (0, m)):
        return Inside(q, k, v, terms, (0, 0))
    rows, columns = slice(*of.queries), slice(*of.keys)
    bias, of_q, of_k = terms.bias, terms.q_coords, terms.k_coords
    if isinstance(bias, Tensor):
        bias = terms.drawn_bias()
        assert bias is not None
        bias = bias if bias.shape[-2] == 1 else bias[..., rows, :]
        bias = bias if bias.shape[-1] == 1 else bias[..., columns]
    terms = replace(
        terms,
        mask=_Strip(*shifted(band, of)),
        bias=bias,
        q_coords=None if of_q is None else of_q[..., rows, :],
        k_coords=None if of_k is None else of_k[..., columns, :],
    )
    dead = of.queries[0], n - of.queries[1]
    return Inside(q[:, :, rows], k[:, :, columns], v[:, :, columns], terms, dead)


@dataclass(frozen=True)
class _Strip(Pattern):
    """A band between fixed limits, whatever the numbers of tokens."""

    low: int | None
    high: int | None

    def allowed(self, pairs: Pairs) -> Tensor:
        distance = pairs.key - pairs.query
        inside = torch.ones_like(distance, dtype=torch.bool)
        if self.low is not None:
            inside = inside & (distance >= self.low)
        return inside if self.high is None else inside & (distance <= self.high)

    def band(self, num_queries: int, num_keys: int) -> Band | None:
        return Band(self.low, self.high)


class Sight(NamedTuple):
    """What a boolean mask, True = attend, lets happen.

    Attributes:
        dead: ``[..., N, 1]``, queries that see no key; None where all see one.
        unseen: ``[..., M, 1]``, keys that no query sees; None where all are seen.
        add: 0 where the mask is True, -inf elsewhere; None for a mask too large to keep it.
    """

    dead: Tensor | None
    unseen: Tensor | None
    add: Tensor | None

    def added(self, mask: Tensor) -> Tensor:
        """:attr:`add`, made anew for a large mask."""
        return _added(mask) if self.add is None else self.add


#: Pairs of a mask up to which its numbers are kept as long as the mask lives: 16 MiB.
_SMALL = 1 << 22


#: By mask, while it lives: the layers of a model are given the same one. With the version that was looked at.
_SIGHTS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def sight(mask: Tensor) -> Sight:
    """What a mask on a CPU lets happen; looked at once as long as it lives and is not changed."""
    if mask.is_inference():  # its version is not counted
        return _looked_at(mask)
    known: tuple[int, Sight] | None = _SIGHTS.get(mask)
    if known is None or known[0] != mask._version:
        known = _SIGHTS[mask] = (mask._version, _looked_at(mask))
    return known[1]


def _looked_at(mask: Tensor) -> Sight:
    seeing, seen = _any(mask, -1), _any(mask, -2)
    dead = None if bool(seeing.all()) else ~seeing[..., None]
    unseen = None if bool(seen.all()) else ~seen[..., None]
    return Sight(dead, unseen, _added(mask) if mask.numel() <= _SMALL else None)


def additive(mask: Tensor) -> Tensor:
    """0 where a mask on a CPU is True, -inf elsewhere, in float32; not to be written to."""
    return sight(mask).added(mask)


def _added(mask: Tensor) -> Tensor:
    # -inf is this integer in float32; a product takes a third of the time of masked_fill
    return (~mask).to(torch.int32).mul_(-(1 << 23)).view(torch.float32)


def shield(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Zeros for keys and values that no query sees and for queries that see no key, and which queries those are.

    ``mask`` (True = attend) broadcasts to ``[B, H, N, M]``; heads of the keys are already repeated. The queries
    that see nothing come as ``[..., N, 1]``, or None where it is cheap to know that all see something.
    """
    if mask.device.type != "cpu" or tracing():  # looking would stop a trace or wait for a GPU
        dead, unseen = ~mask.any(-1, keepdim=True), ~mask.any(-2)[..., None]
        return q.masked_fill(dead, 0.0), k.masked_fill(unseen, 0.0), v.masked_fill(unseen, 0.0), dead
    return shielded(q, k, v, sight(mask))


def shielded(q: Tensor, k: Tensor, v: Tensor, found: Sight) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As :func:`shield`, for a mask that was looked at."""
    if found.unseen is not None:
        hidden = found.unseen
        k, v = (x if _is_tame(x) else x.masked_fill(hidden, 0.0) for x in (k, v))
    if found.dead is None:
        return q, k, v, None
    return q if _is_tame(q) else q.masked_fill(found.dead, 0.0), k, v, found.dead


def in_range(bias: Tensor, kind: torch.dtype) -> Tensor:
    """Numbers to add to logits of a type: the lowest of a wider type means "hidden", and must not become -inf.

    A query whose keys are all hidden in that way sees them all; with -inf in its row it would get NaN.
    """
    if torch.finfo(bias.dtype).max <= torch.finfo(kind).max:
        return bias
    lowest = torch.finfo(kind).min
    return bias.masked_fill((bias < lowest) & (bias > -torch.inf), lowest)


def _any(mask: Tensor, dim: int) -> Tensor:
    # as bytes: torch's any() takes about twenty times as long
    return mask.view(torch.uint8).amax(dim).bool() if mask.shape[dim] else mask.any(dim)


def _is_tame(x: Tensor) -> bool:
    """Whether nothing in x turns a weight of 0 into a NaN; reading is several times faster than writing zeros."""
    if x.dtype == torch.float16 or not x.numel():
        return not x.numel()
    x = x.detach()
    laid = x.transpose(1, 2)
    if laid.is_contiguous():  # heads beside each other in each token, as projections leave them
        flat = laid.view(-1)
        return torch.dot(flat, flat).item() < 1e8
    # token by token: the norm of a whole view with gaps takes torch six times as long
    return bool(torch.linalg.vector_norm(x, dim=-1).amax() < 1e4)


def tracing() -> bool:
    """Whether torch.compile, torch.export or a transformation of torch.func is at work."""
    if torch.compiler.is_compiling():
        return True
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return bool(active()) if active is not None else False


def nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The zeros that a call without any query or key gives, which still carry gradients."""
    return (q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()) + q.new_zeros(q.shape)
