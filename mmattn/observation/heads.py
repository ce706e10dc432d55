"""Masks on heads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.plugins.cuts import Heads
from mmattn.plugins.find import find, num_heads
from mmattn.plugins.site import HEADS, Site, site_of, sites
from mmattn.plugins.swap import Report, attach, detach

Masks = Mapping[str, Tensor | None]


def set_head_mask(model: nn.Module, masks: Masks) -> None:
    """Multiply the results of heads by factors: 0 takes a head out, a gate with gradient can be learned.

    The results are those before the output projection (Michel et al. 2019). A model that is not plugged in goes on
    computing by itself, and the factors are put on its heads' results (or, where it spells the softmax out, on their
    weights); plugged in, the core does. ``unplug`` takes masks out of hosts. A mask is no part of ``state_dict``.

    Args:
        model: ours, or one of torch.nn, timm, torchvision, torchaudio or transformers; plugged in or not.
        masks: by name of an attention module, factors ``[H]``, or None to take the mask away. Heads count as in the
            model before :func:`~mmattn.prune_heads`; the factors of heads that are gone have no effect. Modules
            that are not named keep what they have.

    Raises:
        ValueError: there is no attention module of this name, or a mask has another shape.

    Example:
        >>> import torch
        >>> from mmattn import TokenBatch, build_encoder
        >>> encoder = build_encoder(embed_dim=8, depth=1, num_heads=2)
        >>> set_head_mask(encoder, {"blocks.0.attention": torch.tensor([1.0, 0.0])})
        >>> _ = encoder(TokenBatch(torch.randn(5, 8), [3, 2]))
        >>> set_head_mask(encoder, {"blocks.0.attention": None})
    """
    known = attention_modules(model)
    for name, mask in masks.items():
        if name not in known:
            raise ValueError(
                f"a head mask must be for an attention module: got {name!r}, known are {sorted(known)}"
            )
        _check_mask(name, mask, heads_at_first(known[name]))
    hosts = {name for name in masks if not isinstance(known[name], MultiHeadAttention)}
    attach_quietly(model, {name for name in hosts if masks[name] is not None})
    for name, mask in masks.items():
        kept = known[name].__dict__.get(HEADS)
        if mask is not None and kept is not None and kept.narrow:
            mask = mask[kept.rest]
        if name not in hosts:
            _set_own(known[name], mask)
        elif (site := site_of(known[name])) is not None:
            site.head_mask = mask
    detach(model, idle)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a model by name: our own, and those of hosts that make attention calls."""
    own = {name: m for name, m in model.named_modules() if isinstance(m, MultiHeadAttention)}
    sited = {n: m for n, m in model.named_modules() if (s := site_of(m)) is not None and s.name == n}
    return own | find(model).calling | sited


def attach_quietly(model: nn.Module, names: set[str]) -> None:
    """Put sites into modules that have none; their hosts go on computing."""
    had = {id(site) for _, site in sites(model)}
    attach(model, Report(), lambda name, _: name in names)
    for _, site in sites(model):
        if id(site) not in had:
            site.routed = False


def idle(site: Site) -> bool:
    return not (site.routed or site.watchers or site.on_weights is not None or site.head_mask is not None)


class Columns:
    """A hook before an output projection: factors ``[H]`` on the columns ``[..., H K]`` that it takes."""

    def __init__(self, factors: Tensor) -> None:
        self.factors = factors

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        by_head = x.unflatten(-1, (self.factors.shape[0], -1))
        return ((by_head * self.factors.to(x)[:, None]).flatten(-2), *args[1:])


def _set_own(module: nn.Module, mask: Tensor | None) -> None:
    """Of our modules: a fused block sees the hook and goes part by part."""
    assert isinstance(module, MultiHeadAttention)
    hooks = module.out_proj._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, Columns)]:
        del hooks[key]
    if mask is not None:
        module.out_proj.register_forward_pre_hook(Columns(mask))


def mask_of(module: nn.Module) -> Tensor | None:
    if isinstance(module, MultiHeadAttention):
        hooks = module.out_proj._forward_pre_hooks.values()
        return next((hook.factors for hook in hooks if isinstance(hook, Columns)), None)
    site = site_of(module)
    return None if site is None else site.head_mask


def put_mask(module: nn.Module, mask: Tensor | None) -> None:
    if isinstance(module, MultiHeadAttention):
        _set_own(module, mask)
    else:
        site = site_of(module)
        assert site is not None
        site.head_mask = mask


def heads_at_first(module: nn.Module) -> int | None:
    """How many heads a module had at first, where it says it."""
    known: Heads | None = module.__dict__.get(HEADS)
    return num_heads(module) if known is None else known.total


def _check_mask(name: str, mask: Tensor | None, heads: int | None) -> None:
    if mask is not None and (mask.ndim != 1 or (heads is not None and len(mask) != heads)):
        many = "the" if heads is None else heads
        raise ValueError(
            f"a head mask must be one factor for each of {many} heads: got shape {list(mask.shape)} for {name!r}"
        )
