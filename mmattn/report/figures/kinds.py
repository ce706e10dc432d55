"""What a figure is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["share", "count", "seconds", "epoch", "number"]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        name: for the legend.
        colour: number of its colour, 0..7, the same for the same thing on the whole page.
        points: ``[x, y, low, high]`` from left to right; ``low`` and ``high`` bound the runs.
        runs: paths of the runs behind it.
    """

    name: str
    colour: int
    points: list[list[float]]
    runs: list[str]


@dataclass(frozen=True)
class Dots:
    """Heads of one model as dots, in rows by what was done to them.

    Attributes:
        rows: for a name ``[value, ...]``, in the order of ``heads``.
        heads: names of the heads.
        guides: values that stand for the whole model.
        runs: paths of the runs behind it.
    """

    rows: dict[str, list[float]]
    heads: list[str]
    guides: dict[str, float]
    runs: list[str]


@dataclass(frozen=True)
class Table:
    """A square table of numbers for pairs of heads, one for each layer, and the runs behind it."""

    layers: dict[str, list[list[float]]]
    runs: list[str]


@dataclass(frozen=True)
class Panel:
    """One of several drawings of a figure that stand side by side."""

    title: str
    domain: str
    lines: list[Line] = field(default_factory=list)
    dots: Dots | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Attributes:
        id: anchor.
        title: what it shows, a short sentence.
        reading: how to read it.
        x: name of the axis across.
        y: name of the axis up.
        x_unit, y_unit: how values are written.
        panels: side by side.
        log: which axes are logarithmic: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
    """

    id: str
    title: str
    reading: str
    x: str
    y: str
    panels: list[Panel]
    x_unit: Unit = "share"
    y_unit: Unit = "share"
    log: Literal["", "x", "y", "xy"] = ""
