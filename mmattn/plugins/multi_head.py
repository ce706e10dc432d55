"""``torch.nn.functional.multi_head_attention_forward`` by the core, and ``nn.MultiheadAttention`` looked at."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.masks import Causal
from mmattn.plugins.calls import HostCall, host_call, run, weights_of
from mmattn.plugins.site import KEY, Seen, Site

_FUNCTION = inspect.signature(F.multi_head_attention_forward)
_MODULE = inspect.signature(nn.MultiheadAttention.forward)


class Inputs(NamedTuple):
    """What the function makes of its arguments before it attends."""

    call: HostCall
    batched: bool


def on_multi_head_attention_forward(
    site: Site, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Projections by the host's weights, attention by the core.

    True in its masks means hidden. A query without any key gets zeros, and so do its weights. A caller that asks for
    weights gets its result from them, as from the host: after dropout, and in N x M memory.

    Raises:
        RuntimeError: a mask has another shape than the host takes, or ``is_causal`` comes without a mask.
    """
    given = _FUNCTION.bind(*args, **kwargs)
    given.apply_defaults()
    wanted = given.arguments
    if not site.computed:
        if site.head_mask is not None:
            wanted["out_proj_weight"] = _masked_columns(site, wanted["out_proj_weight"], wanted["num_heads"])
            args, kwargs = given.args, given.kwargs
        site.count(routed=False)
        out = func(*args, **kwargs)
        if site.watchers:
            with torch.no_grad():
                _show(site, projected(site, wanted).call)
        return out  # type: ignore[no-any-return]
    call, batched = projected(site, wanted)
    weights = None
    if wanted["need_weights"]:
        heads, weights = _by_weights(site, call)
        weights = weights.mean(1) if wanted["average_attn_weights"] else weights
    else:
        heads = run(site, call)
    joined = heads.permute(2, 0, 1, 3).flatten(2)
    out = F.linear(joined, wanted["out_proj_weight"], wanted["out_proj_bias"])
    if not batched:
        out, weights = out[:, 0], None if weights is None else weights[0]
    return out, weights


def _masked_columns(site: Site, weight: Tensor, heads: int) -> Tensor:
    """The output projection ``[D, H K]`` with the head mask on its columns."""
    return site.masked(weight.unflatten(1, (heads, -1))[..., None]).flatten(1)


