"""What masks and biases hide, as numbers to add to the logits, and the queries that they leave without a key."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.base import Mask, four_axes, trimmed_band
from mmattn.backends.cpu.kernels import adjacent
from mmattn.backends.cpu.layouts import Part
from mmattn.backends.cpu.plans import Group
from mmattn.backends.ready import Ready
from mmattn.backends.unseen import additive, extent, shield, shielded, sight
from mmattn.masks import Band, Pattern


def masked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Part, Tensor, Tensor, Tensor]:
    """The part of a dense call with a drawn mask, and the tensors without what nobody may see."""
    dead, add = None, None
    if mask is not None:
        q, k, v, dead = shield(q, k, v, mask)
        add = additive(mask)
    if bias is not None:
        dead = _dead(bias.detach() if add is None else bias.detach() + add)
    if dead is not None and add is not None:
        add = add.masked_fill(dead, 0.0)
    return Part(add=add, dead=dead), q, k, v


def masked_flash(scale: float) -> Ready:
    """torch's fused kernel with a boolean mask ``[..., N, M]``."""

    def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        mask = four_axes(mask)
        found = sight(mask)
        q, k, v, dead = shielded(q, k, v, found)
        add = found.added(mask)
        if dead is not None:
            add = add.masked_fill(dead, 0.0)
        q, k, v = adjacent(q), adjacent(k), adjacent(v)
        out = F.scaled_dot_product_attention(q, k, v, add.to(q.dtype), scale=scale)
        return out if dead is None else out.masked_fill(dead, 0.0)

    return flash


def _dead(add: Tensor) -> Tensor | None:
    """Which queries, ``[..., N, 1]``, are left without a key by what is added to the logits; None for none."""
    dead = add.amax(-1, keepdim=True) == -torch.inf
    return dead if bool(dead.any()) else None


def group_part(group: Group, mask: Mask, holes: Tensor | None, biased: bool) -> Part:
    """How a group runs; ``holes`` is a bias ``[1, H, N, M]`` with -inf in it."""
    n, m = group.queries, group.keys
    cut = (slice(n), slice(m)) if biased else None
    if not n or not m:
        return Part(cut)
    band = trimmed_band(mask, n, m)
    if band == Band(None, 0) and holes is None:
        # what lies behind the end of a sequence is hidden from its queries by the diagonal
        return Part(cut, causal=True)
    add = group.behind
    if isinstance(mask, Pattern) and band != Band(None, None):
        drawn = _drawn(mask, n, m)
        add = drawn if add is None else drawn + add
    if add is None and holes is None:
        return Part(cut)
    dead = None
    if holes is not None:
        holes = holes[..., :n, :m]
        dead = _dead(holes if add is None else holes + add)
    elif mask is not None:
        assert add is not None
        dead = _dead(add)  # fillers behind the end may see nothing
    if dead is not None and add is not None:
        add = add.masked_fill(dead, 0.0)
    return Part(cut, add, dead=dead)


@lru_cache(maxsize=64)
def _drawn(mask: Pattern, n: int, m: int) -> Tensor:
    """The mask as numbers to add, ``[1, 1, N, M]``."""
    return additive(mask.dense(n, m)[None, None])


@lru_cache(maxsize=256)
def hides(mask: Pattern, n: int, m: int) -> bool:
    """Whether a pattern hides a key from all queries or all keys from a query."""
    band = mask.band(n, m)
    if band is not None:
        return extent(band, n, m) != ((0, n), (0, m))
    drawn = mask.dense(n, m)
    return not bool(drawn.any(-1).all() and drawn.any(-2).all())
