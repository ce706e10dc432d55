"""Interleaved timing: every contender in turn, in an order that changes, so that a busy machine hits all alike."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender.

    Attributes:
        rounds: one row for each round, one column for each item of work (e.g. each batch of a pool).

    Example:
        >>> timing = Timing(((1.0, 4.0), (2.0, 6.0), (9.0, 5.0)))
        >>> timing.seconds, timing.totals
        (7.0, (5.0, 8.0, 14.0))
    """

    rounds: tuple[tuple[float, ...], ...]

    @property
    def totals(self) -> tuple[float, ...]:
        """Seconds of each round, all items together."""
        return tuple(sum(row) for row in self.rounds)

    @property
    def seconds(self) -> float:
        """The median of each item over the rounds, added up: items differ in size, so their mix must not matter."""
        medians: list[float] = [median(column) for column in zip(*self.rounds, strict=True)]
        return sum(medians)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds."""
        return _quartiles(self.totals)

    def divided(self, by: float) -> Timing:
        """The same with every time divided by a number, e.g. of tokens."""
        return Timing(tuple(tuple(x / by for x in row) for row in self.rounds))


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender takes than another.

    Attributes:
        of_medians: ratio of the two ``Timing.seconds``.
        by_round: median of the ratios inside each round, which a slow drift of the machine cannot move.
        low, high: quartiles of the ratios inside each round.
    """

    of_medians: float
    by_round: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.by_round:.2f} by round, {self.low:.2f} to {self.high:.2f}"


def ratio(slower: Timing, faster: Timing) -> Ratio:
    """The time of ``slower`` over that of ``faster``, which were timed in the same rounds.

    Raises:
        ValueError: they have different numbers of rounds.
    """
    if len(slower.rounds) != len(faster.rounds):
        raise ValueError(
            f"both timings must have equally many rounds: got {len(slower.rounds)} and {len(faster.rounds)}"
        )
    each = tuple(a / b for a, b in zip(slower.totals, faster.totals, strict=True))
    return Ratio(slower.seconds / faster.seconds, median(each), *_quartiles(each))


def fastest(timings: Mapping[str, Timing]) -> str:
    """The name with the smallest ``seconds``.

    Example:
        >>> fastest({"a": Timing(((2.0,),)), "b": Timing(((1.0,),))})
        'b'
    """
    return min(timings, key=lambda name: timings[name].seconds)


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers.

    Example:
        >>> geometric_mean([2.0, 8.0])
        4.0
    """
    return math.exp(sum(map(math.log, values)) / len(values))


def race(
    contenders: Mapping[str, Sequence[Work]],
    *,
    repeats: int = 10,
    least: int = 3,
    budget: float = math.inf,
    warmup: int = 1,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    wait: Work = lambda: None,
) -> dict[str, Timing]:
    """Time contenders against each other.

    Each round runs all items of all contenders, item by item, the contenders in an order drawn anew for each
    item. Garbage is collected between rounds and not during them.

    Args:
        contenders: for each name its items of work, equally many for all.
        repeats: rounds at most.
        least: rounds at least, however long they take.
        budget: seconds after which no further round begins.
        warmup: rounds before that, not counted in time or budget.
        seed: of the order.
        clock: what tells the time.
        wait: called before the clock is read, e.g. ``torch.cuda.synchronize``.

    Raises:
        ValueError: there is no contender, or they have different numbers of items.
    """
    counts = {len(items) for items in contenders.values()}
    if len(counts) != 1 or counts == {0}:
        raise ValueError(f"contenders must have equally many items, at least one: got {sorted(counts)}")
    (items,) = counts
    draw, names = random.Random(seed), list(contenders)
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    begin = clock()
    with _without_garbage_collection():
        for number in range(-warmup, max(repeats, least)):
            if number == 0:
                begin = clock()
            if number >= least and clock() - begin > budget:
                break
            times: dict[str, list[float]] = {name: [] for name in names}
            for item in range(items):
                draw.shuffle(names)
                for name in names:
                    times[name].append(_seconds(contenders[name][item], clock, wait))
            if number >= 0:
                for name, row in times.items():
                    rows[name].append(tuple(row))
            gc.collect()
    return {name: Timing(tuple(rows[name])) for name in contenders}


def _seconds(work: Work, clock: Callable[[], float], wait: Work) -> float:
    wait()
    begin = clock()
    work()
    wait()
    return clock() - begin


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Collection happens only when asked for, and looks only at what was made inside, which makes it quick."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