def beside(method: Callable[..., Any], catching: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of ``nn.MultiheadAttention``: as it is while it is only looked at, ``catching`` otherwise.

    A function mode around it would keep it from its fused path, whose results differ in the last bits.
    """

    @functools.wraps(method)
    def forward(self: nn.MultiheadAttention, *args: Any, **kwargs: Any) -> Any:
        site: Site = self.__dict__[KEY]
        if site.touches:
            return catching(self, *args, **kwargs)
        out = method(self, *args, **kwargs)
        site.entered = True
        site.count(routed=False)
        if site.watchers:
            given = _MODULE.bind(self, *args, **kwargs)
            given.apply_defaults()
            with torch.no_grad():
                _show_module(site, given.arguments)
        return out

    return forward


def _show_module(site: Site, given: dict[str, Any]) -> None:
    module, query, key, value = (given[name] for name in ("self", "query", "key", "value"))
    padding = given["key_padding_mask"]
    if query.is_nested:
        query, padding = padded(query, padding)
        key = value = query
    hint = given["is_causal"] and not given["need_weights"]
    show(site, module, query, key, value, padding, given["attn_mask"], hint)


def show(
    site: Site,
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
) -> None:
    """Show the attention of a module to the watchers, computed a second time from its inputs.

    Args:
        site: of the module.
        module: whose weights project.
        query, key, value: ``[B, N, D]`` or ``[N, B, D]``, as the module takes them, or without batch.
        key_padding_mask, attn_mask, is_causal: as the module takes them.
    """
    if module.batch_first and query.ndim == 3:
        same, alike = key is query, value is key
        query = query.transpose(0, 1)
        key = query if same else key.transpose(0, 1)
        value = key if alike else value.transpose(0, 1)
    wanted = {
        "query": query, "key": key, "value": value, "num_heads": module.num_heads,
        "in_proj_weight": module.in_proj_weight, "in_proj_bias": module.in_proj_bias,
        "bias_k": module.bias_k, "bias_v": module.bias_v, "add_zero_attn": module.add_zero_attn,
        "dropout_p": module.dropout, "training": module.training, "key_padding_mask": key_padding_mask,
        "need_weights": not is_causal, "attn_mask": attn_mask, "is_causal": is_causal,
        "use_separate_proj_weight": module.in_proj_weight is None, "q_proj_weight": module.q_proj_weight,
        "k_proj_weight": module.k_proj_weight, "v_proj_weight": module.v_proj_weight,
        "static_k": None, "static_v": None,
    }  # fmt: skip
    _show(site, projected(site, wanted).call)


def padded(x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A nested batch as ``[B, N, D]`` with zeros behind, and its padding mask, True = hidden."""
    if not x.is_nested:
        return x, padding
    lengths = torch.tensor([len(row) for row in x.unbind()], device=x.device)
    dense = x.to_padded_tensor(0.0)
    return dense, torch.arange(dense.shape[1], device=x.device) >= lengths[:, None]


def _show(site: Site, call: HostCall) -> None:
    site.show(Seen(call.q, call.k, call.v, call.terms))


def projected(site: Site, wanted: dict[str, Any]) -> Inputs:
    """The attention call inside, from the arguments of the function."""
    query, key, value = wanted["query"], wanted["key"], wanted["value"]
    batched = query.ndim == 3
    if not batched:
        same, alike = key is query, value is key
        query = query[:, None]
        key = query if same else key[:, None]
        value = key if alike else value[:, None]
    q, k, v = _projections(wanted, query, key, value)
    heads = wanted["num_heads"]
    # torch takes the hint for the mask where nothing else has to be merged with it
    causal = wanted["is_causal"] and wanted["key_padding_mask"] is None and not wanted["need_weights"]
    masks = _masks(wanted, causal, batched, (query.shape[1], query.shape[0], key.shape[0]))
    if wanted["bias_k"] is not None:
        k = torch.cat([k, wanted["bias_k"].to(k.dtype).expand(-1, k.shape[1], -1)])
        v = torch.cat([v, wanted["bias_v"].to(v.dtype).expand(-1, v.shape[1], -1)])
    q, k, v = (_heads_first(x, heads) for x in (q, k, v))
    if wanted["static_k"] is not None:
        k = wanted["static_k"].unflatten(0, (-1, heads))
    if wanted["static_v"] is not None:
        v = wanted["static_v"].unflatten(0, (-1, heads))
    if wanted["add_zero_attn"]:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    add = _added(masks, k.shape[2], q.dtype)
    scale = 1 / math.sqrt(q.shape[-1])
    dropout = wanted["dropout_p"] if wanted["training"] else 0.0
    mask = Causal("top-left") if causal else None
    return Inputs(host_call(site, q, k, v, mask, add, scale, dropout), batched)


def _projections(wanted: dict[str, Any], query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    bias = wanted["in_proj_bias"]
    if wanted["use_separate_proj_weight"]:
        weights = [wanted[f"{name}_proj_weight"] for name in "qkv"]
    elif query is key and key is value:
        return F.linear(query, wanted["in_proj_weight"], bias).chunk(3, dim=-1)
    else:
        weights = list(wanted["in_proj_weight"].chunk(3))
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """``[N, B, H K]`` as ``[B, H, N, K]``."""
    return x.reshape(*x.shape[:-1], heads, -1).permute(1, 2, 0, 3)


def _masks(wanted: dict[str, Any], causal: bool, batched: bool, sizes: tuple[int, int, int]) -> list[Tensor]:
    """The masks, each of four axes: boolean with True = hidden, or numbers."""
    batch, queries, keys = sizes
    heads, mask, padding = wanted["num_heads"], wanted["attn_mask"], wanted["key_padding_mask"]
    if mask is None and wanted["is_causal"]:
        raise RuntimeError("is_causal is only a hint and needs attn_mask as well: got none")
    masks = []
    if mask is not None and not causal:
        if mask.shape not in ((queries, keys), (batch * heads, queries, keys)):
            raise RuntimeError(
                f"attn_mask must be [{queries}, {keys}] or [{batch * heads}, {queries}, {keys}]: "
                f"got shape {list(mask.shape)}"
            )
        masks.append(mask[None, None] if mask.ndim == 2 else mask.unflatten(0, (-1, heads)))
    if padding is not None:
        padding = padding if batched else padding[None]
        if padding.shape != (batch, keys):
            raise RuntimeError(f"key_padding_mask must be [{batch}, {keys}]: got shape {list(padding.shape)}")
        masks.append(padding[:, None, None])
    return masks


def _added(masks: list[Tensor], keys: int, dtype: torch.dtype) -> Tensor | None:
    """One mask, True = attend, or numbers to add; keys that were put behind are seen by all."""
    if not masks:
        return None
    masks = [F.pad(m, (0, keys - m.shape[-1])) if m.shape[-1] < keys else m for m in masks]
    if all(m.dtype == torch.bool for m in masks):
        hidden = masks[0] if len(masks) == 1 else masks[0] | masks[1]
        return ~hidden
    numbers = [
        torch.zeros_like(m, dtype=dtype).masked_fill(m, -math.inf) if m.dtype == torch.bool else m
        for m in masks
    ]
    return numbers[0] if len(numbers) == 1 else numbers[0] + numbers[1]


def _by_weights(site: Site, call: HostCall) -> tuple[Tensor, Tensor]:
    """The result of a call, and the weights ``[B, H, N, M]`` that it was summed by."""
    site.count(routed=True)
    weights = weights_of(call)
    if site.on_weights is not None:
        weights = site.on_weights(weights)
    used = weights.to(call.v.dtype)
    if call.terms.dropout:
        used = F.dropout(used, call.terms.dropout)
    _show(site, call)
    return call.back(site.masked(used @ call.v)), used
