"""What the measures of one run have found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from mmattn.report.measures import HeadMeasure

Curve = list[list[float]]


@dataclass
class Findings:
    """Numbers by name, as in :class:`mmattn.report.measures.Measures`."""

    values: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    heads: list[HeadMeasure] = field(default_factory=list)
    matrices: dict[str, list[list[float]]] = field(default_factory=dict)

    def add_curve(self, name: str, curve: Curve) -> None:
        """Keep a curve, and its mean height under its name."""
        self.curves[name] = curve
        self.values[name] = mean_height(curve)


def mean_height(curve: Curve) -> float:
    """Area under points ``[x, y]`` in order of x, by the trapezoidal rule, over the stretch of x."""
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    return area / (curve[-1][0] - curve[0][0])


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean of curves over the same x."""
    return [[points[0][0], sum(y for _, y in points) / len(points)] for points in zip(*curves, strict=True)]
