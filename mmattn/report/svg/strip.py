"""Dots on lines: one line for each kind, one dot for each thing measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from mmattn.report.svg.chart import WIDTH, mark
from mmattn.report.svg.elements import drawing, element, number
from mmattn.report.svg.scale import Scale, reach, ticks

_LEFT, _RIGHT, _ROW, _BOTTOM = 92.0, 14.0, 40.0, 40.0


@dataclass(frozen=True)
class Dot:
    """A value and its words."""

    value: float
    title: str


def strip(
    rows: dict[str, list[Dot]],
    guides: dict[str, float],
    axis: str,
    label: str,
    write: Callable[[float], str] = number,
) -> Markup:
    """Rows of dots over one axis; ``guides`` are upright lines that stand for a value with a name.

    Dots that would cover one another are moved up and down by turns, which means nothing.
    """
    values = [dot.value for dots in rows.values() for dot in dots] + list(guides.values())
    low, high = reach(values)
    height = len(rows) * _ROW + _BOTTOM + 16
    scale = Scale(low, high, _LEFT, WIDTH - _RIGHT)
    bottom = 16 + len(rows) * _ROW
    parts = []
    for value in ticks(low, high):
        x = scale(value)
        parts.append(element("line", x1=x, x2=x, y1=16, y2=bottom, class_="grid"))
        parts.append(element("text", write(value), x=x, y=bottom + 15, text_anchor="middle", class_="tick"))
    for index, (name, value) in enumerate(guides.items()):
        x = scale(value)
        parts.append(element("line", x1=x, x2=x, y1=12, y2=bottom, class_=f"guide dash{2 * index}"))
        anchor = "end" if x > WIDTH * 0.7 else "start" if x < WIDTH * 0.4 else "middle"
        parts.append(element("text", name, x=x, y=9, text_anchor=anchor, class_="tick"))
    for row, (name, dots) in enumerate(rows.items()):
        y = 16 + (row + 0.5) * _ROW
        parts.append(element("text", name, x=_LEFT - 10, y=y + 4, text_anchor="end", class_="row-name"))
        for index, dot in enumerate(sorted(dots, key=lambda dot: dot.value)):
            if math.isfinite(dot.value):
                shift = (0, -7, 7)[index % 3]
                parts.append(mark(0, scale(dot.value), y + shift, f"mark c{row}", dot.title))
    parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(element("text", axis, x=middle, y=height - 5, text_anchor="middle", class_="axis-name"))
    return drawing(WIDTH, height, label, *parts, class_="chart strip")
