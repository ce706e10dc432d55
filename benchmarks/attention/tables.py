"""Reports as Markdown, JSON and pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.attention.settings import Race, Report
from benchmarks.attention.timing import ratio


def markdown(report: Report) -> str:
    """Title, one row for each contender of each race, and notes."""
    lines = [f"\n## {report.title}\n"]
    if report.races:
        unit = report.races[0].unit[0]
        lines += [
            f"| setting | contender | {unit} | quartiles | over ours | by round |",
            "|---|---|---|---|---|---|",
        ]
        lines += [line for race in report.races for line in _rows(race)]
    return "\n".join([*lines, "", *report.notes]).rstrip() + "\n"


def _rows(race: Race) -> list[str]:
    rows, reference, size = [], race.timings[race.reference], race.unit[1]
    for name, timing in sorted(race.timings.items(), key=lambda pair: pair[1].seconds):
        low, high = timing.quartiles
        compared = ratio(timing, reference)
        shown = f"**{name}**" if name == race.reference else name
        rows.append(
            f"| {race.setting} | {shown} | {timing.seconds / size:.4g} | {low / size:.4g} to {high / size:.4g} "
            f"| {compared.of_medians:.3f} | {compared.by_round:.3f} ({compared.low:.3f} to {compared.high:.3f}) |"
        )
    return rows


def as_json(report: Report) -> dict[str, Any]:
    """The same and every single time, in seconds."""
    races = []
    for race in report.races:
        contenders = {}
        for name, timing in race.timings.items():
            low, high = timing.quartiles
            contenders[name] = {
                "seconds": timing.seconds,
                "quartiles": [low, high],
                "over_reference": asdict(ratio(timing, race.timings[race.reference])),
                "rounds": [list(row) for row in timing.rounds],
            }
        races.append({"setting": race.setting, "reference": race.reference, "contenders": contenders})
    return {"title": report.title, "races": races, "facts": report.facts, "curves": report.curves}


def plot(report: Report, folder: Path) -> list[Path]:
    """One picture for each quantity of ``report.curves`` over length, both axes logarithmic."""
    if not report.curves:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for quantity, curves in report.curves.items():
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel="length", ylabel=quantity, title=report.title)
        axes.grid(alpha=0.3)
        axes.legend()
        paths.append(folder / f"{report.topic}_{quantity}.png")
        figure.savefig(paths[-1], dpi=150)
        pyplot.close(figure)
    return paths
