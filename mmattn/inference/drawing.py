"""Attention drawn over what was looked at, a picture or a spectrogram: Matplotlib figures, no display needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from mmattn.inference.looking import Look

WIDTH = 8.2  # of all figures, in inches
GREY, INK, SPOT = "#666666", "#1b1b1b", "#e4572e"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures give equal files."""
    plain: dict[str, Any] = {"Software": None}
    figure.savefig(path, format="png", dpi=110, facecolor="white", metadata=plain)


def strength(weights: Any) -> Any:
    """How strongly weights are drawn, in [0, 1]: the largest fully, or four equal shares where that is more, so that
    attention without a preference looks pale.

    Example:
        >>> strength([0.0, 1.0]).tolist()
        [0.0, 1.0]
        >>> strength([0.1] * 10).round(2).tolist()[0]
        0.38
    """
    weights = np.asarray(weights, dtype=float)
    full = max(weights.max(initial=0.0), 4 / max(4, weights.size))
    return (weights / full) ** 0.7  # small weights are lifted, so that they can be seen


def picture(pixels: Tensor, size: tuple[int, int], look: Look, caption: str) -> Figure:
    """A picture, and beside it the same with attention over it.

    Args:
        pixels: ``[C, H, W]`` (uint8), as the user has it.
        size: height and width as the model saw it, in whose pixels the regions lie.
        look: where the model looked.
        caption: what the model says.
    """
    image = np.asarray(pixels.permute(1, 2, 0))
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    height, width = image.shape[:2]
    side = (WIDTH / 2 - 0.1) * min(max(height / width, 0.3), 2.0)
    figure = Figure(figsize=(WIDTH, side + 0.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    # enlarged pixels stay pixels, large pictures are made smaller without jags
    smooth: Any = "nearest" if max(height, width) < 200 else "antialiased"
    left.imshow(image, interpolation=smooth)
    pale = 0.35 + 0.65 * np.repeat(image.mean(2, keepdims=True), 3, axis=2) / 255
    right.imshow(pale, interpolation=smooth)
    spots = np.empty((height, width, 4))
    spots[..., :3] = to_rgb(SPOT)
    spots[..., 3] = 0.85 * _grid(look, height / size[0], width / size[1], (height, width))
    right.imshow(spots, interpolation="nearest")
    for axes in (left, right):
        axes.set_axis_off()
    _titles(left, caption)
    right.set_title(look.title, fontsize=9, color=GREY, loc="left")
    return figure


def sound(log_mel: Tensor, seconds: float, rate: int, look: Look, caption: str) -> Figure:
    """A spectrogram, coloured where the model looked, and the weights below it.

    Args:
        log_mel: ``[frames, n_mels]``.
        seconds: length of the sound.
        rate: samples per second, in which the regions lie.
        look: where the model looked.
        caption: what the model says.
    """
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    image = np.asarray(log_mel.T, dtype=float)
    low, high = np.quantile(image, 0.02), image.max()
    upper.imshow(
        image, origin="lower", aspect="auto", extent=(0.0, seconds, 0, len(image)), cmap="gray_r",
        vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest",
    )  # fmt: skip
    weights = np.asarray(look.weights, dtype=float)
    edges = np.asarray(look.regions, dtype=float) / rate
    for (start, stop), shown in zip(edges, strength(weights), strict=True):
        upper.axvspan(start, stop, color=SPOT, alpha=0.6 * float(shown), linewidth=0)
    lower.bar(edges[:, 0], 100 * weights, edges[:, 1] - edges[:, 0], align="edge", color=SPOT, linewidth=0)
    for axes, label in ((upper, "mel band"), (lower, "weight, %")):
        axes.set_ylabel(label, fontsize=8, color=GREY)
        axes.tick_params(labelsize=8, colors=GREY, length=2)
        axes.spines[["top", "right"]].set_visible(False)
    lower.set_xlabel("seconds", fontsize=8, color=GREY)
    lower.set_xlim(0, seconds)
    _titles(upper, caption, look.title)
    return figure


def _grid(look: Look, down: float, across: float, size: tuple[int, int]) -> Any:
    """Strength at each pixel of the user's picture ``[H, W]``; ``down`` and ``across`` scale the regions to it."""
    shown = np.zeros(size)
    scale = np.array([down, across, down, across])
    for box, each in zip(np.asarray(look.regions, dtype=float), strength(look.weights), strict=True):
        top, left, bottom, right = np.round(box * scale).astype(int)
        shown[top:bottom, left:right] = each
    return shown


def _titles(axes: Axes, caption: str, below: str = "") -> None:
    """What the model says, and what is drawn."""
    axes.set_title(shortened(caption), fontsize=11, color=INK, loc="left", weight="bold")
    if below:
        axes.set_title(below, fontsize=9, color=GREY, loc="right")


def shortened(caption: str, most: int = 60) -> str:
    """A caption that fits into one line, and is not taken for mathematics."""
    line = " ".join(caption.split())
    cut = line if len(line) <= most else line[: most - 1] + "…"
    return cut.replace("$", r"\$")
