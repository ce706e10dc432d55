"""The runs of the presets on disk, and what they say together."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.bars import Bar
from benchmarks.presets.presets import ROOT, Goal, Preset

#: What lies below mmattn that no result of a training depends on.
_APART = ("report", "plugins", "observation", "convert", "inference", "explore", "__main__.py")


@dataclass(frozen=True)
class Run:
    """One run: a seed of a variant of a preset, or, without a seed, the control beside it."""

    preset: Preset
    variant: str
    seed: int | None

    @property
    def name(self) -> str:
        """Folder of its results."""
        last = "control" if self.seed is None else str(self.seed)
        return "-".join(part for part in (self.preset.name, self.variant, last) if part)


def runs_of(preset: Preset, seeds: list[int]) -> list[Run]:
    """All runs of a preset: each variant with each seed, and its controls."""
    names = [name for name, _ in preset.variants]
    trained = [Run(preset, name, seed) for seed in seeds for name in names]
    return trained + ([Run(preset, name, None) for name in names] if preset.control else [])


def place(run: Run, folder: Path) -> Path:
    """Folder of the results of a run."""
    return folder / run.name


def key(run: Run) -> str:
    """Digest of the code and configuration that the results of a run depend on; of a training, not the controls."""
    content = hashlib.sha256()
    parts = [
        path for path in (ROOT / "mmattn").rglob("*.py") if path.relative_to(ROOT).parts[1] not in _APART
    ]
    parts += (ROOT / "tasks" / run.preset.domain).rglob("*.py")
    parts += [*(ROOT / "tasks").glob("*.py")]
    parts += [Path(__file__).with_name(f"{name}.py") for name in ("run", "training", "members")]
    if run.seed is not None:
        parts = [path for path in parts if path.name != "control.py"]
    if len(run.preset.members) > 1:
        parts.append(ROOT / "mmattn" / "inference" / "ensemble.py")
    configs = [run.preset.path] + ([ROOT / run.preset.before[1]] if run.preset.before else [])
    for path in sorted(parts) + configs:
        content.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    content.update(
        json.dumps([run.name, dict(run.preset.variants)[run.variant], run.preset.members]).encode()
    )
    return content.hexdigest()


def done(run: Run, folder: Path) -> bool:
    """Whether the results of a run are there, made by this very code and configuration."""
    mark = place(run, folder) / "done.txt"
    return mark.exists() and mark.read_text() == key(run)


def mark(run: Run, folder: Path) -> None:
    """Note that a run is done."""
    (place(run, folder) / "done.txt").write_text(key(run))


def load(run: Run, folder: Path) -> dict[str, Any] | None:
    """The results of a run, if it is done."""
    if not done(run, folder):
        return None
    found: dict[str, Any] = json.loads((place(run, folder) / "results.json").read_text())
    return found


def values(preset: Preset, goal: Goal, seeds: list[int], folder: Path) -> dict[str, dict[int, float]]:
    """A goal's figure of each run that is done, by variant and seed."""
    found: dict[str, dict[int, float]] = {name: {} for name, _ in preset.variants}
    for run in runs_of(preset, seeds):
        results = load(run, folder)
        if results is not None and run.seed is not None:
            found[run.variant][run.seed] = goal.factor * results["metrics"][goal.metric]
    return found


def figure(goal: Goal, found: dict[str, dict[int, float]]) -> float:
    """What is held against the limit; NaN when a variant has no run."""
    each = [mean(of.values()) if of else math.nan for of in found.values()]
    if goal.of == "mean" or any(math.isnan(value) for value in each):
        return mean(each)
    return min(each) if goal.at_least else max(each)


def bars(presets: list[Preset], seeds: list[int], folder: Path) -> list[Bar]:
    """Each goal, and the time of each preset; what was not run with all seeds does not hold."""
    made = []
    for preset in presets:
        times = minutes(preset, seeds, folder)
        runs = len(times), len(seeds) * len(preset.variants)
        for goal in preset.goals:
            value = figure(goal, values(preset, goal, seeds, folder))
            name = f"{preset.title}: {goal.of} {goal.metric}, {goal.unit}"
            made.append(bar_of(name, value, goal.limit, goal.at_least, runs))
        name = f"{preset.title}: longest run, minutes"
        made.append(bar_of(name, max(times, default=math.nan), preset.minutes, False, runs))
    return made


def bar_of(
    name: str, value: float, limit: float, at_least: bool, runs: tuple[int, int], told: str = ""
) -> Bar:
    """A bar of several runs, none of which may lack: how many there are, and how many there should be.

    Until all are there the bar has no value, and its note says what the value is so far.
    """
    count, wanted = runs
    notes = [f"{count} of {wanted} runs", told]
    if count < wanted:
        notes.insert(1, "" if math.isnan(value) else f"so far {value:.4g}")
        value = math.nan
    return Bar(name, value, limit, at_least, "; ".join(filter(None, notes)))


def minutes(preset: Preset, seeds: list[int], folder: Path) -> list[float]:
    """Minutes of each trained run."""
    loaded = [load(run, folder) for run in runs_of(preset, seeds) if run.seed is not None]
    return [results["minutes"] for results in loaded if results is not None]


def table(presets: list[Preset], seeds: list[int], folder: Path) -> str:
    """Markdown: a line for each preset and variant."""
    lines = [
        "| preset | figure, seeds "
        + ", ".join(map(str, seeds))
        + " | mean | control | longest run, min | outside forward and backward |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for preset in presets:
        goal = preset.goals[0]
        found = values(preset, goal, seeds, folder)
        for variant, of in found.items():
            each = [load(Run(preset, variant, seed), folder) for seed in seeds]
            ran = [results for results in each if results is not None]
            if not ran:
                lines.append(f"| {preset.title} {variant} | not run | | | | |")
                continue
            shown = ", ".join(f"{value:.2f}" for value in of.values())
            control = load(Run(preset, variant, None), folder)
            beside = "" if control is None else f"{goal.factor * control['metrics'][goal.metric]:.2f}"
            shares = [results["outside_share"] for results in ran if results["outside_share"] is not None]
            outside = f"{mean(shares):.0%}" if shares else ""
            longest = max(results["minutes"] for results in ran)
            title = f"{preset.title} {variant}".strip()
            lines.append(
                f"| {title} | {shown} {goal.unit} | {mean(of.values()):.2f} | {beside} | {longest:.1f} | {outside} |"
            )
    return "\n".join(lines)
