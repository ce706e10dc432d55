"""What is known of, and wanted from, one attention module of a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmattn.backends import Backend, Terms
from mmattn.masks import Pattern

#: Where a plugged module keeps its :class:`Site`.
KEY = "_mmattn_site"

#: Where a module that lost heads keeps which are left, a :class:`~mmattn.plugins.cuts.Heads`.
HEADS = "_mmattn_heads"


class Seen(NamedTuple):
    """One attention call, as a watcher is shown it.

    Attributes:
        q: ``[B, H, N, K]``, with windows among the batch; None where the host made the weights itself.
        k, v: ``[B, H_kv, M, K]``; the values may have another width.
        terms: how the products become weights; its dropout is that of the host.
        weights: ``[B, H, N, M]``, where the host made them itself.
    """

    q: Tensor | None
    k: Tensor | None
    v: Tensor | None
    terms: Terms | None
    weights: Tensor | None = None


Watcher = Callable[[Seen], None]


@dataclass(eq=False)
class Site:
    """The state of one plugged module.

    Attributes:
        name: of the module inside its model.
        routed: whether the core computes; otherwise the host does, and is looked at.
        backend: of the core.
        window: a pattern that is put on top of the host's masks.
        head_mask: ``[H]``: factors on the results of the heads.
        num_heads: H, where the module says it.
        heads_axis: of calls with more than four axes, where it is known.
        groups: heads of queries that share a head of keys, where the module says it.
        blends: whether the host mixes weights with others after the softmax; they are those that meet the values.
        blending: whether such a softmax was taken, and its weights have not met the values yet.
        sink_columns: 1 where weights that the host makes itself end with a sink's, which belongs to no key.
        on_weights: given the weights ``[B, H, N, M]`` with their graph, gives those that the values are summed by;
            the core's formula is then computed step by step.
        watchers: who look on.
        undo: attributes of the module that were changed, as they were.
        routed_calls, host_calls: calls that the core computed, and that the host did.
        entered: set when the host's module has run, for an encoder layer that may pass it by.
    """

    name: str
    routed: bool = True
    backend: str | Backend = "auto"
    window: Pattern | None = None
    head_mask: Tensor | None = None
    num_heads: int | None = None
    heads_axis: int | None = None
    groups: int = 1
    sink_columns: int = 0
    blends: bool = False
    blending: bool = False
    on_weights: Callable[[Tensor], Tensor] | None = None
    watchers: list[Watcher] = field(default_factory=list)
    undo: dict[str, Any] = field(default_factory=dict)
    routed_calls: int = 0
    host_calls: int = 0
    entered: bool = False

    @property
    def touches(self) -> bool:
        """Whether the result may differ from what the host's own call gives."""
        return self.routed or self.head_mask is not None or self.on_weights is not None

    @property
    def only_routes(self) -> bool:
        """Whether the core computes and nothing else is wanted."""
        wanted = self.head_mask is not None or self.on_weights is not None or self.window is not None
        return self.routed and not self.watchers and not wanted

    def count(self, routed: bool) -> None:
        """Count a call; not in a trace, which would be made anew for each number."""
        if torch.compiler.is_compiling():
            return
        if routed:
            self.routed_calls += 1
        else:
            self.host_calls += 1

    @property
    def computed(self) -> bool:
        """Whether the core computes; a head mask alone is put on what the host computes."""
        return self.routed or self.on_weights is not None

    def show(self, seen: Seen) -> None:
        """Let the watchers look; not again while activation checkpointing repeats a forward pass."""
        if self.watchers and not in_backward():
            with torch.no_grad():
                for watcher in self.watchers:
                    watcher(seen)

    def masked(self, x: Tensor) -> Tensor:
        """The head mask on results or weights ``[B, H, N, ...]``."""
        if self.head_mask is None:
            return x
        factors = self.head_mask.to(x)
        if factors.shape != (x.shape[1],):
            raise ValueError(
                f"a head mask must be one factor for each of {x.shape[1]} heads: "
                f"got shape {list(factors.shape)} for {self.name!r}"
            )
        return x * factors[:, None, None]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"watchers": [], "on_weights": None}


def site_of(module: nn.Module) -> Site | None:
    """The site of a module, or None."""
    return module.__dict__.get(KEY)


def sites(model: nn.Module) -> Iterator[tuple[nn.Module, Site]]:
    """All plugged modules inside a model, each once."""
    for module in model.modules():
        site = site_of(module)
        if site is not None:
            yield module, site


@contextmanager
def watching(site: Site, watcher: Watcher) -> Iterator[None]:
    """Let a watcher look on while the block runs."""
    site.watchers.append(watcher)
    try:
        yield
    finally:
        site.watchers.remove(watcher)


def in_backward() -> bool:
    """Whether a backward pass runs in this thread."""
    if torch.compiler.is_compiling():
        return False
    # -1 outside of a backward pass; torch's own checkpointing asks the same function
    return bool(torch._C._current_graph_task_id() != -1)
