"""Races on a clock that is made up, and what is read from their times."""

from __future__ import annotations

import gc
import math

import pytest

from benchmarks.attention.timing import Timing, fastest, geometric_mean, race, ratio


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name, *seconds):
        """A piece of work that takes the given seconds, one after another, the last for ever."""
        left = list(seconds)

        def run():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_a_race_gives_each_contender_its_own_seconds_without_the_warm_up():
    clock = FakeClock()
    contenders = {
        "a": [clock.work("a", 100.0, 2.0), clock.work("a'", 50.0, 3.0)],
        "b": [clock.work("b", 7.0)] * 2,
    }
    timings = race(contenders, repeats=4, clock=clock)
    assert timings["a"].rounds == ((2.0, 3.0),) * 4
    assert timings["b"].rounds == ((7.0, 7.0),) * 4
    assert timings["a"].seconds == 5.0


def test_a_race_runs_everybody_once_an_item_in_changing_order():
    clock = FakeClock()
    race({name: [clock.work(name, 1.0)] for name in "abc"}, repeats=19, warmup=1, clock=clock)
    rounds = ["".join(clock.log[i : i + 3]) for i in range(0, 60, 3)]
    assert len(clock.log) == 60
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {order[0] for order in rounds} == {order[2] for order in rounds} == {"a", "b", "c"}
    again = FakeClock()
    race({name: [again.work(name, 1.0)] for name in "abc"}, repeats=19, warmup=1, clock=again)
    assert again.log == clock.log


@pytest.mark.parametrize(("budget", "rounds"), [(math.inf, 11), (50.0, 6), (0.0, 3)])
def test_a_race_ends_with_its_budget_but_not_before_the_least_rounds(budget, rounds):
    clock = FakeClock()
    timings = race({"a": [clock.work("a", 10.0)]}, repeats=11, least=3, budget=budget, warmup=5, clock=clock)
    assert len(timings["a"].rounds) == rounds


def test_a_race_waits_for_the_device_before_it_reads_the_clock():
    clock = FakeClock()

    def wait():
        clock.now += 1000.0 if clock.log and clock.log[-1] == "launch" else 0.0
        clock.log.append("wait")

    timings = race({"a": [clock.work("launch", 1.0)]}, repeats=3, clock=clock, wait=wait)
    assert timings["a"].rounds == ((1001.0,),) * 3


def test_garbage_is_not_collected_while_the_clock_runs():
    seen = []
    assert gc.isenabled()
    race({"a": [lambda: seen.append(gc.isenabled())]}, repeats=3, warmup=0)
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize("contenders", [{}, {"a": []}, {"a": [print], "b": [print, print]}])
def test_contenders_must_have_equally_many_items(contenders):
    with pytest.raises(ValueError, match="contenders must have equally many items, at least one: got"):
        race(contenders)


def test_seconds_are_medians_of_items_and_quartiles_are_of_rounds(once):
    timing = Timing(((1.0, 10.0), (3.0, 30.0), (2.0, 50.0), (9.0, 20.0), (8.0, 40.0)))
    assert timing.seconds == 3.0 + 30.0
    assert timing.totals == (11.0, 33.0, 52.0, 29.0, 48.0)
    assert timing.quartiles == (29.0, 48.0)
    assert timing.divided(2.0).seconds == 16.5
    assert once(4.0).quartiles == (4.0, 4.0)


def test_ratios_of_medians_and_of_rounds(once):
    slower, faster = once(2.0, 40.0, 9.0), once(1.0, 10.0, 3.0)
    compared = ratio(slower, faster)
    assert compared.of_medians == 9.0 / 3.0
    assert (compared.by_round, compared.low, compared.high) == (3.0, 2.5, 3.5)
    assert str(compared) == "3.00 by round, 2.50 to 3.50"
    with pytest.raises(ValueError, match="both timings must have equally many rounds: got 3 and 1"):
        ratio(slower, once(1.0))


def test_the_fastest_has_the_smallest_median(once):
    assert fastest({"a": once(5.0, 5.0, 5.0), "b": once(1.0, 6.0, 6.0), "c": once(4.0, 4.0, 99.0)}) == "c"
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
