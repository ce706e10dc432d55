"""Every attention call of a model with its weights in the open, for the time of a ``with``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Backend, Terms, attention_weights
from mmattn.plugins.find import class_name
from mmattn.plugins.hosts import LEFT_ALONE
from mmattn.plugins.site import Seen, Site, sites, watching
from mmattn.plugins.swap import Report, attach, detach


@dataclass
class Attended:
    """One attention call.

    Attributes:
        name: of the module that makes it.
        q, k, v: ``[B, H, N, K]`` and ``[B, H_kv, M, K]`` with their graph and windows among the batch; None where
            the host made the weights itself.
        weights: ``[B, H, N, M]`` with their graph, as the values are summed by them.
    """

    name: str
    weights: Tensor
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None


#: Given a call, the weights that the values are to be summed by.
Use = Callable[[Attended], Tensor]


@contextmanager
def explicit(model: nn.Module, use: Use, done: Callable[[Attended], None]) -> Iterator[list[str]]:
    """Let all attention of a model run step by step while the block runs: weights first, then their sum of values.

    Args:
        model: of another library, plugged in or not, or made of our own modules.
        use: is given each call before its weights are used, ``q``, ``k`` and ``v`` not filled in yet.
        done: is given the same call after it, filled in.

    Yields:
        The names of the modules that make attention calls.

    Raises:
        ValueError: the model makes no attention calls, or a module of it mixes tokens by something else.
    """
    ours = {name: part for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)}
    with ExitStack() as stack:
        report = stack.enter_context(_lent_sites(model))
        _check(model, report, bool(ours))
        for _, site in list(sites(model)):
            stack.enter_context(_opened(site, use, done))
        for name, part in ours.items():
            stack.enter_context(_set(part, "backend", _StepByStep(name, use, done)))
        yield [*report.swapped, *ours]


def _check(model: nn.Module, report: Report, ours: bool) -> None:
    parts = dict(model.named_modules())
    for name, why in report.skipped.items():
        if class_name(type(parts[name])) in LEFT_ALONE or "forward" in parts[name].__dict__:
            raise ValueError(
                f"relevance needs every module that mixes tokens to be attention: got {name}, {why}"
            )
    if not report.swapped and not ours:
        raise ValueError(f"the model must have attention: got {type(model).__name__} without any")


@contextmanager
def _lent_sites(model: nn.Module) -> Iterator[Report]:
    """Sites in all attention modules; those that were not there before are taken out again."""
    before = {site for _, site in sites(model)}
    report = Report()
    try:
        attach(model, report, routed=False)
        yield report
    finally:
        detach(model, lambda site: site not in before)


@contextmanager
def _opened(site: Site, use: Use, done: Callable[[Attended], None]) -> Iterator[None]:
    running: list[Attended] = []

    def on_weights(weights: Tensor) -> Tensor:
        running.append(Attended(site.name, weights))
        return use(running[-1])

    def on_seen(seen: Seen) -> None:
        call = running.pop()
        call.q, call.k, call.v = seen.q, seen.k, seen.v
        done(call)

    with _set(site, "on_weights", on_weights), watching(site, on_seen):
        yield


class _StepByStep(Backend):
    """The formula, for our own modules, with a look at its weights."""

    name = "explicit"

    def __init__(self, module: str, use: Use, done: Callable[[Attended], None]) -> None:
        self.module, self.use, self.done = module, use, done

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        call = Attended(self.module, attention_weights(q, k, replace(terms, dropout=0.0)), q, k, v)
        out = self.use(call).to(v.dtype) @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        self.done(call)
        return out


@contextmanager
def _set(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
