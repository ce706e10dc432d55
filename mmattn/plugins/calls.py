"""One attention call of a host, in the core's terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends import Mask, Terms
from mmattn.functional import attend, attention_weights
from mmattn.masks import Causal, Pattern
from mmattn.plugins.site import Seen, Site


class HostCall(NamedTuple):
    """Queries ``[B, H, N, K]``, keys ``[B, H_kv, M, K]``, values ``[B, H_kv, M, K_v]`` and the terms.

    ``back`` gives a result ``[B, H, N, K_v]`` the axes that the host expects.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    terms: Terms
    back: Callable[[Tensor], Tensor]


def from_sdpa(
    site: Site,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> HostCall:
    """A call of ``torch.nn.functional.scaled_dot_product_attention``: True = attend, causal from the top left."""
    mask: Mask = Causal("top-left") if is_causal else None
    return host_call(
        site, q, k, v, mask, attn_mask, 1 / math.sqrt(q.shape[-1]) if scale is None else scale, dropout_p
    )


def host_call(
    site: Site,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask,
    add: Tensor | None,
    scale: float,
    dropout: float = 0.0,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
) -> HostCall:
    """A call with any number of axes, the last two of which are tokens and features.

    Args:
        site: the module that calls.
        q, k, v: queries, keys and values.
        mask: a pattern, or None.
        add: a boolean mask, True = attend, or numbers added to the logits, that broadcasts to the logits.
        scale, dropout, soft_cap, sinks: as in :func:`~mmattn.attend`.
    """
    q, k, v = in_autocast(q, k, v)
    q, k, v, add, back = _four_axes(site, q, k, v, add)
    bias = None
    if add is not None and add.dtype == torch.bool:
        mask = add if mask is None else add & _drawn(mask, q, k)
    elif add is not None:
        bias = add
    if site.window is not None:
        mask = both(mask, site.window, q, k)
    return HostCall(q, k, v, Terms(scale, mask, bias, soft_cap, sinks, dropout), back)


def straight(
    site: Site, q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float | None, dropout: float
) -> Tensor | None:
    """The result of a call that the core takes as it is; None where more is wanted, or it must be brought into form.

    It is what :func:`host_call` and :func:`run` give, with less Python between the host's large products.
    """
    if not site.only_routes or not q.is_cpu or q.ndim != 4 or torch.is_autocast_enabled("cpu"):
        return None
    shape, of_keys = q.shape, k.shape
    if of_keys != v.shape or shape[0] != of_keys[0] or shape[1] % of_keys[1] or shape[3] != of_keys[3]:
        return None
    if site.num_heads not in (None, shape[1]):  # its heads lie elsewhere
        return None
    site.count(routed=True)
    return attend(q, k, v, mask=mask, scale=scale, dropout=dropout, backend=site.backend)


def in_autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What autocast makes of the arguments of ``scaled_dot_product_attention``."""
    if q.device.type == "meta" or not torch.is_autocast_enabled(q.device.type):
        return q, k, v
    kind = torch.get_autocast_dtype(q.device.type)
    return tuple(  # type: ignore[return-value]
        x.to(kind) if x.is_floating_point() and x.dtype != torch.float64 else x for x in (q, k, v)
    )


def run(site: Site, call: HostCall) -> Tensor:
    """The result of a call, computed by the core, in the host's axes."""
    q, k, v, terms, back = call
    site.count(routed=True)
    if site.on_weights is not None:
        out = _step_by_step(site, call)
    else:
        width = v.shape[-1]
        if width != q.shape[-1]:
            q, k, v = _equally_wide(q, k, v)
        out = attend(
            q, k, v, mask=terms.mask, bias=terms.bias, scale=terms.scale, soft_cap=terms.soft_cap,
            sinks=terms.sinks, dropout=terms.dropout, backend=site.backend,
        )[..., :width]  # fmt: skip
    site.show(Seen(call.q, call.k, call.v, terms))
    return back(site.masked(out))


def weights_of(call: HostCall | Seen) -> Tensor:
    """The weights ``[B, H, N, M]`` of a call."""
    assert call.q is not None
    assert call.k is not None
    assert call.terms is not None
    terms = call.terms
    return attention_weights(
        call.q, call.k, mask=terms.mask, bias=terms.bias, scale=terms.scale, soft_cap=terms.soft_cap,
        sinks=terms.sinks, q_coords=terms.q_coords, k_coords=terms.k_coords,
    )  # fmt: skip


def _step_by_step(site: Site, call: HostCall) -> Tensor:
    assert site.on_weights is not None
    weights = site.on_weights(weights_of(call)).to(call.v.dtype)
    if call.terms.dropout:
        weights = F.dropout(weights, call.terms.dropout)
    return weights @ call.v.repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=1)


