"""``python -m benchmarks.plugins.timm_names``: which of timm's registered models run through the core.

Every name is built on the meta device and called three times at its own input size: as it is, under a tracer that
knows nothing of mmattn; plugged in; and only looked at. A name counts as *through the core* if each attention call
that the tracer found in a module arrived at the core's backend from that module, and as *observable* if
watchers were shown each of them, plugged in or not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.bars import Bar, conclude
from benchmarks.plugins.topic import Topic
from benchmarks.plugins.tracing import AttentionCall, Tracer, traced
from mmattn.backends import SdpaBackend, Terms
from mmattn.plugins.site import Seen, Site, sites
from mmattn.plugins.swap import plug_in, unplug

#: Classes whose mixing is no softmax attention over tokens, though they take a softmax of a product.
NO_TOKENS = {
    "timm.models.xcit.XCA": "channels",
    "timm.models.davit.ChannelAttention": "channels",
    "timm.models.davit.ChannelAttentionV2": "channels",
    "timm.models.edgenext.CrossCovarianceAttn": "channels",
    "timm.models.volo.OutlookAttention": "neighbours, without keys",
    "timm.models.coat.FactorAttnConvRelPosEnc": "factorised",
    "timm.models.efficientvim.HSMSSD": "state space",
    "timm.models.mobilevit.LinearSelfAttention": "linear",
    "timm.layers.lambda_layer.LambdaLayer": "linear",
    "timm.models.efficientvit_mit.LiteMLA": "linear",
    "timm.models.swiftformer.EfficientAdditiveAttention": "additive",
}


@dataclass
class Row:
    """What was found for one name.

    Attributes:
        name: as timm registers it.
        calls: attention calls over tokens in one forward pass, as the tracer found them.
        core: how many of them the core computed.
        seen, seen_unplugged: how many of them watchers were shown, plugged in and not.
        other: classes that mix something else, or otherwise, by what that is.
        missing: classes whose calls the core did not compute, with how they call.
        error: what went wrong, if anything did.
        seconds: taken.
    """

    name: str
    calls: int = 0
    core: int = 0
    seen: int = 0
    seen_unplugged: int = 0
    other: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def group(self) -> str:
        """The class of the table that the name belongs to."""
        if self.error:
            return "failed"
        if not self.calls:
            return "other mixing" if self.other else "no attention"
        if self.core == self.calls:
            return "core" if self.observable else "core, not all seen"
        if self.observable:
            return "observed" if not self.core else "partly core, observed"
        return "not all seen"

    @property
    def observable(self) -> bool:
        """Whether each call is shown, plugged in and not."""
        return not self.error and self.seen == self.calls == self.seen_unplugged


class Arrivals(SdpaBackend):
    """The core's backend, with a note of the module that each call comes from; unseen by tracers."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.owners: Counter[str] = Counter()

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        """As the backend that it stands in for."""
        self.owners[self.tracer.stack[-1].name] += 1
        with torch._C.DisableTorchFunction():
            return super().dense(q, k, v, terms)


def row(name: str) -> Row:
    """Build and call one name."""
    begin = time.perf_counter()
    found = Row(name)
    try:
        _fill(found)
    except Exception as error:  # one name that fails is a row of the table
        found.error = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    found.seconds = round(time.perf_counter() - begin, 3)
    return found


def _fill(found: Row) -> None:
    with torch.device("meta"):
        model = timm.create_model(found.name).eval()
    settings: Any = model.default_cfg
    x = torch.empty(1, *settings["input_size"], device="meta")
    with torch.no_grad():
        with traced(model, Tracer()) as tracer:
            model(x)
        found.other = {call.kind: NO_TOKENS[call.kind] for call in tracer.calls if call.kind in NO_TOKENS}
        wanted = [call for call in tracer.calls if call.kind not in NO_TOKENS]
        found.calls = len(wanted)
        if not wanted and not plug_in(model).swapped:
            return
        unplug(model)
        _plugged(found, model, x, wanted)
        found.seen_unplugged = _looked_at(model, x, wanted)


def _plugged(found: Row, model: nn.Module, x: Tensor, wanted: list[AttentionCall]) -> None:
    tracer = Tracer()
    arrivals = Arrivals(tracer)
    plug_in(model, backend=arrivals)
    names = {site.name for _, site in sites(model)}
    seen = _watch(sites(model))
    with traced(model, tracer):
        model(x)
    expected = _by_site(wanted, names)
    came = Counter({name: sum(n for o, n in arrivals.owners.items() if _inside(o, name)) for name in names})
    found.core = sum(min(n, came[name]) for name, n in expected.items())
    found.seen = sum(min(n, seen[name]) for name, n in expected.items())
    found.missing = {
        call.kind: call.how
        for call in wanted
        if came[site := _site(call, names)] < expected[site]
    }  # fmt: skip
    found.unseen = sorted({call.kind for call in wanted if seen[s := _site(call, names)] < expected[s]})
    extra = [name for name, n in came.items() if n > expected[name]]
    if extra:
        found.error = f"the core computed calls that the tracer did not find, in {extra[:3]}"
    unplug(model)


