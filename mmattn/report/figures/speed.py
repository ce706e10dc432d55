"""Figures of timings over the length of the input."""

from __future__ import annotations

import numpy as np

from mmattn.report.figures.kinds import Figure, Line, Panel
from mmattn.report.runs import StoredRun

_WHAT = {
    "fused": ("all heads at once", 0),
    "loop": ("heads one after another", 6),
    "attention": ("attention", 0),
    "lstm": ("LSTM", 1),
    "gru": ("GRU", 2),
}
_MODES = {"train": "training step", "infer": "inference"}
_THREADS = "attention_threads"
_BAND = "Lines are medians over rounds; bands hold the middle half of the rounds. Both axes are logarithmic."


def _times(runs: list[StoredRun]) -> dict[tuple[str, str], tuple[dict[int, list[float]], list[str]]]:
    """``(what, mode)`` to the seconds for each length and the runs that they come from."""
    out: dict[tuple[str, str], tuple[dict[int, list[float]], list[str]]] = {}
    for run in runs:
        if run.measures.domain != "speed":
            continue
        for name, seconds in run.measures.repeats.items():
            what, mode, length = name.split("/")
            lengths, paths = out.setdefault((what, mode), ({}, []))
            lengths.setdefault(int(length), []).extend(seconds)
            if run.path not in paths:
                paths.append(run.path)
    return out


def _line(name: str, colour: int, found: tuple[dict[int, list[float]], list[str]]) -> Line:
    points = []
    for length, seconds in sorted(found[0].items()):
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        points.append([float(length), *(float(f"{value:.6g}") for value in (middle, low, high))])
    return Line(name, colour, points, sorted(found[1]))


def _over_length(runs: list[StoredRun], id: str, title: str, whats: tuple[str, ...]) -> Figure | None:
    times = _times(runs)
    panels = []
    for mode, words in _MODES.items():
        lines = [_line(*_WHAT[what], times[what, mode]) for what in whats if (what, mode) in times]
        if lines:
            panels.append(Panel(words.capitalize(), "speed", lines))
    return Figure(
        id,
        title,
        f"Lower is faster. {_BAND}",
        "tokens",
        "time",
        panels,
        x_unit="count",
        y_unit="seconds",
        log="xy",
    ) if panels else None  # fmt: skip


def loop(runs: list[StoredRun]) -> Figure | None:
    """Seconds over length: the fused step against the same heads in a loop."""
    return _over_length(runs, "figure-loop", "Heads at once and one after another", ("fused", "loop"))


def recurrent(runs: list[StoredRun]) -> Figure | None:
    """Seconds over length: attention against recurrent networks."""
    whats = ("attention", "lstm", "gru")
    return _over_length(runs, "figure-recurrent", "Attention and recurrent networks of equal size", whats)


def threads(runs: list[StoredRun]) -> Figure | None:
    """Seconds of a training step over length, for each number of threads."""
    found = sorted(
        (int(what.removeprefix(_THREADS)), times)
        for (what, mode), times in _times(runs).items()
        if what.startswith(_THREADS) and mode == "train"
    )
    colours = (6, 0, 2, 1, 4, 3, 5, 7)
    lines = [
        _line(f"{count} thread{'s' if count > 1 else ''}", colours[index % 8], times)
        for index, (count, times) in enumerate(found)
    ]
    return Figure(
        "figure-threads",
        "Time by the number of threads",
        f"A training step of the attention network. {_BAND}",
        "tokens",
        "time",
        [Panel("Training step", "speed", lines)],
        x_unit="count",
        y_unit="seconds",
        log="xy",
    ) if lines else None  # fmt: skip
