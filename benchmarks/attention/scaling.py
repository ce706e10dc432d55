"""Time and peak memory over length: plain attention, fused attention, windows. No bars; the plots show it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Work
from benchmarks.attention.windows import HEADS, SIDE, Attention, forward, training_step
from mmattn import Window, attend

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)

#: Plain attention stores L x L weights for each head: 8192 of them are 1 GiB, and a step keeps several.
LONGEST_PLAIN = 4096


def run(settings: Settings) -> Report:
    """Forward and training step at each length."""
    report = Report("scaling", f"Over length, {HEADS} heads of 64, batch 1")
    window = Window(SIDE, SIDE)

    def windowed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, mask=window)

    kinds: dict[str, Attention] = {
        "math": lambda q, k, v: attend(q, k, v, backend="math"),
        "sdpa": lambda q, k, v: attend(q, k, v, backend="sdpa"),
        f"window {SIDE}": windowed,
    }
    for length in (16, 32) if settings.quick else LENGTHS:
        ways = {name: way for name, way in kinds.items() if name != "math" or length <= LONGEST_PLAIN}
        for kind, make in (("forward", forward), ("training step", training_step)):
            works = {name: make(way, length, settings) for name, way in ways.items()}
            timings = settings.race({name: [work] for name, work in works.items()}, repeats=10, least=3)
            report.add(Race(f"{kind}, L={length}", timings, f"window {SIDE}"))
            for name, work in works.items():
                _add(report, "seconds", f"{name}, {kind}", length, timings[name].seconds)
                _add(report, "bytes", f"{name}, {kind}", length, peak_bytes(work, settings.device))
    for name, points in report.curves["bytes"].items():
        shown = ", ".join(f"{length}: {value / 2**20:.4g}" for length, value in points)
        report.notes.append(f"- peak MiB at each length, {name}: {shown}")
    return report


def _add(report: Report, quantity: str, name: str, length: int, value: float) -> None:
    report.curves.setdefault(quantity, {}).setdefault(name, []).append((length, value))


def peak_bytes(work: Work, device: str = "cpu") -> int:
    """The most memory that torch holds during one call, beyond what it held before.

    On a CPU every allocation and release that torch's profiler notes, workspaces inside an operator included.
    """
    work()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return highest(events)


def highest(events: Iterable[Mapping[str, Any]]) -> int:
    """The highest sum of the allocations in a trace, in the order of time.

    Example:
        >>> highest([{"name": "[memory]", "ts": t, "args": {"Bytes": b}} for t, b in ((2, -3), (0, 3), (1, 4))])
        7
    """
    notes = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    held = most = 0
    for note in notes:
        held += note["args"]["Bytes"]
        most = max(most, held)
    return most
