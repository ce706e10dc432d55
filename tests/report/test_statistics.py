"""Estimates agree with SciPy and with brute force; what is corrected and steadied is so as it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mmattn.report.claims.moderation import LEAST, MOST, moderate
from mmattn.report.claims.statistics import (
    Spread,
    detectable,
    holm,
    interval,
    one_sided_p,
    spread_of_answers,
    spread_of_values,
)


def table(rng: np.random.Generator, seeds: int, examples: int, effect: float = 0.0) -> np.ndarray:
    """Differences of two arms, each right or wrong, with chance in seeds, in examples and in the rest."""
    hard = rng.standard_normal(examples)
    arms = []
    for place in (0.8 + effect, 0.8):
        shift = 0.06 * rng.standard_normal((seeds, 1))
        own = 0.5 * rng.standard_normal(examples)
        arms.append(place + shift + hard + own + 0.5 * rng.standard_normal((seeds, examples)) > 0)
    return arms[0].astype(float) - arms[1]


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_holm_is_closed_testing_with_bonferroni(n):
    p = np.random.default_rng(n).uniform(0, 0.4, n).tolist()
    groups = [group for size in range(1, n + 1) for group in itertools.combinations(range(n), size)]
    expected = [
        max(min(1.0, len(group) * min(p[k] for k in group)) for group in groups if index in group)
        for index in range(n)
    ]
    assert holm(p) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0, 2.5, 0.3], [-0.2, 0.1], [3.0, 3.1, 2.9, 3.2, 3.05]])
def test_values_alone_are_students_t(values):
    spread = spread_of_values(values)
    test = stats.ttest_1samp(values, 0, alternative="greater")
    assert one_sided_p(spread) == pytest.approx(test.pvalue, rel=1e-9)
    ends = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval(spread) == pytest.approx(ends, rel=1e-9)
    assert spread.effect == pytest.approx(np.mean(values) / np.std(values, ddof=1))


def test_values_without_spread_tell_nothing():
    assert spread_of_values([0.3, 0.3, 0.3]) is None
    assert spread_of_values([0.1 + 0.2, 0.3, 0.3]) is None
    with pytest.raises(ValueError, match="at least two values: got 1"):
        spread_of_values([0.3])


def test_parts_of_the_variance_are_those_of_the_analysis_of_variance():
    d = table(np.random.default_rng(0), 4, 60)
    seeds, examples = d.shape
    mean = d.mean()
    of_seeds = examples * sum((row.mean() - mean) ** 2 for row in d) / (seeds - 1)
    of_examples = seeds * sum((column.mean() - mean) ** 2 for column in d.T) / (examples - 1)
    rest = sum(
        (d[s, i] - d[s].mean() - d[:, i].mean() + mean) ** 2 for s in range(seeds) for i in range(examples)
    )
    rest /= (seeds - 1) * (examples - 1)
    spread = spread_of_answers(d, 100.0)
    assert spread.mean == pytest.approx(100 * mean)
    assert spread.seed == pytest.approx(1e4 * max(of_seeds, rest) / d.size)
    assert spread.example == pytest.approx(1e4 * (of_examples - rest) / d.size)
    assert spread.degrees == seeds - 1


def test_the_variance_of_the_mean_is_right_on_average():
    rng = np.random.default_rng(1)
    spreads = [spread_of_answers(table(rng, 4, 150)) for _ in range(400)]
    estimated = float(np.mean([spread.error**2 for spread in spreads]))
    # the floors make it a little too large, by design
    true = float(np.var([spread.mean for spread in spreads]))
    assert 0.9 * true < estimated < 1.35 * true


def test_equal_answers_leave_room_for_one_answer():
    spread = spread_of_answers(np.zeros((3, 50)))
    assert spread.mean == 0
    assert spread.effect is None
    low, high = interval(spread)
    assert low < -1 / 50 < 1 / 50 < high
    assert one_sided_p(spread) == pytest.approx(0.5)


def test_the_interval_is_that_of_seeds_drawn_by_t_and_examples_drawn_again():
    d = table(np.random.default_rng(2), 3, 80, effect=0.3)
    spread = spread_of_answers(d)
    rng = np.random.default_rng(3)
    columns = d.mean(0)
    again = columns[rng.integers(0, 80, (200_000, 80))].mean(1) - columns.mean()
    again *= math.sqrt(spread.example / (columns.var(ddof=1) / 80))
    errors = math.sqrt(spread.seed) * rng.standard_t(2, 200_000) + again
    low, high = np.quantile(spread.mean - errors, [0.025, 0.975])
    assert interval(spread) == pytest.approx((low, high), abs=0.02 * (high - low))
    p = float(np.mean(errors >= spread.mean))
    assert one_sided_p(spread) == pytest.approx(p, abs=0.1 * p + 0.001)


def test_arms_stay_paired():
    """What both arms get wrong alike says nothing about their difference."""
    rng = np.random.default_rng(4)
    first = (rng.random((3, 200)) < 0.7).astype(float)
    second = first.copy()
    second[:, :10] = 0
    apart = (rng.random((3, 200)) < 0.65).astype(float)
    assert (
        spread_of_answers(first - second).error < 0.5 * spread_of_answers(first - np.roll(apart, 7, 1)).error
    )


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (0, 9)])
def test_small_tables_are_refused(shape):
    with pytest.raises(ValueError, match=r"two or more: got \("):
        spread_of_answers(np.zeros(shape))


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_effect(seeds):
    rng = np.random.default_rng(seeds)
    truth = float(np.mean([table(rng, 40, 4000, 0.3).mean() for _ in range(40)]))
    ends = [interval(spread_of_answers(table(rng, seeds, 150, 0.3))) for _ in range(400)]
    assert np.mean([low <= truth <= high for low, high in ends]) >= 0.93


def test_the_same_numbers_give_the_same_result():
    d = table(np.random.default_rng(5), 3, 90)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, second = (interval(spread_of_answers(d)) for _ in range(2))
    assert first == second
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_more_seeds_less_spread_and_fewer_comparisons_detect_more():
    few, many = (Spread(0.0, 1.0, degrees, 0.5, 0.0, np.zeros(1)) for degrees in (2, 9))
    assert detectable(many, 10, 1.0) < detectable(few, 10, 1.0)
    assert detectable(many, 1, 1.0) < detectable(many, 10, 1.0)
    assert detectable(many, 10, 1.0) < detectable(many, 10, 20.0)


def drawn(count: int, degrees: int, worth: float, rng: np.random.Generator) -> list[Spread]:
    """Spreads whose true variances differ as the prior of ``worth`` degrees of freedom says."""
    true = worth / rng.chisquare(worth, count)
    found = true * rng.chisquare(degrees, count) / degrees
    return [Spread(0.0, float(value), degrees, 0.0, None, np.zeros(1)) for value in found]


@pytest.mark.parametrize("worth", [1.0, 2.5])
def test_moderation_finds_how_alike_the_variances_are(worth):
    after = moderate(drawn(3000, 2, worth, np.random.default_rng(6)))
    assert after[0].degrees - 2 == pytest.approx(worth, rel=0.15)


def test_moderation_draws_up_and_never_down():
    before = drawn(30, 2, 50.0, np.random.default_rng(7))
    after = moderate(before)
    assert {spread.degrees for spread in after} == {2 + MOST}
    assert all(new.seed >= old.seed for new, old in zip(after, before, strict=True))
    lowest = min(range(30), key=lambda index: before[index].seed)
    assert after[lowest].seed > 2 * before[lowest].seed
    highest = max(range(30), key=lambda index: before[index].seed)
    assert after[highest].seed == before[highest].seed


def test_few_spreads_are_left_alone():
    before = drawn(LEAST - 1, 2, 5.0, np.random.default_rng(8))
    assert moderate(before) == before
