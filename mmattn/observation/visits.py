"""Sites and hooks that are in a model for the length of a ``with``."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Explanation
from mmattn.observation.calls import Call, Run
from mmattn.observation.own import call_of, explanation_of
from mmattn.plugins.classes import is_plugged, plugged, undress
from mmattn.plugins.find import find
from mmattn.plugins.interface import calls_core
from mmattn.plugins.site import Seen, Site, in_backward, site_of, sites, watching
from mmattn.plugins.swap import Report, attach, detach
from mmattn.tokens import TokenBatch

Take = Callable[[str, Call], None]

#: Who is looking at what came into a model for observing alone; several threads may observe one model.
_VISITORS: dict[Site | MultiHeadAttention, int] = {}
_LOCK = threading.Lock()

_TRACED_ANEW = "_mmattn_traced_anew"


def attentions(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """By name the modules whose attention can be looked at, and those of which it cannot, with the reason."""
    found = find(model)
    seen: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        ours, known = isinstance(module, MultiHeadAttention), _has_site(module)
        new = name in found.calling and not any(_has_site(part) for part in module.modules())
        if ours or known or new:
            seen[name] = module
    return seen, {name: why for name, why in found.skipped.items() if name not in seen}


def _has_site(module: nn.Module) -> bool:
    """Whether a site is there for attention, not only for what was set on an encoder's layer."""
    site = site_of(module)
    return site is not None and (is_plugged(type(module)) or not site.undo)


@contextmanager
def visiting(
    model: nn.Module, modules: dict[str, nn.Module], take: Take, explaining: bool, compiled: bool
) -> Iterator[None]:
    """Have every attention call of these modules of a model taken while the block runs; nothing of it remains."""
    ours = {name: module for name, module in modules.items() if isinstance(module, MultiHeadAttention)}
    others = {name: module for name, module in modules.items() if name not in ours}
    with ExitStack() as stack:
        for name, part in ours.items():
            hook = part.register_forward_hook(_hook(name, take, explaining), with_kwargs=True)
            stack.callback(hook.remove)
        if compiled or _compiled(model):
            stack.enter_context(_traced_anew(list(ours.values())))
        stack.enter_context(_sites(model, others))
        for name, module in others.items():
            site = site_of(module)
            assert site is not None
            stack.enter_context(watching(site, _watcher(name, module, site, take, explaining)))
        yield


@contextmanager
def _sites(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    """Sites in modules that have none; they leave with the last who looks."""
    with _LOCK:
        before = {site for _, site in sites(model)}
        attach(model, Report(), lambda name, _: name in modules, routed=False)
        found = {site for module in modules.values() if (site := site_of(module)) is not None}
        _enter(found - before, found)
    try:
        yield
    finally:
        with _LOCK:
            # one that was plugged in or masked meanwhile stays
            gone = {site for site in _leave(found) if isinstance(site, Site) and not site.touches}
            detach(model, gone.__contains__)


@contextmanager
def _traced_anew(modules: Sequence[MultiHeadAttention]) -> Iterator[None]:
    """Have the modules of a compiled model traced anew, and as before when nobody looks any more.

    A graph does not ask whether there are hooks now. It does ask for the class of a module, yet only after something
    was written into the module.
    """
    found = set(modules)
    with _LOCK:
        _enter({module for module in found if not is_plugged(type(module))}, found)
        for module in found:
            if not is_plugged(type(module)):
                module.__class__ = cast(Any, plugged(type(module), catching=False))  # type: ignore[arg-type]  # it is hashable
                module.__dict__[_TRACED_ANEW] = True
    try:
        yield
    finally:
        with _LOCK:
            for one in _leave(found):
                assert isinstance(one, nn.Module)
                undress(one)
                del one.__dict__[_TRACED_ANEW]


def _enter(new: Set[Site | MultiHeadAttention], found: Set[Site | MultiHeadAttention]) -> None:
    _VISITORS.update(dict.fromkeys(new, 0))
    for one in found & _VISITORS.keys():
        _VISITORS[one] += 1


def _leave(found: Set[Site | MultiHeadAttention]) -> list[Site | MultiHeadAttention]:
    """Those that nobody looks at any more."""
    gone = []
    for one in found & _VISITORS.keys():
        _VISITORS[one] -= 1
        if not _VISITORS[one]:
            del _VISITORS[one]
            gone.append(one)
    return gone


def _compiled(model: nn.Module) -> bool:
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


def _watcher(
    name: str, module: nn.Module, site: Site, take: Take, explaining: bool
) -> Callable[[Seen], None]:
    @_outside_of_graphs
    def watcher(seen: Seen) -> None:
        run = Run(_detached(seen.q), _detached(seen.k), seen.terms, _detached(seen.weights))
        explanation = _explanation(site, seen, site.touches or calls_core(module)) if explaining else None
        take(name, Call((run,), run.shape[1], explanation))

    return watcher


def _explanation(site: Site, seen: Seen, by_core: bool) -> Explanation:
    if seen.q is None or seen.k is None or seen.v is None or seen.terms is None:
        return Explanation("host", "its library makes the weights by itself", {})
    grad = any(x.requires_grad for x in (seen.q, seen.k, seen.v))
    v = seen.v if seen.v.shape == seen.k.shape else seen.k.to(seen.v.dtype)
    core = explanation_of(seen.q, seen.k, v, seen.terms, site.backend, grad)
    if site.on_weights is not None:
        return Explanation("math", "the weights are changed on their way", {})
    if by_core:
        return core
    plugged_in = {core.chosen: f"the module is not plugged in, else it would: {core.reason}"}
    return Explanation("host", "the module is not plugged in", plugged_in | core.others)


def _hook(name: str, take: Take, explaining: bool) -> Callable[..., None]:
    @_outside_of_graphs
    def hook(part: MultiHeadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if in_backward():  # activation checkpointing repeats a forward pass
            return
        fused = (
            out is None
        )  # the block that holds the module runs as one node, and shows what it would be given
        grad = fused or _values(out).requires_grad
        call = call_of(part, args, kwargs, explaining and not fused, grad)
        if fused and explaining:
            reason = "the block around it runs as one node of the autograd graph"
            call = Call(call.runs, call.num_heads, Explanation("fused", reason, {}))
        take(name, call)

    hook.only_looks = True  # type: ignore[attr-defined]  # so that fused blocks stay fused
    return hook


def _outside_of_graphs(function: Callable[..., None]) -> Callable[..., None]:
    """The function, run as it is between compiled graphs: what is to be kept are tensors, not their traces."""
    if "torch._dynamo" in sys.modules:
        return torch.compiler.disable(function)  # type: ignore[no-any-return]  # torch leaves it untyped

    @functools.wraps(function)
    def called(*args: Any) -> None:
        # the compiler takes seconds and a hundred MiB to load: only where somebody compiles inside the block
        if torch.compiler.is_compiling():
            torch.compiler.disable(function)(*args)
        else:
            function(*args)

    return called


def _values(out: TokenBatch | Tensor) -> Tensor:
    return out.values if isinstance(out, TokenBatch) else out


def _detached(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()
