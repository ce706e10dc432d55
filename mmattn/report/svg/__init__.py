"""Vector graphics for the page, drawn here: colours come from the page's style, so they follow light and dark."""

from mmattn.report.svg.chart import Axis, Point, Series, chart
from mmattn.report.svg.elements import element, number
from mmattn.report.svg.heat import heat
from mmattn.report.svg.interval import Span, interval_line, ruler
from mmattn.report.svg.scale import Scale, ticks
from mmattn.report.svg.strip import Dot, strip

__all__ = [
    "Axis",
    "Dot",
    "Point",
    "Scale",
    "Series",
    "Span",
    "chart",
    "element",
    "heat",
    "interval_line",
    "number",
    "ruler",
    "strip",
    "ticks",
]
