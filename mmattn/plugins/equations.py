"""The einsum equations of attention."""

from __future__ import annotations

from typing import Any, NamedTuple


class Equation(NamedTuple):
    """The axes of two operands and of the result."""

    first: str
    second: str
    out: str


def parsed(equation: Any) -> Equation | None:
    """An equation of two operands in which every axis is named; None for others.

    >>> parsed("bhnd, bhmd -> bhnm")
    Equation(first='bhnd', second='bhmd', out='bhnm')
    """
    if not isinstance(equation, str) or "->" not in equation or equation.count(",") != 1 or "." in equation:
        return None
    left, right = equation.replace(" ", "").split("->")
    first, second = left.split(",")
    return Equation(first, second, right)


def is_product_of_queries_and_keys(q: str, k: str, out: str) -> bool:
    """``...ik, ...jk -> ...ij``.

    >>> is_product_of_queries_and_keys("bhnd", "bhmd", "bhnm")
    True
    """
    return (
        len(q) == len(k) == len(out) >= 3
        and q[:-2] == k[:-2] == out[:-2]
        and q[-1] == k[-1]
        and out[-2:] == q[-2] + k[-2]
    )


def is_sum_of_values(weights: str, v: str, out: str) -> bool:
    """``...ij, ...jk -> ...ik``.

    >>> is_sum_of_values("bhnm", "bhmd", "bhnd")
    True
    """
    return (
        len(weights) == len(v) == len(out) >= 3
        and weights[:-2] == v[:-2] == out[:-2]
        and weights[-1] == v[-2]
        and out[-2:] == weights[-2] + v[-1]
    )
