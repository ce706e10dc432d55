"""Sentences to be spoken and recognised: numbers, times, dates and commands, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

import numpy as np

Random = np.random.Generator

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
SMALL, TENS, ORDINALS = tuple(_SMALL.split()), tuple(_TENS.split()), tuple(_ORDINALS.split())
MONTHS, DAYS = tuple(_MONTHS.split()), tuple(_DAYS.split())
ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "garden", "office", "living room")
THINGS = ("light", "lamp", "heating", "radio", "fan", "television", "camera", "alarm")
NAMES = ("anna", "peter", "maria", "david", "laura", "thomas", "helen", "robert")
GOODS = ("milk", "bread", "apples", "coffee", "cheese", "water", "rice", "sugar", "eggs", "paper")
SONGS = ("the next song", "the last song", "some music", "the news", "a story", "the song again")


def number_words(number: int) -> str:
    """A whole number below a million in words.

    Raises:
        ValueError: the number is negative or too large.

    Example:
        >>> number_words(40), number_words(317), number_words(12_006)
        ('forty', 'three hundred and seventeen', 'twelve thousand and six')
    """
    if not 0 <= number < 1_000_000:
        raise ValueError(f"number must be from 0 to 999999: got {number}")
    if number < 20:
        return SMALL[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return TENS[tens - 2] + (f" {SMALL[rest]}" if rest else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, size)
    head = f"{number_words(count)} {name}"
    if not rest:
        return head
    return f"{head} {'and ' if rest < 100 else ''}{number_words(rest)}"


def ordinal_words(number: int) -> str:
    """A day of a month in words.

    Example:
        >>> ordinal_words(3), ordinal_words(21), ordinal_words(30)
        ('third', 'twenty first', 'thirtieth')
    """
    if number <= 20:
        return ORDINALS[number - 1]
    return "thirtieth" if number == 30 else f"{TENS[number // 10 - 2]} {ORDINALS[number % 10 - 1]}"


def year_words(year: int) -> str:
    """A year from 1800 to 2099 in words.

    Example:
        >>> year_words(1998), year_words(1905), year_words(1900), year_words(2003), year_words(2024)
        ('nineteen ninety eight', 'nineteen oh five', 'nineteen hundred', 'two thousand and three',
         'twenty twenty four')
    """
    if 2000 <= year < 2010:
        return number_words(year)
    century, rest = divmod(year, 100)
    if not rest:
        return f"{number_words(century)} hundred"
    return f"{number_words(century)} {f'oh {SMALL[rest]}' if rest < 10 else number_words(rest)}"


def number(rng: Random) -> str:
    """A number, small and large ones equally often, or digits one by one."""
    kind = int(rng.integers(5))
    if kind == 4:
        return " ".join(SMALL[d] for d in rng.integers(10, size=int(rng.integers(3, 8))))
    return number_words(int(rng.integers((100, 1000, 10_000, 1_000_000)[kind])))


def clock(rng: Random) -> str:
    """A time of day, in one of the ways that people say it."""
    hour, minute = int(rng.integers(1, 13)), int(rng.integers(1, 60))
    kind = int(rng.integers(4))
    if kind == 0:
        return f"{SMALL[hour]} o'clock"
    if kind == 1:
        return f"{_pick(rng, ('half past', 'a quarter past', 'a quarter to'))} {SMALL[hour]}"
    if kind == 2:
        five = 5 * int(rng.integers(1, 6))
        return f"{number_words(five)} {_pick(rng, ('past', 'to'))} {SMALL[hour]}"
    minutes = f"oh {SMALL[minute]}" if minute < 10 else number_words(minute)
    return f"{SMALL[hour]} {minutes} {_pick(rng, ('a m', 'p m'))}"


def date(rng: Random) -> str:
    """A day, with the weekday or the year or neither."""
    month, day = _pick(rng, MONTHS), ordinal_words(int(rng.integers(1, 32)))
    said = f"{month} the {day}" if rng.integers(2) else f"the {day} of {month}"
    kind = int(rng.integers(3))
    if kind == 0:
        return f"{_pick(rng, DAYS)} {said}"
    return f"{said} {year_words(int(rng.integers(1800, 2100)))}" if kind == 1 else said


def command(rng: Random) -> str:
    """Something to ask of a machine."""
    amount = number_words(int(rng.integers(2, 60)))
    room, thing, name = _pick(rng, ROOMS), _pick(rng, THINGS), _pick(rng, NAMES)
    then = f" at {clock(rng)}" if rng.integers(2) else ""
    forms = (
        f"turn {_pick(rng, ('on', 'off'))} the {thing} in the {room}{then}",
        f"set a timer for {amount} {_pick(rng, ('seconds', 'minutes', 'hours'))}",
        f"set the heating in the {room} to {amount} degrees",
        f"{_pick(rng, ('call', 'write to', 'answer'))} {name} at {clock(rng)}",
        f"play {_pick(rng, SONGS)} in the {room}{then}",
        f"add {amount} {_pick(rng, GOODS)} to the shopping list",
        f"wake me at {clock(rng)} on {_pick(rng, DAYS)}",
        f"remind {name} to buy {' and '.join(rng.choice(GOODS, 2, replace=False))}",
        f"{_pick(rng, ('open', 'close', 'lock'))} the {_pick(rng, ('door', 'window', 'gate'))} of the {room}{then}",
    )
    return _pick(rng, forms)


KINDS: dict[str, Callable[[Random], str]] = {
    "number": number,
    "time": lambda rng: f"{_pick(rng, ('it is', 'come at', 'not before', 'until'))} {clock(rng)}",
    "date": lambda rng: f"{_pick(rng, ('', '', 'on ', 'since ', 'before '))}{date(rng)}",
    "command": command,
}


def sentences(count: int, seed: int, without: Set[str] = frozenset()) -> list[str]:
    """Different sentences, the kinds in turn, none of them in ``without``.

    Args:
        count: how many.
        seed: of the draw.
        without: sentences that must not be drawn.

    Example:
        >>> sentences(4, seed=1) == sentences(5, seed=1)[:4]
        True
    """
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    kinds = list(KINDS.values())
    while len(found) < count:
        sentence = kinds[len(found) % len(kinds)](rng)
        if sentence not in without:
            found[sentence] = None
    return list(found)


def _pick(rng: Random, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
