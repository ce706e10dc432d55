"""Intervals on a line: what forest plots are made of. Places are percentages, so a row fits any width."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from mmattn.report.svg.elements import element, number
from mmattn.report.svg.scale import Scale

HEIGHT = 26.0


@dataclass(frozen=True)
class Span:
    """An estimate with its interval, the smallest effect that counts (or None), and the class of its colour."""

    estimate: float
    low: float
    high: float
    delta: float | None = None
    class_: str = "inconclusive"


def _at(place: float) -> str:
    return f"{number(place)}%"


def _upright(place: float, class_: str) -> Markup:
    return element("line", x1=_at(place), x2=_at(place), y1="0", y2="100%", class_=class_)


def _arrow(place: float, middle: float, left: bool) -> Markup:
    """An arrow head at an end where the interval goes on beyond the drawing."""
    path = "M0 4L-6 0L0-4" if left else "M0 4L6 0L0-4"
    inner = element("path", d=path, class_="arrow")
    shift = 7 if left else -7
    moved = element("g", inner, transform=f"translate({shift} {number(middle)})")
    return element("svg", moved, x=_at(place), y="0", overflow="visible")


def interval_line(span: Span, scale: Scale, label: str, height: float = HEIGHT) -> Markup:
    """One row: zero and delta as upright lines, the interval as a bar, the estimate as a dot.

    Args:
        span: what is drawn.
        scale: to 0..100, percent of the width.
        label: the row in words.
        height: of the row in pixels.
    """
    middle = height / 2
    parts = []
    if scale.low < 0 < scale.high:
        parts.append(_upright(scale(0.0), "zero"))
    if span.delta is not None and scale.low < span.delta < scale.high:
        parts.append(_upright(scale(span.delta), "delta"))
    low, high = scale(span.low), scale(span.high)
    parts.append(element("line", x1=_at(low), x2=_at(high), y1=middle, y2=middle, class_="whisker"))
    if span.low < scale.low:
        parts.append(_arrow(low, middle, left=True))
    if span.high > scale.high:
        parts.append(_arrow(high, middle, left=False))
    parts.append(element("circle", cx=_at(scale(span.estimate)), cy=middle, r=0.18 * height, class_="dot"))
    return element(
        "svg",
        element("title", label),
        *parts,
        class_=f"span {span.class_}",
        height=height,
        role="img",
        aria_label=label,
    )


def ruler(scale: Scale, marks: list[float], names: list[str]) -> Markup:
    """The axis below rows of intervals: a short line and a name for each of ``marks``."""
    parts = []
    for value, name in zip(marks, names, strict=True):
        place = scale(value)
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
        parts.append(element("line", x1=_at(place), x2=_at(place), y1="0", y2="5", class_="axis"))
        parts.append(element("text", name, x=_at(place), y="17", text_anchor=anchor, class_="tick"))
    return element(
        "svg",
        element("line", x1="0", x2="100%", y1="0.5", y2="0.5", class_="axis"),
        *parts,
        class_="ruler",
        aria_hidden="true",
    )
