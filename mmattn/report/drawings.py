"""Figures and comparisons as vector graphics."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from markupsafe import Markup

from mmattn.report import words
from mmattn.report.accuracy import Range
from mmattn.report.claims.results import Comparison, Unit, amount
from mmattn.report.figures import Figure, Panel
from mmattn.report.figures.kinds import Unit as AxisUnit
from mmattn.report.names import domain_name
from mmattn.report.svg import (
    Axis,
    Dot,
    Point,
    Scale,
    Series,
    Span,
    chart,
    element,
    heat,
    interval_line,
    number,
    strip,
)
from mmattn.report.svg.scale import reach, ticks

_WRITE: dict[AxisUnit, Callable[[float], str]] = {
    "share": lambda value: f"{number(100 * value, 1)}\N{NO-BREAK SPACE}%",
    "count": lambda value: number(value, 0),
    "epoch": lambda value: number(value, 0),
    "seconds": words.short_seconds,
    "number": number,
}
#: Effects in units of what counts, where the summary's axis ends on either side.
_FEWEST, _MOST = -6.0, 60.0


def style(comparison: Comparison) -> str:
    """The class of a comparison: its verdict with hyphens, and ``secondary`` where it has no weight."""
    return comparison.verdict.replace(" ", "-") + ("" if comparison.primary else " secondary")


def said(comparison: Comparison) -> str:
    """A comparison in words for who does not see the drawing."""
    estimate = comparison.estimate
    if estimate is None:
        return f"{domain_name(comparison.domain)}, {comparison.words}: {comparison.reason}"
    found = f"{amount(estimate.mean, comparison.unit)}, 95 % interval {between(comparison)}"
    return f"{domain_name(comparison.domain)}, {comparison.words}: {found}; {comparison.verdict}"


def between(comparison: Comparison) -> str:
    """The interval of a comparison, without its unit: ``1.2 to 3.4``; empty without an estimate."""
    estimate = comparison.estimate
    if estimate is None:
        return ""
    ends = (amount(value, comparison.unit).partition(" ")[0] for value in (estimate.low, estimate.high))
    return " to ".join(ends)


def would_find(comparison: Comparison) -> str:
    """The smallest effect that the grid would find; accuracies differ by 100 points at most."""
    estimate = comparison.estimate
    if estimate is None:
        return words.MISSING
    if comparison.unit == "points" and estimate.detectable > 100:
        return "over 100 points"
    return amount(estimate.detectable, comparison.unit)


def glance(comparison: Comparison) -> Markup:
    """One comparison as a row of the summary, on an axis in units of what counts."""
    estimate = comparison.estimate
    if estimate is None:
        return Markup()
    by = abs(comparison.delta) or 1.0
    counts = comparison.delta / by
    span = Span(estimate.mean / by, estimate.low / by, estimate.high / by, counts, style(comparison))
    return interval_line(span, Scale(_FEWEST, _MOST, 0, 100, "asinh"), said(comparison), 15)


def forest_scale(comparisons: list[Comparison]) -> Scale:
    """One scale, to percent of the width, that holds the intervals of ``comparisons``, zero and what counts.

    Of an interval more than three times as wide as the median one, an end may be cut off: it would hide the rest.
    """
    found = [part.estimate for part in comparisons if part.estimate is not None]
    deltas = tuple(part.delta for part in comparisons)
    room = 1.5 * median(estimate.high - estimate.low for estimate in found) if found else 0.0
    ends = [max(estimate.low, estimate.mean - room) for estimate in found]
    ends += [min(estimate.high, estimate.mean + room) for estimate in found]
    return Scale(*reach(ends, 0.05, (0.0, *deltas)), 0, 100)


def forest_row(comparison: Comparison, scale: Scale) -> Markup:
    """One comparison as a row of a forest; nothing without an estimate."""
    estimate = comparison.estimate
    if estimate is None:
        return Markup()
    span = Span(estimate.mean, estimate.low, estimate.high, comparison.delta, style(comparison))
    return interval_line(span, scale, said(comparison))


def forest_marks(scale: Scale, unit: Unit) -> tuple[list[float], list[str]]:
    """Values to mark below a forest, and how they are written."""
    marks = ticks(scale.low, scale.high, 5)
    if unit == "log2":
        whole = [value for value in marks if value == round(value)]
        marks = whole if len(whole) > 2 else marks
        return marks, [f"{number(2.0**value)}\N{MULTIPLICATION SIGN}" for value in marks]
    return marks, [number(value, 3).replace("-", "\N{MINUS SIGN}") for value in marks]


def bar(found: Range) -> Markup:
    """An accuracy as the filled part of a line from 0 to 100 %."""
    return element(
        "svg",
        element("rect", width="100%", height="100%", rx=2, class_="track"),
        element("rect", width=f"{number(100 * found.mean)}%", height="100%", rx=2, class_="value"),
        class_="bar",
        height=4,
        aria_hidden="true",
    )


def _heights(figure: Figure) -> list[float]:
    return [v for panel in figure.panels for line in panel.lines for point in line.points for v in point[2:]]


def _axes(figure: Figure, panel: Panel) -> tuple[Axis, Axis]:
    low = high = None
    if figure.y_unit == "share":
        low, high = 0.0, 1.0
        least = min(_heights(figure), default=0.0)
        if figure.x_unit in ("count", "epoch") or least > 0.6:
            low = max(0.0, 0.1 * int(10 * least - 0.3))
    marks = sorted({point[0] for line in panel.lines for point in line.points})
    if figure.x_unit == "epoch":
        marks = marks[:: -(-len(marks) // 6)]
    x = Axis(
        figure.x,
        kind="log" if "x" in figure.log else "linear",
        marks=marks if figure.x_unit in ("count", "epoch") else [],
        write=_WRITE[figure.x_unit],
    )
    y = Axis(figure.y, low, high, "log" if "y" in figure.log else "linear", write=_WRITE[figure.y_unit])
    return x, y


def _told(figure: Figure, panel: Panel) -> str:
    ends = [f"{line.name} ends at {_WRITE[figure.y_unit](line.points[-1][1])}" for line in panel.lines]
    return f"{panel.title}: {figure.y} over {figure.x}; {words.listing(ends)}."


def panel_drawing(figure: Figure, panel: Panel) -> Markup:
    """One panel of a figure."""
    if panel.dots is not None:
        heads = panel.dots.heads
        rows = {
            name: [
                Dot(value, f"{head}: {words.percent(value)}")
                for head, value in zip(heads, values, strict=True)
            ]
            for name, values in panel.dots.rows.items()
        }
        label = f"{panel.title}: accuracy of {len(heads)} heads, each removed and each alone."
        return strip(rows, panel.dots.guides, figure.x, label, _WRITE["share"])
    if panel.table is not None:
        return Markup().join(
            Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
                heat(table, f"{panel.title}, {layer}: distances between {len(table)} heads."), layer
            )
            for layer, table in panel.table.layers.items()
        )
    series = [
        Series(line.name, line.colour, [Point(*point) for point in line.points]) for line in panel.lines
    ]
    return chart(series, *_axes(figure, panel), _told(figure, panel))


def legend(figure: Figure) -> list[tuple[str, int]]:
    """Names and colours of the lines of a figure, each once."""
    return list({(line.name, line.colour): None for panel in figure.panels for line in panel.lines})