def _looked_at(model: nn.Module, x: Tensor, wanted: list[AttentionCall]) -> int:
    plug_in(model)
    for _, site in sites(model):
        site.routed = False
    names = {site.name for _, site in sites(model)}
    seen = _watch(sites(model))
    model(x)
    unplug(model)
    return sum(min(n, seen[name]) for name, n in _by_site(wanted, names).items())


def _watch(plugged: Iterable[tuple[nn.Module, Site]]) -> Counter[str]:
    seen: Counter[str] = Counter()

    def watcher(name: str) -> Callable[[Seen], None]:
        return lambda _: seen.update([name])

    for _, site in plugged:
        site.watchers.append(watcher(site.name))
    return seen


def _inside(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.") or not outer


def _site(call: AttentionCall, names: set[str]) -> str:
    """The innermost plugged module that a call is made in; a name that none has where there is none."""
    return next((name for name in reversed(call.path) if name in names), f"{call.owner} (no site)")


def _by_site(calls: list[AttentionCall], names: set[str]) -> Counter[str]:
    return Counter(_site(call, names) for call in calls)


def bars(rows: list[Row]) -> list[Bar]:
    """What was promised of all names."""
    tokens = [r for r in rows if r.calls or r.error]
    share = len(tokens) / 100 or 1.0
    return [
        Bar("timm: % of names with softmax attention over tokens entirely through the core",
            sum(r.core == r.calls and not r.error for r in tokens) / share, 91, note=f"of {len(tokens)} names"),
        Bar("timm: % of these names observable",
            sum(r.observable for r in tokens) / share, 97, note=f"of {len(tokens)} names"),
    ]  # fmt: skip


def table(rows: list[Row]) -> str:
    """Counts and shares, and what keeps the remaining names from the core."""
    tokens = sum(1 for r in rows if r.calls)
    lines = ["| names | count | % of all | % of those with attention over tokens |", "|---|---|---|---|"]
    for group, count in Counter(r.group for r in rows).most_common():
        share = (
            f"{100 * count / tokens:.1f}" if tokens and group not in ("no attention", "other mixing") else ""
        )
        lines.append(f"| {group} | {count} | {100 * count / len(rows):.1f} | {share} |")
    lines.append(f"| all | {len(rows)} | 100 | {tokens} names |")
    reasons = Counter(f"{kind} ({how})" for r in rows for kind, how in r.missing.items())
    reasons.update(f"unseen: {kind}" for r in rows for kind in r.unseen)
    reasons.update(r.error for r in rows if r.error)
    lines += ["", "| not through the core | names |", "|---|---|"]
    return "\n".join([*lines, *(f"| {reason} | {count} |" for reason, count in reasons.most_common())])


def sweep(match: str = "*", each: Callable[[Row], Any] = lambda _: None) -> list[Row]:
    """The rows of all names that fit a pattern."""
    rows = []
    for name in timm.list_models():
        if fnmatch(name, match):
            rows.append(row(name))
            each(rows[-1])
    return rows


def run() -> Topic:
    """All names, for ``python -m benchmarks.plugins``, one process for each core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_alone) as pool:
        rows = list(pool.map(row, timm.list_models(), chunksize=8))
    facts = [asdict(r) | {"group": r.group} for r in rows]
    return Topic(f"timm {timm.__version__}: all registered names", table(rows), bars(rows), {"names": facts})


def _alone() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def main(argv: list[str] | None = None) -> int:
    """Print the table and conclude."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--match", default="*", help="only names that fit this pattern")
    parser.add_argument("--verbose", action="store_true", help="print a line for each name")
    parser.add_argument("--out", type=Path, help="write all rows as JSON here")
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    begin = time.perf_counter()
    rows = sweep(args.match, lambda r: print(r.group, r.name, r, flush=True) if args.verbose else None)
    print(table(rows), f"\n{len(rows)} names in {time.perf_counter() - begin:.0f} s")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps([asdict(r) | {"group": r.group} for r in rows], indent=1))
    return conclude(bars(rows), None)


if __name__ == "__main__":
    raise SystemExit(main())
