"""Date normalisation: dates as people write them all over the world, to be written as 1998-03-03.

Source: Unicode's CLDR (Unicode License v3), as it comes inside Babel: four ways to write a date in each locale, with
the names of months, weekdays and the era. The dates are Gregorian and, as Babel writes them, in ASCII digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from mmattn.training.data import Pair
from tasks.text.translation.data.date_forms import Form, Readings, Written, read_forms
from tasks.text.translation.data.parallel import ParallelData, ParallelSet

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
"""All dates lie between these, both included."""

SIZES = {"val": 1000, "test": 5000, "test_locales": 2000}
"""Strings in each set but ``train``."""

_SEEDS = {"train": 10012, "val": 20012, "test": 30012, "test_locales": 40012}


class Language(NamedTuple):
    """A language and its forms, each with the names of the locales that write in it."""

    name: str
    forms: tuple[tuple[Form, tuple[str, ...]], ...]


def split_of(day: date) -> str:
    """The set of a date, by its digest: 80 % train, 5 % val, 15 % test."""
    twentieth = hashlib.sha256(day.isoformat().encode()).digest()[0] * 20 // 256
    return "train" if twentieth < 16 else "val" if twentieth < 17 else "test"


def held_out(family: Iterable[str]) -> bool:
    """Whether languages that share their names of months are kept for ``test_locales``: about every tenth family."""
    return hashlib.sha256(min(family).encode()).digest()[0] * 10 // 256 == 0


class DateStrings(ParallelData):
    """Dates as they are written in the locales of Babel, to be normalised to ISO 8601.

    Each string draws a language, one of its distinct forms (CLDR's full, long, medium and short, as its locales write
    them) and a date. The sets are split by date: no date of ``val`` or ``test`` occurs in ``train``. ``test_locales``
    holds the languages of which nothing is in the other sets: no locale, and no form that another language shares.

    What a string can mean is computed over all forms of all locales. A string that some form reads as another date,
    such as 03/04/1998, has no answer of its own: with ``ambiguous="prefix"`` the name of its locale stands in front
    of it, as in ``"en_GB: 03/04/1998"``. Left out are forms with two digits of a year, locales for which CLDR has no
    names of months, and strings that a locale itself reads in two ways. ``test_locales`` has only unambiguous
    strings: the name of a locale that was never seen would tell nothing.

    Args:
        train_size: strings to learn from.
        ambiguous: ``"prefix"`` puts the locale's name in front of ambiguous strings, ``"drop"`` leaves them out.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.

    Raises:
        ValueError: train_size is below 1 or ``ambiguous`` unknown.
        ImportError: Babel is not installed (when the sets are built).

    Example:
        >>> DateStrings(train_size=3).sets["train"][0].target[4::3]
        '--'
    """

    name = "dates"
    synthetic = True

    def __init__(
        self, train_size: int = 100_000, ambiguous: Literal["prefix", "drop"] = "prefix", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if train_size < 1:
            raise ValueError(f"train_size must be at least 1: got {train_size}")
        if ambiguous not in ("prefix", "drop"):
            raise ValueError(f"ambiguous must be 'prefix' or 'drop': got {ambiguous!r}")
        self.train_size = train_size
        self.ambiguous = ambiguous

    def build(self) -> dict[str, ParallelSet]:
        """Write the strings of all sets; the same in every run.

        Raises:
            ImportError: Babel is not installed.
        """
        known, unknown = languages()
        return {
            name: ParallelSet(
                _strings(
                    unknown if name == "test_locales" else known,
                    dates_of("test" if name == "test_locales" else name),
                    size,
                    _SEEDS[name],
                    self.ambiguous == "prefix" and name != "test_locales",
                )
            )
            for name, size in {"train": self.train_size, **SIZES}.items()
        }


@cache
def languages() -> tuple[tuple[Language, ...], tuple[Language, ...]]:
    """The languages to learn, and those that are held out with the forms that are theirs alone."""
    by_language: dict[str, dict[Form, list[str]]] = {}
    for locale, language, _, form in _written():
        locales = by_language.setdefault(language, {}).setdefault(form, [])
        if locale not in locales:
            locales.append(locale)
    apart = {name for family in families(_written()) if held_out(family) for name in family}
    shared = {form for name, forms in by_language.items() if name not in apart for form in forms}
    known, unknown = [], []
    for name, forms in by_language.items():
        if name not in apart:
            known.append(Language(name, tuple((form, tuple(of)) for form, of in forms.items())))
            continue
        own = tuple((form, tuple(of)) for form, of in forms.items() if form not in shared)
        if own:
            unknown.append(Language(name, own))
    return tuple(known), tuple(unknown)


def families(written: Sequence[Written]) -> list[set[str]]:
    """Languages that share all names of the months in some form, directly or through others, taken together."""
    family: dict[str, set[str]] = {}
    first: dict[tuple[str, ...], str] = {}
    for _, language, _, form in written:
        family.setdefault(language, {language})
        for piece in form.pieces:
            if piece.kind != "month" or piece.numeric:
                continue
            one, other = family[language], family[first.setdefault(piece.texts, language)]
            if one is not other:
                one |= other
                family.update(dict.fromkeys(other, one))
    return list({id(each): each for each in family.values()}.values())


@cache
def dates_of(name: str) -> tuple[date, ...]:
    """All dates of a set, in order."""
    days = (FIRST + timedelta(days) for days in range((LAST - FIRST).days + 1))
    return tuple(day for day in days if split_of(day) == name)


@cache
def _written() -> tuple[Written, ...]:
    return tuple(read_forms())


@cache
def _readings() -> Readings:
    return Readings({written.form for written in _written()})


@cache
def _readings_in(locale: str) -> Readings:
    return Readings(written.form for written in _written() if written.locale == locale)


def _strings(
    spoken: Sequence[Language], days: Sequence[date], size: int, seed: int, prefix: bool
) -> list[Pair]:
    """Strings of drawn languages, forms and dates; an ambiguous one gets its locale in front, or is drawn again."""
    readings, rng = _readings(), np.random.default_rng(seed)
    certain = {id(form): readings.certain(form) for language in spoken for form, _ in language.forms}
    pairs: list[Pair] = []
    while len(pairs) < size:
        # in one call, which costs as much as a few strings
        draws = rng.random((size - len(pairs), 4)).tolist()
        for of_language, of_form, of_locale, of_day in draws:
            forms = spoken[int(of_language * len(spoken))].forms
            form, locales = forms[int(of_form * len(forms))]
            day = days[int(of_day * len(days))]
            text = form.write(day)
            if certain[id(form)] or len(readings.dates(text)) == 1:
                pairs.append(Pair(text, day.isoformat()))
            elif prefix:
                locale = locales[int(of_locale * len(locales))]
                if len(_readings_in(locale).dates(text)) == 1:
                    pairs.append(Pair(f"{locale}: {text}", day.isoformat()))
    return pairs
