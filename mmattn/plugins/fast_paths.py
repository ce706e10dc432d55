"""The fused paths of torch.nn's encoder, which pass their attention module by.

In eval without gradients ``nn.TransformerEncoderLayer`` hands the weights of its attention to one fused function and
never calls the module; ``nn.TransformerEncoder`` moreover turns padded batches into nested tensors, which only that
function takes. While something touches the attention inside (the core, a head mask), both are off. While it is only
looked at they run as ever, and the layer tells of the attention that was passed by.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.plugins import multi_head
from mmattn.plugins.site import Site, site_of


def members(kind: type[nn.Module]) -> dict[str, Any]:
    """What the class that stands in for an encoder or for its layer adds; nothing for other classes."""
    if issubclass(kind, nn.TransformerEncoderLayer):
        added: dict[str, Any] = {"activation_relu_or_gelu": _off_while_touched("activation_relu_or_gelu", 0)}
        if kind.forward is nn.TransformerEncoderLayer.forward:
            added["forward"] = _telling(kind.forward)
        return added
    if issubclass(kind, nn.TransformerEncoder):
        return {"use_nested_tensor": _off_while_touched("use_nested_tensor", False)}
    return {}


def around_sites(model: nn.Module) -> Iterator[nn.Module]:
    """Encoders and their layers with attention inside that has a site."""
    for module in model.modules():
        if isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer)) and any(_inside(module)):
            yield module


def _inside(module: nn.Module) -> Iterator[Site]:
    if isinstance(module, nn.TransformerEncoderLayer):
        site = site_of(module.self_attn)
        if site is not None:
            yield site
    elif isinstance(module, nn.TransformerEncoder):
        for layer in module.layers:
            yield from _inside(layer)


def keep(module: nn.Module) -> None:
    """Put the attributes that a stand-in class answers for itself aside, as they are."""
    for name in members(type(module)):
        if name in module.__dict__:
            module.__dict__[_KEPT + name] = module.__dict__.pop(name)


def give_back(module: nn.Module) -> None:
    """Put them where they were."""
    for name in [name for name in module.__dict__ if name.startswith(_KEPT)]:
        module.__dict__[name.removeprefix(_KEPT)] = module.__dict__.pop(name)


#: A property that reads ``__dict__`` under its own name is more than torch.compile can trace: hence another name.
_KEPT = "_mmattn_kept_"


def _off_while_touched(name: str, off: Any) -> property:
    """The attribute that the host asks before it takes its fast path; what was set stays set."""

    def value(self: nn.Module) -> Any:
        return off if any(site.touches for site in _inside(self)) else getattr(self, _KEPT + name)

    def set_kept(self: nn.Module, new: Any) -> None:
        self.__dict__[_KEPT + name] = new

    return property(value, set_kept)


_LAYER = inspect.signature(nn.TransformerEncoderLayer.forward)


def _telling(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The layer's forward, and a word to the watchers where it did not call its attention."""

    @functools.wraps(method)
    def forward(self: nn.TransformerEncoderLayer, *args: Any, **kwargs: Any) -> Tensor:
        site = site_of(self.self_attn)
        if site is None or not site.watchers or site.touches:
            return method(self, *args, **kwargs)
        site.entered = False
        out = method(self, *args, **kwargs)
        if not site.entered:
            with torch.no_grad():
                _tell(self, site, _LAYER.bind(self, *args, **kwargs).arguments)
        return out

    return forward


class Layer(nn.TransformerEncoderLayer):
    """Comes between ``nn.TransformerEncoderLayer`` and a subclass whose forward calls it."""

    forward = _telling(nn.TransformerEncoderLayer.forward)


def _tell(layer: nn.TransformerEncoderLayer, site: Site, given: dict[str, Any]) -> None:
    src, padding = multi_head.padded(given["src"], given.get("src_key_padding_mask"))
    x = layer.norm1(src) if layer.norm_first else src
    multi_head.show(site, layer.self_attn, x, x, x, key_padding_mask=padding, attn_mask=given.get("src_mask"))
