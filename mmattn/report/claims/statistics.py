"""Estimates with few seeds and many examples: spread, intervals, p-values, Holm's correction, power.

The difference of two arms, answer by answer, is a table of seeds by examples. Both are samples: another seed
would train another model, another test set would ask other questions. With ``d[s, i] = effect + seed[s] +
example[i] + rest[s, i]`` the variance of the mean has two parts, which an analysis of variance tells apart:

- over seeds (``seed`` and ``rest``), estimated with S - 1 degrees of freedom: with three seeds, barely;
- over the examples that all seeds share, estimated well.

An approximate number of degrees of freedom for the sum (Welch, Satterthwaite) is far too sure of itself in the
tails when by luck three seeds agree. So the two parts are kept apart (Behrens and Fisher): the error is Student's
t with S - 1 degrees of freedom times the one standard error, plus the other part, which is normal for the p-value
and for the interval is what resampling the examples gives. This is known to err on the careful side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from mmattn.report.codec import require

Array = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
#: What is planned for, so that POWER is reached too where errors are not quite normal, as with timings.
_PLANNED = 0.87
#: Resamples of the examples, and into how many steps their distribution is rounded for the interval.
RESAMPLES, _STEPS = 2000, 100
_SEED = 20011
_PLANNING = 10000


@dataclass(frozen=True)
class Spread:
    """A mean and the variance of its two parts, in squared units.

    Attributes:
        mean: over all seeds and examples.
        seed: variance of the mean that comes from seeds.
        degrees: degrees of freedom of ``seed``.
        example: variance of the mean that comes from the examples.
        effect: mean over standard deviation of the seeds' means (Cohen's dz); None where these are all equal.
        shifts: possible errors of the mean for ``example``, equally likely; one zero where examples are not known.
    """

    mean: float
    seed: float
    degrees: float
    example: float
    effect: float | None
    shifts: Array

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.seed + self.example))


def spread_of_values(values: Sequence[float]) -> Spread | None:
    """From one number for each seed; None where they are all equal, since nothing tells how far they may stray.

    Raises:
        ValueError: with fewer than two values.
    """
    require(len(values) >= 2, "a spread needs at least two values", len(values))
    array = np.asarray(values, dtype=np.float64)
    deviation = float(array.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, float(np.abs(array).max())):
        return None
    mean = float(array.mean())
    return Spread(mean, deviation**2 / len(array), len(array) - 1, 0.0, mean / deviation, np.zeros(1))


def spread_of_answers(table: Array, scale: float = 1.0) -> Spread:
    """From differences ``[seeds, examples]``, answer by answer on the same questions.

    Args:
        table: at least two seeds and two examples.
        scale: what a unit in ``table`` is in the unit of the result, 100 for percentage points.

    Raises:
        ValueError: if ``table`` is smaller.
    """
    require(
        table.ndim == 2 and min(table.shape) >= 2, "table must be [seeds, examples], two or more", table.shape
    )
    seeds, examples = table.shape
    by_seed, by_example, mean = table.mean(1), table.mean(0), float(table.mean())
    rest = table - by_seed[:, None] - by_example + mean
    # each as its share in the variance of the mean
    residual = float((rest**2).sum()) / ((seeds - 1) * (examples - 1)) / (seeds * examples)
    over_seeds = float(by_seed.var(ddof=1)) / seeds
    over_examples = float(by_example.var(ddof=1)) / examples
    # The residual is part of what seeds differ by, so they cannot do so less; and one answer may always go otherwise.
    one = 1.0 / examples**2
    seed = max(over_seeds, residual, one / seeds)
    example = max(over_examples - residual, one)
    deviation = float(np.sqrt(over_seeds * seeds))
    shifts = _resampled(by_example, mean) * np.sqrt(example / over_examples) if over_examples else np.zeros(1)
    return Spread(
        scale * mean,
        scale**2 * seed,
        seeds - 1,
        scale**2 * example,
        mean / deviation if deviation > 1e-12 else None,
        scale * shifts,
    )


def _resampled(by_example: Array, mean: float) -> Array:
    """Errors of the mean when examples are drawn again, arms and seeds together, in ``_STEPS`` equally likely steps.

    Means over few seeds take few values, so drawing how often each comes up is the same and a thousand times faster.
    """
    levels, counts = np.unique(by_example, return_counts=True)
    size = len(by_example)
    drawn = np.random.default_rng(_SEED).multinomial(size, counts / size, RESAMPLES)
    errors: Array = np.sort(drawn @ levels / size - mean).reshape(_STEPS, -1).mean(1)
    return errors


def one_sided_p(spread: Spread, null: float = 0.0) -> float:
    """Probability of a mean this high where the effect is ``null``."""
    above = spread.mean - null
    if spread.example == 0:
        return float(special.stdtr(spread.degrees, -above / spread.error))
    z = np.linspace(-8, 8, 801)
    weights = np.exp(-(z**2) / 2)
    t = (above - np.sqrt(spread.example) * z) / np.sqrt(spread.seed)
    return float(special.stdtr(spread.degrees, -t) @ weights / weights.sum())


def interval(spread: Spread, confidence: float = 1 - ALPHA) -> tuple[float, float]:
    """Two-sided interval of the effect: seeds by Student's t, examples resampled."""
    root = np.sqrt(spread.seed)

    def end(share: float) -> float:
        # the error of the mean is t times the root plus a shift; its quantile lies between those of the extremes
        reach = float(special.stdtrit(spread.degrees, share)) * root
        low, high = reach + float(spread.shifts.min()), reach + float(spread.shifts.max())

        def excess(error: float) -> float:
            return float(special.stdtr(spread.degrees, (error - spread.shifts) / root).mean()) - share

        return low if high - low < 1e-6 * root else float(optimize.brentq(excess, low, high, xtol=1e-9))

    tail = (1 - confidence) / 2
    return spread.mean - end(1 - tail), spread.mean - end(tail)


def holm(p: Sequence[float]) -> list[float]:
    """P-values after Holm's correction (Holm 1979), in the order given; each is at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda index: p[index])
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = highest
    return corrected


def detectable(spread: Spread, family: int, delta: float, null: float = 0.0) -> float:
    """The smallest effect that a grid of this size and spread would call supported in 8 of 10 repetitions.

    It is planned for the hardest place in Holm's order, ``ALPHA / family``. Because so few seeds tell their own
    spread only roughly, both that and the spread of the repetition are drawn along with its luck.

    Args:
        spread: as observed.
        family: number of comparisons that the correction counts.
        delta: what the estimate has to reach as well.
        null: effect that has to be ruled out.
    """
    # steps of a half keep the draws of many comparisons in few tables
    chi, again, luck = _planning(np.floor(2 * spread.degrees) / 2)
    true = spread.seed / chi
    t, z = special.stdtrit(spread.degrees, 1 - ALPHA / family), special.ndtri(1 - ALPHA / family)
    # Howe's approximation of the quantile of the sum of the two parts
    threshold = np.sqrt(t**2 * true * again + z**2 * spread.example)
    needed = np.maximum(threshold + null, delta) + np.sqrt(true + spread.example) * luck
    return float(np.quantile(needed, _PLANNED))


@lru_cache(maxsize=64)
def _planning(degrees: float) -> tuple[Array, Array, Array]:
    """Luck of a grid and of its repetition: two relative variances of seeds, and a normal error."""
    rng = np.random.default_rng(_SEED)
    chi = rng.chisquare(degrees, (2, _PLANNING)) / degrees
    return chi[0], chi[1], rng.standard_normal(_PLANNING)
