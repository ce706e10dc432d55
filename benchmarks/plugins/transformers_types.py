"""``python -m benchmarks.plugins.transformers_types``: the model types of transformers that were tried.

Each is a small model with random weights. What the host computes is held against the plugged model, what watchers are
shown against a tracer that knows nothing of mmattn, and the unplugged model against the host, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from benchmarks.bars import Bar, conclude
from benchmarks.plugins.topic import Topic, markdown
from benchmarks.plugins.tracing import Tracer, traced
from benchmarks.plugins.zoo.case import Case, Inputs
from benchmarks.plugins.zoo.redraw import redraw
from benchmarks.plugins.zoo.zoo_transformers import CASES
from mmattn.plugins.calls import weights_of
from mmattn.plugins.classes import is_plugged
from mmattn.plugins.site import Seen, sites
from mmattn.plugins.swap import Report, attach, plug_in, unplug

OUTPUTS, GRADIENTS, WEIGHTS = 1e-5, 1e-4, 5e-5


@dataclass
class Row:
    """What was found for one model type.

    Attributes:
        name: the model type.
        route: how the core comes in; or why not.
        calls: attention calls in one forward pass, as the tracer found them in modules that were not left alone.
        core: those that the core computed.
        outputs: largest difference, over the largest output.
        gradients: the same for those of the parameters; each over its largest, or over a hundredth of the
            largest of all where that is more.
        seen, seen_unplugged: calls that watchers were shown.
        weights: largest difference of the weights shown, plugged in, from those of the tracer.
        restored: whether outputs after unplugging equal those before, bit for bit.
        error: what went wrong, if anything did.
        seconds: taken.
    """

    name: str
    route: str = ""
    calls: int = 0
    core: int = 0
    outputs: float = 0.0
    gradients: float = 0.0
    seen: int = 0
    seen_unplugged: int = 0
    weights: float = 0.0
    restored: bool = False
    error: str = ""
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether plugging changes nothing, and unplugging leaves nothing."""
        same = self.outputs <= OUTPUTS and self.gradients <= GRADIENTS
        return not self.error and same and self.restored

    @property
    def observable(self) -> bool:
        """Whether each call is shown, plugged in and not, with the right weights."""
        return not self.error and self.seen == self.calls == self.seen_unplugged and self.weights <= WEIGHTS


def row(case: Case) -> Row:
    """Build, plug in, look at and unplug one model."""
    begin = time.perf_counter()
    found = Row(case.id.partition("/")[2])
    try:
        torch.manual_seed(0)
        model, inputs = case.build(), case.inputs()
        redraw(model, inputs, case.gain)
        _fill(found, case, model, inputs)
    except Exception as error:  # one type that fails is a row of the table
        found.error = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:160]}"
    found.seconds = round(time.perf_counter() - begin, 3)
    return found


def _fill(found: Row, case: Case, model: nn.Module, inputs: Inputs) -> None:
    before, before_grads = _outcome(case, model, inputs)
    with torch.no_grad(), traced(model, Tracer(weights=True)) as tracer:
        model(*inputs.args, **inputs.kwargs)
    report = plug_in(model)
    with watched(model) as shown:
        after, after_grads = _outcome(case, model, inputs)
    found.route = _route(model, report)
    found.core = sum(site.routed_calls for _, site in sites(model))
    unplug(model)
    again, _ = _outcome(case, model, inputs)
    found.outputs = max(_far(x, y, 0.0) for x, y in zip(before, after, strict=True))
    # some gradients are 0 but for rounding, as those of the biases of keys
    floor = 1e-2 * max((float(g.abs().max()) for g in before_grads.values()), default=0.0)
    found.gradients = max((_far(g, after_grads[n], floor) for n, g in before_grads.items()), default=0.0)
    found.restored = all(torch.equal(x, y) for x, y in zip(before, again, strict=True))
    wanted: dict[str, list[Tensor]] = defaultdict(list)
    for call in tracer.calls:
        name = next((name for name in reversed(call.path) if name in report.swapped), None)
        if name is not None and call.weights is not None:
            wanted[name].append(call.weights)
    found.calls = sum(map(len, wanted.values()))
    found.seen = sum(map(len, shown.values()))
    found.weights = max((_weights_far(wanted[name], got) for name, got in shown.items()), default=0.0)
    found.seen_unplugged = _looked_at(model, inputs)


