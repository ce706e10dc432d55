"""Spreads over few seeds, steadied by the spreads of comparisons alike (empirical Bayes, after Smyth 2004).

Three seeds tell their own spread so badly that a test which relies on them alone has to ask for twenty standard
errors. But a grid has many comparisons of one kind, and their spreads are seldom far apart. Where three seeds agree
better than is usual in the grid, that is mostly luck: their variance is drawn towards the usual one, and counts for
as many more degrees of freedom as the likeness of the variances is worth, four at most. A spread that came out larger
than usual is left as it is, so nothing becomes significant by being drawn to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize, special

from mmattn.report.claims.statistics import Spread

#: Fewer spreads do not tell what is usual.
LEAST = 6
#: The prior counts as this many degrees of freedom at most, however alike a few variances look.
MOST = 4.0


def moderate(spreads: Sequence[Spread]) -> list[Spread]:
    """The same, seed variances drawn up towards what is usual among them; fewer than :data:`LEAST` as given."""
    if len(spreads) < LEAST:
        return list(spreads)
    usual, worth = _prior(spreads)
    return [
        replace(
            spread,
            seed=max(spread.seed, (worth * usual + spread.degrees * spread.seed) / (worth + spread.degrees)),
            degrees=spread.degrees + worth,
        )
        for spread in spreads
    ]


def _prior(spreads: Sequence[Spread]) -> tuple[float, float]:
    """The usual variance, and how many degrees of freedom it is worth.

    The logarithm of a variance estimated with d degrees of freedom strays by ``trigamma(d / 2)``; what it strays more
    than that is by how much the true variances differ.
    """
    half = np.array([spread.degrees / 2 for spread in spreads])
    logs = np.log([spread.seed for spread in spreads]) - special.digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    least = float(special.polygamma(1, MOST / 2))
    if excess <= least:
        worth = MOST
    else:
        # trigamma falls from infinity to ``least`` as its argument grows to MOST / 2
        worth = 2 * optimize.brentq(
            lambda place: special.polygamma(1, place) - excess, 0.5 / (1 + excess), MOST / 2
        )
    usual = np.exp(logs.mean() + special.digamma(worth / 2) - np.log(worth / 2))
    return float(usual), float(worth)
