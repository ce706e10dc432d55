"""A model of the zoo that was built, and its weights as an independent computation has them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cached_property

import torch
from torch import Tensor, nn

from benchmarks.plugins.tracing import AttentionCall, Tracer, traced
from benchmarks.plugins.zoo.case import Case
from benchmarks.plugins.zoo.redraw import redraw
from mmattn.plugins.site import sites
from mmattn.plugins.swap import Report, attach, plug_in, unplug


class Subject:
    """A case that was built: its model as it is, and a copy that spells its attention out."""

    def __init__(self, case: Case) -> None:
        self.case = case
        torch.manual_seed(0)
        self.model = case.build().eval()
        self.inputs = case.inputs()
        redraw(self.model, self.inputs, case.gain)
        self.open = copy.deepcopy(self.model)
        case.explicit(self.open)

    def run(self, model: nn.Module | None = None) -> list[Tensor]:
        """The outputs."""
        model = self.model if model is None else model
        return self.case.outputs(model(*self.inputs.args, **self.inputs.kwargs))

    @cached_property
    def weights(self) -> dict[str, list[Tensor]]:
        """Weights ``[B, H, N, M]`` of each call, by the module that is plugged, computed without mmattn."""
        return _independent(self)

    @contextmanager
    def plugged(self, routed: bool = True) -> Iterator[Report]:
        """The model, plugged in, or only looked at, while the block runs."""
        report = Report()
        if routed:
            report = plug_in(self.model)
        else:
            attach(self.model, report, routed=False)
        try:
            yield report
        finally:
            unplug(self.model)


def _independent(subject: Subject) -> dict[str, list[Tensor]]:
    with subject.plugged() as report:
        names = {site.name for _, site in sites(subject.model)}
    with torch.no_grad(), traced(subject.open, Tracer(weights=True)) as tracer:
        subject.run(subject.open)
    found: dict[str, list[Tensor]] = defaultdict(list)
    for call in tracer.calls:
        if call.owner in report.skipped:
            continue
        name = _site_of(call, names)
        assert name is not None, f"{call.owner} calls attention, and is neither plugged nor skipped"
        assert call.weights is not None
        found[name].append(_four(call, subject.case))
    return dict(found)


def _site_of(call: AttentionCall, names: set[str]) -> str | None:
    return next((name for name in reversed(call.path) if name in names), None)


def _four(call: AttentionCall, case: Case) -> Tensor:
    """The host's weights with the heads on the second axis and all else on the first."""
    w = call.weights
    assert w is not None
    w = w[..., :-1] if case.sinks else w
    if w.ndim == 3:
        heads = next((h for end, h in case.heads.items() if fnmatch(call.owner, end)), 1)
        return w.unflatten(0, (-1, heads)) if call.how != "multi_head" else w[None]
    if w.ndim == 4:
        return w
    assert case.heads_axis is not None, f"the case must say which axis of {list(w.shape)} are the heads"
    return w.movedim(case.heads_axis, -3).flatten(0, -4)


def zeroed(subject: Subject, name: str, head: int, heads: int) -> Callable[[AttentionCall, Tensor], Tensor]:
    """Sets the weights of one head of a module to 0, for a :class:`~benchmarks.plugins.tracing.Tracer`."""
    with subject.plugged():
        names = {site.name for _, site in sites(subject.model)}

    def change(call: AttentionCall, weights: Tensor) -> Tensor:
        if _site_of(call, names) != name:
            return weights
        weights = weights.clone()
        axis = 0 if weights.ndim == 3 else 1 if weights.ndim == 4 else subject.case.heads_axis
        assert axis is not None
        folded = weights.shape[axis] if weights.ndim == 3 else heads
        chosen = torch.arange(head, folded, heads)
        return weights.index_fill(axis, chosen, 0.0)

    return change
