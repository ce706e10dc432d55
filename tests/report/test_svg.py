"""Drawings stand where the numbers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

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
    strip,
    ticks,
)
from mmattn.report.svg.scale import powers, reach


def test_scales_hit_their_ends_and_hold_on_to_them() -> None:
    line = Scale(-2, 8, 0, 100)
    assert [line(value) for value in (-2, 0, 3, 8)] == [0, 20, 50, 100]
    assert line(-9) == 0
    assert line(99) == 100
    assert Scale(1, 100, 0, 50, "log")(10) == pytest.approx(25)
    bent = Scale(-10, 10, 0, 100, "asinh")
    assert bent(0) == pytest.approx(50)
    assert bent(5) - 50 == pytest.approx(50 - bent(-5))
    assert bent(2) - bent(1) > bent(10) - bent(9)


def test_scales_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"Scale.high must be above low: got 1 to 1"):
        Scale(1, 1, 0, 1)
    with pytest.raises(ValueError, match=r"Scale.low must be positive on a log scale: got 0"):
        Scale(0, 1, 0, 1, "log")


@pytest.mark.parametrize("ends", [(0, 1), (-3, 27), (0.001, 0.0042), (-1e-9, 1e-9), (90.2, 91.7), (0, 1e7)])
def test_ticks_are_few_round_and_inside(ends: tuple[float, float]) -> None:
    found = ticks(*ends)
    assert 2 <= len(found) <= 7
    assert all(ends[0] - 1e-9 <= value <= ends[1] + 1e-9 for value in found)


def test_powers_and_reach() -> None:
    assert powers(1, 8, 2) == [1.0, 2.0, 4.0, 8.0]
    low, high = reach([1.0, float("nan"), 3.0], 0.1, (0.0,))
    assert (low, high) == pytest.approx((-0.3, 3.3))
    assert reach([]) == pytest.approx((-0.06, 1.06))


def test_text_cannot_become_markup() -> None:
    assert element("text", "<script>", title='"&') == '<text title="&#34;&amp;">&lt;script&gt;</text>'


def _places(drawing: str, tag: str, name: str) -> list[float]:
    root = ET.fromstring(drawing)
    return [float(found.get(name, "nan").rstrip("%")) for found in root.iter(tag)]


def test_interval_stands_at_its_numbers() -> None:
    row = interval_line(Span(2, 1, 4, 3, "supported"), Scale(-5, 5, 0, 100), "words")
    assert _places(row, "circle", "cx") == [70]
    lines = {found.get("class"): found for found in ET.fromstring(row).iter("line")}
    assert (lines["zero"].get("x1"), lines["delta"].get("x1")) == ("50%", "80%")
    assert (lines["whisker"].get("x1"), lines["whisker"].get("x2")) == ("60%", "90%")
    assert "arrow" not in row


def test_interval_beyond_its_drawing_has_arrows() -> None:
    row = interval_line(Span(0, -50, 50), Scale(-5, 5, 0, 100), "words")
    assert row.count('class="arrow"') == 2


def test_chart_draws_each_line_with_its_band_and_marks() -> None:
    series = [
        Series("a & b", 0, [Point(0, 0.5, 0.4, 0.6), Point(1, 1.0, 1.0, 1.0)]),
        Series("empty", 1, []),
        Series("gap", 2, [Point(0, 0.2, 0.2, 0.2), Point(0.5, float("nan"), 0, 0), Point(1, 0.1, 0.1, 0.1)]),
    ]
    drawing = chart(series, Axis("x", 0, 1), Axis("y", 0, 1), "two lines")
    ET.fromstring(drawing)
    assert drawing.count('class="band"') == 1
    assert drawing.count('class="mark"') == 4
    assert "a &amp; b: 0.5 at 0" in drawing
    (band,) = re.findall(r'd="(M[^"]*Z)" class="band"', drawing)
    assert len(band.split("L")) == 4


def test_many_points_get_few_marks() -> None:
    points = [Point(x, 0.5, 0.5, 0.5) for x in range(100)]
    drawing = chart([Series("a", 0, points)], Axis("x"), Axis("y", 0, 1), "words")
    assert drawing.count('class="mark"') <= 13


def test_log_axes_mark_powers() -> None:
    series = [Series("a", 0, [Point(64, 0.002, 0.001, 0.003), Point(1024, 0.2, 0.1, 0.3)])]
    drawing = chart(series, Axis("tokens", kind="log", marks=[64, 1024]), Axis("s", kind="log"), "words")
    texts = {found.text for found in ET.fromstring(drawing).iter("text")}
    assert {"64", "1024", "0.01", "0.1"} <= texts


def test_heat_is_deeper_for_more_and_square() -> None:
    drawing = heat([[0.0, 1.0], [0.25, 0.5]], "words")
    assert re.findall(r"fill-opacity:([\d.]+)", drawing) == ["0", "1", "0.25", "0.5"]
    with pytest.raises(ValueError, match="a table of heads must be square"):
        heat([[0.0, 1.0]], "words")


def test_strip_puts_dots_in_order_of_their_values() -> None:
    rows = {"removed": [Dot(0.9, "a"), Dot(0.8, "b")], "alone": [Dot(0.5, "c")]}
    places = _places(strip(rows, {"all": 0.92}, "accuracy", "words"), "circle", "cx")
    assert places[2] < places[0] < places[1]
