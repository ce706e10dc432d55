"""A square table of numbers as shades."""

from __future__ import annotations

from markupsafe import Markup

from mmattn.report.svg.elements import drawing, element, number

_CELL, _MARGIN = 34.0, 20.0


def heat(matrix: list[list[float]], label: str, full: float = 1.0) -> Markup:
    """``matrix`` [N][N] with ``full`` as the deepest shade; rows and columns are numbered from 1.

    Raises:
        ValueError: if the table is not square.
    """
    count = len(matrix)
    if any(len(row) != count for row in matrix):
        raise ValueError(f"a table of heads must be square: got {count} rows of {[len(r) for r in matrix]}")
    size = _MARGIN + count * _CELL
    parts = []
    for index in range(count):
        place = _MARGIN + (index + 0.5) * _CELL
        parts.append(element("text", str(index + 1), x=place, y=13, text_anchor="middle", class_="tick"))
        parts.append(
            element("text", str(index + 1), x=_MARGIN - 7, y=place + 4, text_anchor="end", class_="tick")
        )
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            share = min(1.0, max(0.0, value / full))
            x, y = _MARGIN + column * _CELL, _MARGIN + row * _CELL
            shade = "shade deep" if share > 0.55 else "shade"
            text = element(
                "text", f"{value:.2f}", x=x + _CELL / 2, y=y + _CELL / 2 + 3.6, text_anchor="middle"
            )
            box = element(
                "rect",
                element("title", f"heads {row + 1} and {column + 1}: {value:.3f}"),
                x=x + 1, y=y + 1, width=_CELL - 2, height=_CELL - 2, rx=3,
                style=f"fill-opacity:{number(share)}",
            )  # fmt: skip
            ground = element(
                "rect", x=x + 1, y=y + 1, width=_CELL - 2, height=_CELL - 2, rx=3, class_="ground"
            )
            parts.append(element("g", ground, box, text, class_=shade))
    return drawing(size, size, label, *parts, class_="heatmap")
