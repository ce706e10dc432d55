"""Figures as PNG, each on a figure object of its own: no backend and no setting of matplotlib is changed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmattn.report.drawing import full_scale, picture_array, spectrogram_array, strength
from mmattn.report.examples import AttentionExample, AttentionLayer, Picture, Spectrogram
from mmattn.report.records import RunRecord

_DPI = 200
_HEAT = (0.90, 0.62, 0.0)
_OUTLINE = "#56b4e9"


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; those of the arms follow Okabe and Ito's set, made for colour-blind eyes."""

    name: str
    ground: str
    ink: str
    grid: str
    arms: tuple[str, ...]


LIGHT = Theme("light", "#ffffff", "#24292f", "#d8dee4", ("#0072b2", "#d55e00", "#007a5a", "#a64d85"))
DARK = Theme("dark", "#161b22", "#e6edf3", "#373e47", ("#56b4e9", "#e69f00", "#2cc295", "#dd9cc4"))
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), "-.")


def _figure(width: float, height: float, theme: Theme) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=theme.ground, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib in the file, equal drawings are equal bytes.
    figure.savefig(
        buffer, format="png", dpi=_DPI, facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return buffer.getvalue()


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.ground)
    axes.grid(True, axis="y", color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.grid)


def curve_names(runs: list[RunRecord]) -> list[str]:
    """Which of the curves ``accuracy`` and ``loss`` the epochs of ``runs`` hold numbers for."""
    wanted = {"accuracy": ("val_accuracy",), "loss": ("train_loss", "val_loss")}
    held = {name for run in runs for row in run.epochs for name, value in row.items() if value is not None}
    return [curve for curve, names in wanted.items() if held & set(names)]


def learning_curve(runs: list[RunRecord], curve: str, theme: Theme) -> bytes:
    """``accuracy`` or ``loss`` over epochs, a colour and a dash for each arm; thin is training loss."""
    figure = _figure(4.4, 3.1, theme)
    axes = figure.add_subplot()
    _dress(axes, theme)
    arms = list(dict.fromkeys(run.arm for run in runs))
    named: set[str] = set()
    for run in runs:
        place = arms.index(run.arm) % len(theme.arms)
        style = {"color": theme.arms[place], "linestyle": _DASHES[place]}
        epochs = np.array([row["epoch"] for row in run.epochs], dtype=float)
        for metric, width, what in (
            ("val_accuracy", 2, ""),
            ("val_loss", 2, ", validation"),
            ("train_loss", 0.9, ", training"),
        ):
            values = [row.get(metric) for row in run.epochs]
            if not metric.endswith(curve) or not any(value is not None for value in values):
                continue
            label = f"{run.arm}{what}"
            gaps = np.array(values, dtype=float)
            marker = "o" if len(epochs) == 1 else None
            axes.plot(
                epochs, gaps, linewidth=width, marker=marker, label=None if label in named else label, **style
            )
            named.add(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", color=theme.ink, fontsize=9)
    titles = {"accuracy": "Validation accuracy", "loss": "Loss"}
    axes.set_title(titles[curve], color=theme.ink, fontsize=10.5, loc="left")
    if curve == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\N{NO-BREAK SPACE}%"))
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
    legend = {"frameon": False, "fontsize": 8.5, "labelcolor": theme.ink, "handlelength": 2.6}
    figure.legend(loc="outside lower center", ncols=2, **legend)
    return _png(figure)


def example_figure(example: AttentionExample) -> bytes:
    """The heads of the last layer on a picture or under a spectrogram, for places that show no HTML.

    Raises:
        ValueError: for a sentence, which a figure could not set in every script.
    """
    if isinstance(example.picture, Picture):
        return _picture_figure(example.picture, example.layers[-1])
    if isinstance(example.picture, Spectrogram):
        return _sound_figure(example.picture, example.layers[-1])
    raise ValueError("an example figure needs a picture or a spectrogram: got a sentence")


def _outline(axes: Axes, boxes: list[tuple[float, float, float, float]]) -> None:
    for row, col, height, width in boxes:
        for colour, line in (("#000000", 3.2), (_OUTLINE, 1.8)):
            axes.add_patch(Rectangle((col, row), width, height, fill=False, edgecolor=colour, linewidth=line))


def _picture_figure(picture: Picture, layer: AttentionLayer) -> bytes:
    heads = len(layer.heads)
    columns = min(heads + 1, 5)
    rows = -(-(heads + 1) // columns)
    height, width = picture.size
    figure = _figure(1.75 * columns, rows * (1.75 * height / width + 0.3), LIGHT)
    array = picture_array(picture)
    grey = array.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    full = full_scale(layer)
    for place in range(heads + 1):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(
            grey if place else array, extent=(0, width, height, 0), interpolation="nearest", vmin=0, vmax=1
        )
        axes.set_axis_off()
        axes.set_title(f"head {place}" if place else "input", fontsize=9, color=LIGHT.ink)
        if place:
            boxes = [Rectangle((col, row), wide, tall) for row, col, tall, wide in picture.tokens]
            colours = [(*_HEAT, 0.85 * strength(weight, full)) for weight in layer.heads[place - 1]]
            axes.add_collection(PatchCollection(boxes, facecolors=colours, edgecolors="none", linewidths=0))
        _outline(axes, picture.relevant)
    return _png(figure)


def _sound_figure(sound: Spectrogram, layer: AttentionLayer) -> bytes:
    heads = len(layer.heads)
    figure = _figure(7, 1.7 + 0.55 * heads, LIGHT)
    grid = figure.add_gridspec(heads + 1, 1, height_ratios=[3] + [1] * heads)
    top = figure.add_subplot(grid[0])
    bands = len(sound.log_mel)
    top.imshow(
        spectrogram_array(sound), extent=(0, sound.seconds, bands, 0), aspect="auto", interpolation="nearest"
    )
    _outline(top, [(0, start, bands, stop - start) for start, stop in sound.relevant])
    top.set_yticks([])
    top.set_ylabel("mel bands", fontsize=8, color=LIGHT.ink)
    top.tick_params(labelbottom=False, length=0)
    full = full_scale(layer)
    for index, weights in enumerate(layer.heads):
        axes = figure.add_subplot(grid[index + 1], sharex=top)
        _dress(axes, LIGHT)
        spans = zip(sound.tokens, weights, strict=True)
        bars = [Rectangle((start, 0), stop - start, weight) for (start, stop), weight in spans]
        axes.add_collection(PatchCollection(bars, facecolors=LIGHT.arms[1], edgecolors="none", linewidths=0))
        for start, stop in sound.relevant:
            axes.axvspan(start, stop, color=_OUTLINE, alpha=0.3, linewidth=0, zorder=0)
        axes.set_ylim(0, full)
        axes.set_yticks([])
        axes.set_ylabel(f"head {index + 1}", fontsize=8, rotation=0, ha="right", va="center", color=LIGHT.ink)
        axes.tick_params(labelbottom=index == heads - 1)
    axes.set_xlabel("seconds", fontsize=9, color=LIGHT.ink)
    return _png(figure)