def _equally_wide(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros behind the narrower features, which change neither products nor sums."""
    width = max(q.shape[-1], v.shape[-1])
    return tuple(F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in (q, k, v))  # type: ignore[return-value]


def _drawn(mask: Mask, q: Tensor, k: Tensor) -> Tensor:
    if isinstance(mask, Pattern):
        return mask.dense(q.shape[-2], k.shape[-2], q.device)
    assert mask is not None
    return mask


def both(mask: Mask, window: Pattern, q: Tensor, k: Tensor) -> Mask:
    """A mask and a pattern on top of it, for queries ``[..., N, K]`` and keys ``[..., M, K]``."""
    if mask is None:
        return window
    return mask & window if isinstance(mask, Pattern) else mask & _drawn(window, q, k)


def _four_axes(
    site: Site, q: Tensor, k: Tensor, v: Tensor, add: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Callable[[Tensor], Tensor]]:
    heads, shape = site.num_heads, q.shape
    if q.ndim == 4:
        if site.groups == shape[2] > 1 and shape[1] * shape[2] == heads and shape[1] == k.shape[1]:
            # one query, whose heads that share keys were laid out as queries
            if add is not None:
                add = add.reshape(add.shape[0], -1, 1, add.shape[-1])
            return q.reshape(shape[0], heads, 1, -1), k, v, add, lambda out: out.reshape(*shape[:3], -1)
        batch = max(shape[0], k.shape[0])
        if batch != min(shape[0], k.shape[0]):
            q, k, v = (x.expand(batch, *x.shape[1:]) for x in (q, k, v))
        return q, k, v, add, _as_it_is
    if q.ndim == 2:
        return q[None, None], k[None, None], v[None, None], add, lambda out: out[0, 0]
    if q.ndim == 3:
        if heads is not None and heads > 1 and shape[0] % heads == 0:  # heads folded into the batch
            q, k, v = (x.unflatten(0, (-1, heads)) for x in (q, k, v))
            if add is not None and add.ndim == 3 and add.shape[0] > 1:
                add = add.unflatten(0, (-1, heads))
            return q, k, v, add, lambda out: out.flatten(0, 1)
        add = None if add is None else add[:, None] if add.ndim == 3 else add
        return q[:, None], k[:, None], v[:, None], add, lambda out: out[:, 0]
    axis = heads_axis(site, shape)
    if add is not None and add.ndim > 2:
        full = torch.broadcast_shapes((*shape[:-2], 1, 1), add.shape)
        add = add.expand(full).movedim(axis, -3).flatten(0, -4)
    lead = torch.broadcast_shapes(shape[:-2], k.shape[:-2])
    q, k, v = (x.expand(*lead, *x.shape[-2:]).movedim(axis, -3) for x in (q, k, v))
    outer = q.shape[:-3]
    q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    return q, k, v, add, lambda out: out.unflatten(0, outer).movedim(-3, axis)


def heads_axis(site: Site, shape: torch.Size) -> int:
    """Which of the leading axes are heads, in calls of five and more axes."""
    if site.heads_axis is not None:
        return site.heads_axis
    if site.num_heads is not None:
        fitting = [i for i in range(1, len(shape) - 2) if shape[i] == site.num_heads]
        if fitting:
            return fitting[0]
    return 1


def observed_weights(site: Site, weights: Tensor) -> Tensor:
    """Weights that the host made itself, shown, and with the masks of the heads."""
    site.count(routed=False)
    if not site.watchers and site.head_mask is None and site.on_weights is None:
        return weights
    four, _, _, _, back = _four_axes(site, weights, weights, weights, None)
    keys = four.shape[-1] - site.sink_columns
    if site.on_weights is not None:
        four = torch.cat([site.on_weights(four[..., :keys]), four[..., keys:]], dim=-1)
    site.show(Seen(None, None, None, None, four[..., :keys]))
    if site.head_mask is None and site.on_weights is None:
        return weights
    return back(site.masked(four))


def masked_result(site: Site, out: Tensor) -> Tensor:
    """What the host's own call gave, with the mask of the heads."""
    if site.head_mask is None:
        return out
    four, _, _, _, back = _four_axes(site, out, out, out, None)
    return back(site.masked(four))


def _as_it_is(out: Tensor) -> Tensor:
    return out