def _outcome(case: Case, model: nn.Module, inputs: Inputs) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs, and gradients of a fixed weighted sum of them."""
    outputs = case.outputs(model(*inputs.args, **inputs.kwargs))
    generator = torch.Generator().manual_seed(0)
    loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs if x.requires_grad)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert isinstance(loss, Tensor)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return outputs, {name: g for name, g in zip(named, found, strict=True) if g is not None}


def _route(model: nn.Module, report: Report) -> str:
    ways = {"function mode" if is_plugged(type(module)) else "interface" for module, _ in sites(model)}
    if any(site.host_calls for _, site in sites(model)):
        ways = (ways - {"function mode"}) | {"looked at, computed by the host"}
    return " + ".join(sorted(ways)) or "left alone: " + "; ".join(
        sorted(set(report.skipped.values())) or ["no softmax attention"]
    )


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """The weights of each call, by module."""
    shown: dict[str, list[Tensor]] = defaultdict(list)
    for _, site in sites(model):

        def watcher(seen: Seen, name: str = site.name) -> None:
            shown[name].append(weights_of(seen) if seen.weights is None else seen.weights)

        site.watchers.append(watcher)
    yield shown
    for _, site in sites(model):
        site.watchers.clear()


def _looked_at(model: nn.Module, inputs: Inputs) -> int:
    attach(model, Report(), routed=False)
    with torch.no_grad(), watched(model) as shown:
        model(*inputs.args, **inputs.kwargs)
    unplug(model)
    return sum(map(len, shown.values()))


def _far(old: Tensor, new: Tensor, floor: float) -> float:
    far = float((old - new).detach().abs().max()) / max(float(old.detach().abs().max()), floor, 1e-30)
    return math.inf if math.isnan(far) else far


def _weights_far(wanted: list[Tensor], got: list[Tensor]) -> float:
    """Over rows that see a key: hosts that write weights down spread the others evenly."""
    if len(wanted) != len(got):
        return math.inf
    far = 0.0
    for old, new in zip(wanted, got, strict=True):
        old = old[..., : new.shape[-1]].reshape(new.shape)  # a sink's comes last
        found = float(((old - new) * (new.sum(-1, keepdim=True) > 0)).detach().abs().max())
        far = math.inf if math.isnan(found) else max(far, found)
    return far


def rows(match: list[str] | None = None) -> list[Row]:
    """The rows of all types, or of those named."""
    return [row(case) for case in CASES if not match or case.id.partition("/")[2] in match]


def table(found: list[Row]) -> str:
    """Markdown: a line for each type."""
    header = ["type", "route", "calls", "by the core", "outputs", "gradients", "weights", "seen", "unplugged"]
    lines = [
        [r.name, r.error or r.route, r.calls, r.core, f"{r.outputs:.1e}", f"{r.gradients:.1e}", f"{r.weights:.1e}",
         "yes" if r.observable else f"{r.seen} and {r.seen_unplugged}", "equal" if r.restored else "NOT equal"]
        for r in found
    ]  # fmt: skip
    return markdown(header, lines)


def bars(found: list[Row]) -> list[Bar]:
    """What was promised of these types."""
    attending = [r for r in found if r.calls or r.error]
    return [
        Bar("transformers: model types tried", len(found), 40),
        Bar("of these, equal plugged in, and bit for bit unplugged", sum(r.equal for r in found), len(found)),
        Bar("of those that attend, observable", sum(r.observable for r in attending), len(attending),
            note=f"{sum(r.core == r.calls for r in attending)} entirely through the core"),
    ]  # fmt: skip


def run() -> Topic:
    """For ``python -m benchmarks.plugins``."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rows()
    title = f"transformers {transformers.__version__}: model types"
    return Topic(title, table(found), bars(found), {"types": [asdict(r) for r in found]})


def main(argv: list[str] | None = None) -> int:
    """Print the table and conclude."""
    parser = argparse.ArgumentParser(description="The model types of transformers that were tried.")
    parser.add_argument("--out", type=Path, help="write all rows as JSON here")
    args = parser.parse_args(argv)
    topic = run()
    print(topic.table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(topic.facts, indent=1))
    return conclude(topic.bars, None)


if __name__ == "__main__":
    raise SystemExit(main())
