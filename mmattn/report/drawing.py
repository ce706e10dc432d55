"""Examples as the page shows them: pictures as data URIs, weights as boxes, bars and shades."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.image import imsave

from mmattn.report.examples import AttentionExample, AttentionLayer, Picture, Sentence, Spectrogram
from mmattn.report.pieces import pieces
from mmattn.report.words import percent

_GAMMA = 0.7


def data_uri(png: bytes) -> str:
    """A PNG file as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def full_scale(layer: AttentionLayer) -> float:
    """The weight that is drawn at full strength: the largest of the layer, or four equal shares.

    It is whichever is more, and never above 1. Heads of a layer can so be compared by eye, and a head that
    spreads its attention evenly looks pale.
    """
    return max(max(max(head, default=0.0) for head in layer.heads), 4 / max(4, len(layer.heads[0])))


def strength(weight: float, full: float) -> float:
    """How strongly ``weight`` is drawn, in [0, 1]; small weights are lifted so that they can be seen."""
    return float(min(1.0, weight / full) ** _GAMMA)


def _png(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    # Without the version of matplotlib in the file, equal pictures are equal bytes.
    plain: dict[str, Any] = {"Software": None}
    imsave(buffer, array, format="png", metadata=plain)
    return buffer.getvalue()


def picture_array(picture: Picture) -> np.ndarray[Any, Any]:
    """The picture as ``[H, W, 3]`` in [0, 1]."""
    array = np.asarray(picture.pixels, dtype=float)
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1)


def spectrogram_array(sound: Spectrogram) -> np.ndarray[Any, Any]:
    """The spectrogram as colours ``[n_mels, frames, 3]``, highest band first; the faintest 2 % clipped."""
    array = np.asarray(sound.log_mel, dtype=float)[::-1]
    low, high = np.quantile(array, 0.02), array.max()
    scaled = np.clip((array - low) / max(high - low, 1e-9), 0, 1)
    return np.asarray(colormaps["cividis"](scaled)[..., :3])


@dataclass(frozen=True)
class HeadView:
    """One head: its name, what is said of it, and marks of weights (boxes, bars or shaded text)."""

    name: str
    note: str
    boxes: list[dict[str, str]] = field(default_factory=list)
    text: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class LayerView:
    """One layer of an example."""

    name: str
    heads: list[HeadView]


@dataclass(frozen=True)
class ExampleView:
    """One example, ready for the template; numbers in ``boxes`` and ``relevant`` are text already."""

    kind: str
    key: str
    example: AttentionExample
    layers: list[LayerView]
    image: str = ""
    width: float = 0
    height: float = 0
    relevant: list[dict[str, str]] = field(default_factory=list)
    chance: str = ""


def _box(
    x: float, y: float, width: float, height: float, weight: float | None = None, full: float = 1
) -> dict[str, str]:
    out = {"x": f"{x:g}", "y": f"{y:g}", "w": f"{width:g}", "h": f"{height:g}"}
    if weight is not None:
        out |= {"a": f"{0.85 * strength(weight, full):.3f}", "t": percent(weight)}
    return out


def _note(layer: AttentionLayer, index: int) -> str:
    masses = layer.relevant_mass
    return "" if masses is None else f"{percent(masses[index])} on relevant"


def _heads(layer: AttentionLayer, draw: Any) -> list[HeadView]:
    full = full_scale(layer)
    return [
        HeadView(f"head {index + 1}", _note(layer, index), **draw(weights, full))
        for index, weights in enumerate(layer.heads)
    ]


def _draw_picture(picture: Picture) -> Any:
    def draw(weights: list[float], full: float) -> dict[str, Any]:
        boxes = [
            _box(c, r, w, h, weight, full)
            for (r, c, h, w), weight in zip(picture.tokens, weights, strict=True)
        ]
        return {"boxes": boxes}

    return draw


def _draw_sound(sound: Spectrogram) -> Any:
    """Bars over time: x in thousandths of the sound's length, heights in a strip of 40 units, to scale."""

    def draw(weights: list[float], full: float) -> dict[str, Any]:
        boxes = []
        for (start, stop), weight in zip(sound.tokens, weights, strict=True):
            height = 40 * min(1.0, weight / full)
            scale = 1000 / sound.seconds
            boxes.append(
                _box(
                    round(start * scale, 1),
                    round(40 - height, 2),
                    round((stop - start) * scale, 1),
                    round(height, 2),
                )
            )
            boxes[-1]["t"] = f"{start:.2f} s: {percent(weight)}"
        return {"boxes": boxes}

    return draw


def _draw_sentence(sentence: Sentence) -> Any:
    """Shaded text; takes the weights of pieces."""
    parts = pieces(sentence)

    def draw(weights: list[float], full: float) -> dict[str, Any]:
        out = []
        for part, weight in zip(parts, weights, strict=True):
            known = any(sentence.relevant[part.start : part.stop])
            mark = Markup(' class="rel"') if known else ""
            style = f"--a:{strength(weight, full):.2f}"
            out.append(
                Markup('{}<span{} style="{}" title="{}">{}</span>').format(
                    part.before, mark, style, percent(weight), part.text
                )
            )
        return {"text": Markup("").join(out)}

    return draw


def _of_pieces(layer: AttentionLayer, sentence: Sentence) -> AttentionLayer:
    """``layer`` with one weight for each piece: a character of several bytes has the sum of their weights."""
    parts = pieces(sentence)
    heads = [[sum(head[part.start : part.stop]) for part in parts] for head in layer.heads]
    return AttentionLayer(layer.name, heads, layer.relevant_mass)


def example_view(example: AttentionExample, key: str) -> ExampleView:
    """``example`` made ready for the page; ``key`` is an identifier that no other example of the page has."""
    shown = example.picture
    chance = "" if example.relevant_share is None else percent(example.relevant_share)
    if isinstance(shown, Sentence):
        merged = [_of_pieces(layer, shown) for layer in example.layers]
        layers = [LayerView(layer.name, _heads(layer, _draw_sentence(shown))) for layer in merged]
        return ExampleView("sentence", key, example, layers, chance=chance)
    if isinstance(shown, Spectrogram):
        layers = [LayerView(layer.name, _heads(layer, _draw_sound(shown))) for layer in example.layers]
        scale = 1000 / shown.seconds
        spans = [
            _box(round(start * scale, 1), 0, round((stop - start) * scale, 1), 40)
            for start, stop in shown.relevant
        ]
        return ExampleView(
            "sound", key, example, layers, data_uri(_png(spectrogram_array(shown))), 1000, 40, spans, chance
        )
    layers = [LayerView(layer.name, _heads(layer, _draw_picture(shown))) for layer in example.layers]
    height, width = shown.size
    boxes = [_box(c, r, w, h) for r, c, h, w in shown.relevant]
    return ExampleView(
        "picture", key, example, layers, data_uri(_png(picture_array(shown))), width, height, boxes, chance
    )


def top_tokens(sentence: Sentence, weights: list[float], most: int = 5) -> list[tuple[str, float]]:
    """The pieces with the largest weights, largest first, for where shading is not to be had."""
    scored = [(part.text, sum(weights[part.start : part.stop])) for part in pieces(sentence)]
    return sorted(scored, key=lambda item: -item[1])[:most]
