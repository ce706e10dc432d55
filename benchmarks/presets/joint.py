"""The joint trunk beside separate ones: read off ``python -m tasks.joint.compare``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.presets import results
from tasks.joint import compare

NAME = "joint"
BEHIND, MINUTES = 1.5, 5.0


def run(seeds: list[int], folder: Path) -> None:
    """Train the joint trunk and the separate ones, one after the other; what is there already stays."""
    fixed = ["--kinds", "separate", "linear", "--workers", "1"]
    compare.main(["--out", str(folder / NAME), "--seeds", *map(str, seeds), *fixed])


def table(folder: Path) -> str:
    """Markdown: accuracies of the joint trunk, the separate ones and the linear controls; empty if there are none."""
    path = folder / NAME / "joint.md"
    return path.read_text().rstrip() if path.exists() else ""


def bars(seeds: list[int], folder: Path) -> list[Bar]:
    """How far the joint trunk is behind in the sense where it is furthest, and its longest run."""
    path = folder / NAME / "joint.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"verdicts": {}, "runs": []}
    points = {sense: verdict["joint_over_separate"] for sense, verdict in found["verdicts"].items()}
    known = [value for value in points.values() if value is not None]
    complete = len(known) == len(points) > 0
    runs = [run for run in found["runs"] if run["kind"] == "joint" and run["seed"] in seeds]
    minutes = [sum(run["minutes"].values()) for run in runs]
    shown = ", ".join(f"{sense} {value:+.1f}" for sense, value in points.items() if value is not None)
    title = "one trunk for three senses, at a third of the parameters"
    ran = len(minutes), len(seeds)
    behind = -min(known) if complete else math.nan
    name = f"{title}: points behind separate ones, worst sense"
    return [
        results.bar_of(name, behind, BEHIND, False, ran, shown or "not run"),
        results.bar_of(f"{title}: longest run, minutes", max(minutes, default=math.nan), MINUTES, False, ran),
    ]
