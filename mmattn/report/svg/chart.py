"""Lines with bands over an axis: one small chart, to be set beside others of its kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from markupsafe import Markup

from mmattn.report.svg.elements import drawing, element, group, number
from mmattn.report.svg.scale import Kind, Scale, powers, ticks

WIDTH, HEIGHT = 340.0, 236.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 40.0
_MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Point:
    """One point of a line: ``y`` in the middle of a band from ``low`` to ``high``."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One line: its name, the number of its colour and mark (0..7), and its points from left to right."""

    name: str
    colour: int
    points: list[Point]


@dataclass(frozen=True)
class Axis:
    """An axis: its words, ends (None: what the values need), scale, marks, and how a value is written."""

    label: str
    low: float | None = None
    high: float | None = None
    kind: Kind = "linear"
    marks: list[float] = field(default_factory=list)
    write: Callable[[float], str] = number

    def scale(self, values: list[float], start: float, stop: float) -> Scale:
        """The scale that holds ``values``."""
        kept = [value for value in values if self.kind != "log" or value > 0]
        low = min(kept, default=1.0 if self.kind == "log" else 0.0) if self.low is None else self.low
        high = max(kept, default=low + 1) if self.high is None else self.high
        if self.kind == "log":
            low, high = (low / 1.25, high * 1.25) if self.low is None else (low, high)
        elif self.low is None or self.high is None:
            room = 0.06 * (high - low)
            low = low if self.low is not None else low - room
            high = high if self.high is not None else high + room
        return Scale(low, high if high > low else low + 1, start, stop, self.kind)

    def places(self, scale: Scale) -> list[float]:
        """Values to mark."""
        if self.marks:
            return [value for value in self.marks if scale.low <= value <= scale.high]
        if self.kind != "log":
            return ticks(scale.low, scale.high)
        whole = powers(scale.low, scale.high)
        if len(whole) > 2:
            return whole
        steps = [factor * value for value in powers(scale.low / 10, scale.high) for factor in (1, 2, 5)]
        return [value for value in steps if scale.low <= value <= scale.high]


def mark(kind: int, x: float, y: float, class_: str, title: str) -> Markup:
    """A mark of the shape that belongs to a colour, with ``title`` as its words."""
    shape, words = _MARKS[kind % len(_MARKS)], element("title", title)
    if shape == "circle":
        return element("circle", words, cx=x, cy=y, r=2.9, class_=class_)
    if shape == "square":
        return element("rect", words, x=x - 2.6, y=y - 2.6, width=5.2, height=5.2, class_=class_)
    path = "M0-3.6L3.4 2.6H-3.4Z" if shape == "triangle" else "M0-3.7L3.7 0L0 3.7L-3.7 0Z"
    return element("path", words, d=path, transform=f"translate({number(x)} {number(y)})", class_=class_)


def _path(places: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{number(x, 1)} {number(y, 1)}" for x, y in places)


def _series(series: Series, across: Scale, up: Scale, axes: tuple[Axis, Axis]) -> Markup:
    points = [point for point in series.points if math.isfinite(point.y)]
    if not points:
        return Markup()
    line = [(across(point.x), up(point.y)) for point in points]
    band = [(across(p.x), up(p.high)) for p in points] + [(across(p.x), up(p.low)) for p in reversed(points)]
    # A crowd of marks hides the line that they stand on.
    every = max(1, math.ceil(len(points) / 12))
    marks = [
        mark(
            series.colour,
            *line[index],
            class_="mark",
            title=f"{series.name}: {axes[1].write(point.y)} at {axes[0].write(point.x)}",
        )
        for index, point in enumerate(points)
        if index % every == 0 or index == len(points) - 1
    ]
    wide = any(point.high > point.low for point in points)
    return group(
        element("path", d=_path(band) + "Z", class_="band") if wide else Markup(),
        element("path", d=_path(line), class_=f"line dash{series.colour}"),
        *marks,
        class_=f"c{series.colour}",
    )


def _frame(across: Scale, up: Scale, axes: tuple[Axis, Axis]) -> list[Markup]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    out = []
    for value in axes[1].places(up):
        y = up(value)
        out.append(element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
        out.append(
            element("text", axes[1].write(value), x=_LEFT - 6, y=y + 3.8, text_anchor="end", class_="tick")
        )
    for value in axes[0].places(across):
        x = across(value)
        out.append(
            element("text", axes[0].write(value), x=x, y=bottom + 15, text_anchor="middle", class_="tick")
        )
    middle = (_LEFT + right) / 2
    out.append(element("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    out.append(
        element("text", axes[0].label, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="axis-name")
    )
    return out


def chart(series: list[Series], x: Axis, y: Axis, label: str) -> Markup:
    """A chart of ``series``; ``label`` says in words what it shows. The name of ``y`` belongs above it."""
    points = [point for one in series for point in one.points if math.isfinite(point.y)]
    across = x.scale([point.x for point in points], _LEFT + 6, WIDTH - _RIGHT - 6)
    heights = [value for point in points for value in (point.low, point.high) if math.isfinite(value)]
    up = y.scale(heights, HEIGHT - _BOTTOM, _TOP)
    lines = [_series(one, across, up, (x, y)) for one in series]
    return drawing(WIDTH, HEIGHT, label, *_frame(across, up, (x, y)), *lines, class_="chart")
