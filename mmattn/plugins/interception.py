"""Catching the attention calls of a host while one of its modules runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mmattn.masks import Causal
from mmattn.plugins.calls import from_sdpa, masked_result, observed_weights, run, straight
from mmattn.plugins.logits import PRODUCTS, on_baddbmm, on_product
from mmattn.plugins.multi_head import on_multi_head_attention_forward
from mmattn.plugins.site import Seen, Site

Handler = Callable[[Site, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Interceptor(TorchFunctionMode):
    """Sends attention calls to the core, and lets all other functions pass.

    A mode holds for one thread and one ``with``; a module that enters it anew in each forward pass works in
    threads, under activation checkpointing and under ``torch.compile``.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        handler = HANDLERS.get(func)
        if handler is None:
            return func(*args, **kwargs) if kwargs else func(*args)
        return handler(self.site, func, args, kwargs or {})


def on_sdpa(site: Site, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``scaled_dot_product_attention``."""
    if site.only_routes and (done := _straight(site, *args, **kwargs)) is not None:
        return done
    named = {_SDPA_NAMES.get(name, name): value for name, value in kwargs.items()}
    if site.computed:
        return run(site, from_sdpa(site, *args, **named))
    site.count(routed=False)
    out = func(*args, **kwargs)
    if site.watchers:
        call = from_sdpa(site, *args, **named)
        site.show(Seen(call.q, call.k, call.v, call.terms))
    return masked_result(site, out)


_TOP_LEFT = Causal("top-left")


def _straight(
    site: Site,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if attn_mask is not None:
        return None
    return straight(site, query, key, value, _TOP_LEFT if is_causal else None, scale, dropout_p)


_SDPA_NAMES = {"query": "q", "key": "k", "value": "v"}


def on_softmax(site: Site, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A softmax that the host takes itself: of logits that could not stay unwritten, or of something else."""
    logits = args[0] if args else kwargs.get("input")
    out = func(*args, **kwargs)
    if site.blends:
        site.blending = True
        return out
    if not isinstance(logits, Tensor) or not isinstance(out, Tensor) or out.ndim < 3:
        return out
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dim not in (-1, out.ndim - 1):
        return out
    return observed_weights(site, out)


HANDLERS: dict[Any, Handler] = {
    F.scaled_dot_product_attention: on_sdpa,
    F.multi_head_attention_forward: on_multi_head_attention_forward,
    F.softmax: on_softmax,
    torch.softmax: on_softmax,
    Tensor.softmax: on_softmax,
    **dict.fromkeys(PRODUCTS, on_product),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), on_baddbmm),
}
