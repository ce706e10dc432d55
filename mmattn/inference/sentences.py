"""Attention drawn over a text: words as coloured as the model looked at them."""

from __future__ import annotations

import unicodedata

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from torch import Tensor

from mmattn.inference.drawing import GREY, INK, SPOT, WIDTH, shortened, strength
from mmattn.inference.looking import Look

#: In inches: of a line, of the space between words, around a word, at the sides.
_ROW, _SPACE, _AROUND, _MARGIN = 0.36, 0.11, 0.03, 0.2
_SIZE = 13  # of the letters, in points
#: Where letters are taken from, each where those before have none and the system has it.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans",
    "Arial Unicode MS",
    "Microsoft YaHei",
)


def sentence(text: str, look: Look, caption: str) -> Figure:
    """A text, its words as coloured as the model looked at them; long texts are cut off after 40 lines.

    Args:
        text: what was read.
        look: where the model looked; the weights of a word's tokens add up.
        caption: what the model says.
    """
    spans = words(text)
    weights = word_weights(spans, look.weights, look.regions)
    figure = Figure(figsize=(WIDTH, 1.0))
    known = fontManager.get_font_names()
    families = [name for name in _FONTS if name in known]
    places = _places(figure, text, spans, families)
    height = 0.8 + _ROW * (places[-1][1] + 1 if places else 1)
    figure.set_size_inches(WIDTH, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    axes.text(_MARGIN, 0.3, shortened(caption), fontsize=11, color=INK, weight="bold", va="center")
    axes.text(_MARGIN, 0.55, look.title, fontsize=9, color=GREY, va="center")
    for (start, stop), (x, line), each in zip(spans, places, strength(weights), strict=False):
        box = {"boxstyle": "round,pad=0.15", "facecolor": SPOT, "alpha": 0.85 * float(each), "linewidth": 0}
        axes.text(
            x, 0.9 + _ROW * line, text[start:stop].replace("$", r"\$"), fontsize=_SIZE, color=INK,
            fontfamily=families, va="center_baseline", bbox=box,
        )  # fmt: skip
    return figure


def words(text: str) -> list[tuple[int, int]]:
    """Words and marks as spans of characters; in scripts without spaces each character is one.

    Example:
        >>> words("don't, 注意!")
        [(0, 3), (3, 4), (4, 5), (5, 6), (7, 8), (8, 9), (9, 10)]
    """
    spans: list[tuple[int, int]] = []
    joined = False
    for index, character in enumerate(text):
        letter = unicodedata.category(character)[0] in "LMN"
        wide = unicodedata.east_asian_width(character) in "WF"
        if letter and joined and not wide:
            spans[-1] = (spans[-1][0], index + 1)
        elif not character.isspace():
            spans.append((index, index + 1))
        joined = letter and not wide
    return spans


def word_weights(spans: list[tuple[int, int]], weights: Tensor, regions: Tensor) -> list[float]:
    """For each word the sum of the weights of its tokens; a token that reaches over several words goes to each by
    the share of its characters in it.

    Example:
        >>> import torch
        >>> word_weights([(0, 2), (3, 5)], torch.tensor([0.5, 0.5]), torch.tensor([[0, 2], [1, 5]]))
        [0.6666666666666666, 0.3333333333333333]
    """
    if not spans:
        return []
    words_ = np.asarray(spans)
    tokens = np.asarray(regions).reshape(-1, 2)
    starts = np.maximum(words_[:, None, 0], tokens[None, :, 0])
    stops = np.minimum(words_[:, None, 1], tokens[None, :, 1])
    shared = np.clip(stops - starts, 0, None).astype(float)  # [words, tokens]
    shares = shared / np.maximum(shared.sum(0), 1)
    return [float(x) for x in shares @ np.asarray(weights, dtype=float)]


def _places(
    figure: Figure, text: str, spans: list[tuple[int, int]], families: list[str]
) -> list[tuple[float, int]]:
    """Where each word begins, in inches, and in which line, of at most 40 lines."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    probe = figure.text(0, 0, "", fontsize=_SIZE, fontfamily=families)
    places: list[tuple[float, int]] = []
    x, line, end = _MARGIN, 0, 0
    for start, stop in spans:
        probe.set_text(text[start:stop].replace("$", r"\$"))
        extent = probe.get_window_extent(renderer).width / figure.dpi
        x += _SPACE if start > end else _AROUND
        if x + extent > WIDTH - _MARGIN and places:
            x, line = _MARGIN, line + 1
            if line == 40:
                break
        places.append((x, line))
        x, end = x + extent, stop
    probe.remove()
    return places
