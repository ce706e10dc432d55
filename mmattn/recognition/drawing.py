"""A picture of an alignment: the spectrogram, the units, and what they attended to."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.adapters.base import require
from mmattn.observation import observe
from mmattn.recognition.alignment import token_spans
from mmattn.recognition.ctc import check_fits
from mmattn.recognition.recognizer import SpeechRecognizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure


@torch.no_grad()
def draw_alignment(
    recognizer: SpeechRecognizer, wave: Tensor, text: str, layer: int = -1, head: int | None = None
) -> Figure:
    """Draw where each unit of a text is spoken, and what attention looked at there.

    Above, the log-mel spectrogram with the units over it. Below, a row for each unit, from top to bottom: the weights
    that the tokens of the unit gave to the tokens of the wave, averaged over the former; the frame in a row is the
    unit itself. Call ``eval()`` first.

    Args:
        recognizer: whose encoder has attention in blocks.
        wave: ``[S]``.
        text: what is said in it.
        layer: which block's attention; negative numbers count from the last.
        head: which head; ``None`` takes the mean of all.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: the text is empty or too long for the wave, or layer or head do not exist.
    """
    require(importlib.util.find_spec("matplotlib") is not None, "matplotlib", "tasks", "draw_alignment")
    from matplotlib.figure import Figure

    [ids] = recognizer.units.encode([text])
    if not ids:
        raise ValueError(f"text must have at least one unit to draw: got {text!r}")
    check_fits([recognizer.adapter.num_tokens(len(wave))], [ids], [text])
    with observe(recognizer.encoder, weights=True) as record:
        logits = recognizer([wave])
    names_of_layers = list(record)
    weights = _chosen([record[name].weights for name in names_of_layers], layer, head)
    spans = token_spans(logits.values, ids)
    [regions] = recognizer.adapter.regions([wave])
    seconds = regions.double() / recognizer.adapter.sample_rate
    boxes = [(float(seconds[span.start, 0]), float(seconds[span.end - 1, 1])) for span in spans]
    names = [_name(recognizer.units.decode([span.token])) for span in spans]
    figure = Figure(figsize=(10, min(3.2 + 0.2 * len(spans), 16)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, max(0.2 * len(spans), 1.0)])
    step = recognizer.adapter.hop_length / recognizer.adapter.sample_rate
    _draw_spectrogram(above, recognizer.adapter.spectrum(wave), step, boxes, names)
    rows = torch.stack([weights[span.start : span.end].mean(0) for span in spans])
    shown = _draw_rows(below, rows, seconds, boxes, names)
    figure.colorbar(shown, ax=below, pad=0.01, aspect=max(15, len(rows)), label="weight")
    which = "mean of all heads" if head is None else f"head {head}"
    below.set_title(f"attention of each unit, {names_of_layers[layer]}, {which}", fontsize=9)
    above.set_xlim(0, len(wave) / recognizer.adapter.sample_rate)
    return figure


def _chosen(layers: list[Tensor], layer: int, head: int | None) -> Tensor:
    """The weights ``[N, M]`` of one layer's head, or of the mean of its heads."""
    if not -len(layers) <= layer < len(layers):
        raise ValueError(f"layer must be one of {len(layers)} with attention: got {layer}")
    weights = layers[layer][0].float().cpu()
    if head is None:
        return weights.mean(0)
    if not 0 <= head < len(weights):
        raise ValueError(f"head must be one of {len(weights)}: got {head}")
    return weights[head]


#: Of the units over the spectrogram.
_COLORS = ("tab:orange", "tab:blue")


def _name(unit: str) -> str:
    """A unit as it is written in the picture; a space shows."""
    return unit.replace(" ", "\N{OPEN BOX}") or "?"


def _draw_spectrogram(
    axes: Axes, frames: Tensor, step: float, boxes: list[tuple[float, float]], names: list[str]
) -> None:
    """Frames ``[n, n_mels]``, one every ``step`` seconds, with the units above them."""
    extent = (-step / 2, (len(frames) - 0.5) * step, 0, frames.shape[1])
    axes.imshow(frames.T.cpu().numpy(), origin="lower", aspect="auto", extent=extent, cmap="Greys")
    for index, ((start, stop), name) in enumerate(zip(boxes, names, strict=True)):
        # two colours in turn, so that neighbours that touch can be told apart
        axes.axvspan(start, stop, color=_COLORS[index % 2], alpha=0.12, linewidth=0)
        axes.axvspan(start, stop, 0.97, 1.0, color=_COLORS[index % 2], linewidth=0)
        axes.text(
            (start + stop) / 2, 1.02, name, ha="center", va="bottom", fontsize=9,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set_ylabel("mel band")


def _draw_rows(
    axes: Axes, rows: Tensor, seconds: Tensor, boxes: list[tuple[float, float]], names: list[str]
) -> QuadMesh:
    """Weights ``[units, M]`` over the time of the tokens, each row with the place of its unit."""
    from matplotlib.patches import Rectangle

    edges = torch.cat([seconds[:, 0], seconds[-1:, 1]]).numpy()
    shown = axes.pcolormesh(edges, range(len(rows) + 1), rows.numpy(), cmap="viridis", vmin=0)
    for row, (start, stop) in enumerate(boxes):
        axes.add_patch(Rectangle((start, row), stop - start, 1, fill=False, edgecolor="white", linewidth=1.5))
    axes.invert_yaxis()
    axes.set_yticks([row + 0.5 for row in range(len(rows))], names, fontsize=min(8.0, 800 / len(rows)))
    axes.set_xlabel("seconds")
    return shown
