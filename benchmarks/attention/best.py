"""Training steps of a 4-block encoder against the peers at their best.

Everybody gets length-bucketed batches. A peer may run in fp32 or bf16, with torch's fused attention or plain
products, eager or compiled: a short race finds its fastest variant for each data set, width and dropout at the
smaller batch; that variant is then timed against ours at both batch sizes. Only the fastest eager variant is
compiled (``torch.compile(dynamic=True)``), and only as long as a time limit allows.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention import data, steps
from benchmarks.attention.data import Batch
from benchmarks.attention.encoder import DIMS, SIZES
from benchmarks.attention.peers import ENCODERS, How
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Timing, fastest, ratio
from benchmarks.bars import Bar

DROPOUTS = (0.1, 0.0)
COMPILE_LIMIT = 180.0

#: Bucketed batches timed of a pool, the same for all.
COUNTS = {"SST-2": 6, "FSDD": 6, "connected digits": 3, "Multi30k": 6}

Step = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to run a peer."""

    peer: str
    bf16: bool
    how: How
    compiled: bool = False

    def __str__(self) -> str:
        precision, kind = "bf16" if self.bf16 else "fp32", "compiled" if self.compiled else "eager"
        return f"{self.peer} {precision} {self.how} {kind}"

    def step(self, embed_dim: int, dropout: float, settings: Settings) -> Step:
        """Its training step."""
        return steps.peer(
            self.peer, embed_dim, dropout, self.bf16, self.how,
            compiled=self.compiled, seed=settings.seed, device=settings.device,
        )  # fmt: skip


def promised(embed_dim: int, dropout: float) -> float:
    """How many times faster ours shall be."""
    return 1.5 if dropout or embed_dim > 144 else 1.2


def run(settings: Settings) -> Report:
    """Ours against the fastest variant of the fastest peer."""
    report = Report(
        "best",
        "Training step of a 4-block encoder, bucketed batches, peers at their best: µs for each real token",
    )
    sizes = (3,) if settings.quick else SIZES
    for embed_dim, dropout in product((8,) if settings.quick else DIMS, DROPOUTS):
        wanted: dict[str, list[tuple[str, int]]] = {}
        for name, size in product(["SST-2"] if settings.quick else data.LENGTHS, sizes):
            setting = f"{name}, batch {size}, D={embed_dim}, dropout {dropout:.1f}"
            if settings.wants(setting):
                wanted.setdefault(name, []).append((setting, size))
        compiled = _compiled(embed_dim, dropout, settings, report) if wanted else {}
        for name, each in wanted.items():
            smaller = _batches(name, sizes[0], embed_dim, settings)
            chosen = _preselect(smaller, embed_dim, dropout, compiled, settings)
            for setting, size in each:
                batches = _batches(name, size, embed_dim, settings)
                _final(setting, batches, chosen, (embed_dim, dropout), settings, report)
        torch.compiler.reset()
    return report


def _batches(name: str, size: int, embed_dim: int, settings: Settings) -> list[Batch]:
    groups = data.bucketed_batches(data.draw_lengths(name, size * data.POOL, settings.seed), size)
    groups = data.spread(groups, 2 if settings.quick else COUNTS[name])
    return data.batches_of(groups, embed_dim, steps.CLASSES, settings.seed, settings.device)


def _preselect(
    batches: list[Batch], embed_dim: int, dropout: float, compiled: dict[Variant, Step], settings: Settings
) -> dict[str, tuple[Variant, Step]]:
    """The fastest variant of each peer on one batch of middle size."""
    middle = [batches[len(batches) // 2]]
    chosen = {}
    for peer in ENCODERS:
        eager = [Variant(peer, bf16, how) for bf16, how in product((False, True), _hows(settings))]
        candidates = {variant: variant.step(embed_dim, dropout, settings) for variant in eager}
        candidates |= {variant: step for variant, step in compiled.items() if variant.peer == peer}
        works = {str(variant): steps.items(step, middle) for variant, step in candidates.items()}
        best = fastest(settings.race(works, repeats=3, least=2, warmup=1))
        chosen[peer] = next((variant, step) for variant, step in candidates.items() if str(variant) == best)
    return chosen


def _hows(settings: Settings) -> tuple[How, ...]:
    return ("sdpa",) if settings.quick else ("sdpa", "plain")


def _final(
    setting: str,
    batches: list[Batch],
    chosen: dict[str, tuple[Variant, Step]],
    kind: tuple[int, float],
    settings: Settings,
    report: Report,
) -> None:
    """The chosen variants against ours in fp32 and bf16, into the report."""
    contenders = {str(variant): steps.items(step, batches) for variant, step in chosen.values()}
    for name, step in steps.ours_in_all_precisions(*kind, settings.seed, settings.device).items():
        contenders[name] = steps.items(step, batches)
    timings = settings.race(contenders, repeats=15)
    timings = {name: timing.divided(data.tokens(batches)) for name, timing in timings.items()}
    peer, mine = steps.nearest(timings)
    padding = sum(batch.padding for batch in batches) / len(batches)
    report.add(Race(f"{setting} ({padding:.0%} padding)", timings, mine, ("µs", 1e-6)))
    compared = ratio(timings[peer], timings[mine])
    name = f"{setting}: best peer / ours"
    report.bars.append(
        Bar(name, compared.of_medians, promised(*kind), True, f"{mine} against {peer}; {compared}")
    )


def _compiled(embed_dim: int, dropout: float, settings: Settings, report: Report) -> dict[Variant, Step]:
    """Each peer's fastest eager variant on FSDD, compiled on batches of all data sets, where time allows."""
    if not settings.compile or settings.quick:
        return {}
    names = [name for name in data.LENGTHS if name != "connected digits"]
    first = _batches("FSDD", SIZES[0], embed_dim, settings)
    found = {}
    for variant, _ in _preselect(first, embed_dim, dropout, {}, settings).values():
        candidate = Variant(variant.peer, variant.bf16, variant.how, compiled=True)
        step, begin = candidate.step(embed_dim, dropout, settings), time.perf_counter()
        try:
            with time_limit(COMPILE_LIMIT):
                for name in names:
                    step(_batches(name, SIZES[0], embed_dim, settings)[0])
        except (Exception, OutOfTime) as error:
            outcome = f"left out, {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            outcome = f"compiled in {time.perf_counter() - begin:.0f} s"
            found[candidate] = step
        report.notes.append(f"- {candidate}, D={embed_dim}, dropout {dropout:.1f}: {outcome}")
    return found


class OutOfTime(BaseException):
    """Raised in the middle of something that took too long; no ``except Exception`` on the way catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` inside the block after a number of seconds (Unix, main thread)."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"more than {seconds:g} s")

    before: Any = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


__all__ = ["OutOfTime", "Timing", "Variant", "promised", "run", "time_limit"]
