"""The forms in which Babel's locales write dates, and what a written date can mean in any of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, NamedTuple

FORMATS = ("full", "long", "medium", "short")
"""CLDR's four lengths of a date."""

_DIGITS = re.compile("[0-9]+")
_DAYS = [date(2001, 1, day) for day in range(1, 32)]  # the first is a Monday
_MONTHS = [date(2001, month, 1) for month in range(1, 13)]


class Piece(NamedTuple):
    """One piece of a written date.

    Attributes:
        kind: ``"year"``, ``"month"``, ``"day"``, ``"weekday"`` or ``"text"``.
        texts: what stands there: for the 12 months, the 31 days or the 7 weekdays from Monday, or the one text;
            none for a year, which is written in full.
    """

    kind: str
    texts: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        """Whether it is a number in ASCII digits, and nothing else."""
        return self.kind == "year" or (
            self.kind in ("month", "day") and _DIGITS.fullmatch(self.texts[0]) is not None
        )


class Form(NamedTuple):
    """A way to write dates; locales that write alike share one.

    Example:
        >>> days = tuple(f"{day:02}" for day in range(1, 32))
        >>> form = Form((Piece("day", days), Piece("text", ("/",)), Piece("month", days[:12])))
        >>> form.write(date(1998, 3, 24))
        '24/03'
    """

    pieces: tuple[Piece, ...]

    def write(self, day: date) -> str:
        """The date in this form."""
        places = {"month": day.month - 1, "day": day.day - 1, "weekday": day.weekday(), "text": 0}
        return "".join(
            str(day.year) if piece.kind == "year" else piece.texts[places[piece.kind]]
            for piece in self.pieces
        )

    @property
    def names_month(self) -> bool:
        """Whether the month is written as a name, rather than as a number."""
        return any(piece.kind == "month" and not piece.numeric for piece in self.pieces)


class Reading(NamedTuple):
    """What the numbers of a text mean, had it been written in a certain form, month and weekday.

    Attributes:
        roles: for each number its kind and least number of digits; or the number itself, where it is part of a name.
        month: 1 to 12, where the form names it.
        weekday: 0 to 6 from Monday, where the form names it.
    """

    roles: tuple[tuple[str, int] | str, ...]
    month: int | None
    weekday: int | None

    def date(self, numbers: list[str]) -> date | None:
        """The date that these numbers make, or None when nobody would write one in this way."""
        found = {"month": self.month}
        for role, number in zip(self.roles, numbers, strict=True):
            if isinstance(role, str):
                if number != role:
                    return None
                continue
            kind, width = role
            if number != f"{int(number):0{width}}":
                return None
            found[kind] = int(number)
        try:
            day = date(found["year"] or 0, found["month"] or 0, found["day"] or 0)
        except ValueError:
            return None
        return day if self.weekday in (None, day.weekday()) else None


class Readings:
    """All that a written date can mean.

    Args:
        forms: all forms that are in use.

    Example:
        >>> numbers = tuple(str(n) for n in range(1, 32))
        >>> day, month, year = Piece("day", numbers), Piece("month", numbers[:12]), Piece("year", ())
        >>> dot = Piece("text", (".",))
        >>> readings = Readings([Form((day, dot, month, dot, year)), Form((month, dot, day, dot, year))])
        >>> [len(readings.dates(text)) for text in ("3.4.1998", "4.4.1998", "30.4.1998", "30.14.1998")]
        [2, 1, 1, 0]
    """

    def __init__(self, forms: Iterable[Form]) -> None:
        self._by_skeleton: dict[str, set[Reading]] = {}
        for form in forms:
            for skeleton, reading in _readings(form):
                self._by_skeleton.setdefault(skeleton, set()).add(reading)

    def certain(self, form: Form) -> bool:
        """Whether no date in this form can be read in another way, which spares a look at each."""
        return all(len(self._by_skeleton[skeleton]) == 1 for skeleton, _ in _readings(form))

    def dates(self, text: str) -> set[date]:
        """The dates that some form writes as this very text."""
        numbers = _DIGITS.findall(text)
        readings = self._by_skeleton.get(_DIGITS.sub("0", text), set())
        return {day for reading in readings if (day := reading.date(numbers)) is not None}


def _readings(form: Form) -> Iterator[tuple[str, Reading]]:
    """The readings of a form, each with its texts' common skeleton: the text with 0 for each number."""
    months = range(1, 13) if form.names_month else [None]
    weekdays = range(7) if any(piece.kind == "weekday" for piece in form.pieces) else [None]
    for month in months:
        for weekday in weekdays:
            places = {"month": (month or 1) - 1, "weekday": weekday or 0, "text": 0}
            skeleton, roles = "", []
            for piece in form.pieces:
                if piece.numeric:
                    skeleton += "0"
                    roles.append((piece.kind, len(piece.texts[0]) if piece.texts else 4))
                else:
                    text = piece.texts[places[piece.kind]]
                    skeleton += _DIGITS.sub("0", text)
                    roles += _DIGITS.findall(text)
            yield skeleton, Reading(tuple(roles), month, weekday)


class Written(NamedTuple):
    """How one locale writes dates in one of the lengths.

    Attributes:
        locale: Babel's name of it, such as ``"en_GB"``.
        language: the language of the locale.
        format: of :data:`FORMATS`.
        form: the form.
    """

    locale: str
    language: str
    format: str
    form: Form


def read_forms() -> list[Written]:
    """All forms of all locales of Babel, in the order of their names.

    Left out is what cannot be read back: forms with two digits of a year, with numbers that touch, or with the
    placeholders that CLDR has for months without a name; and locales that have nothing but those.

    Raises:
        ImportError: Babel is not installed.
    """
    try:
        from babel import Locale
        from babel.localedata import locale_identifiers
    except ImportError as error:
        raise ImportError('DateStrings needs Babel: pip install "mmattn[tasks]"') from error
    nobody = _texts(Locale("root"), "MMMM", _MONTHS)
    written = []
    for name in sorted(locale_identifiers()):
        locale = Locale.parse(name)
        if _texts(locale, "MMMM", _MONTHS) == nobody:
            continue
        known: dict[str, Piece | None] = {}
        for length in FORMATS:
            form = _form(locale, locale.date_formats[length].pattern, known)
            if form is not None and all(piece.texts != nobody for piece in form.pieces):
                written.append(Written(name, locale.language, length, form))
    return written


def _form(locale: Any, pattern: str, known: dict[str, Piece | None]) -> Form | None:
    """The form of a pattern of CLDR; ``known`` keeps the pieces of a locale. None when it cannot be read back."""
    from babel.dates import tokenize_pattern

    pieces = []
    for _, value in tokenize_pattern(pattern):
        if isinstance(value, str):
            pieces.append(Piece("text", (value,)))
            continue
        field = value[0] * value[1]
        if field not in known:
            known[field] = _piece(locale, field)
        piece = known[field]
        if piece is None:
            return None
        pieces.append(piece)
    form = Form(tuple(pieces))
    complete = sorted(piece.kind for piece in pieces if piece.kind not in ("text", "weekday"))
    touching = any("00" in skeleton for skeleton, _ in _readings(form))
    return form if complete == ["day", "month", "year"] and not touching else None


def _piece(locale: Any, field: str) -> Piece | None:
    """What stands for a field of a pattern; None for one that does not belong in a date, or abridges the year."""
    letter = field[0]
    if letter in "yu" and len(field) != 2:
        return Piece("year", ())
    if letter in "ML":
        return Piece("month", _texts(locale, field, _MONTHS))
    if letter == "d":
        return Piece("day", _texts(locale, field, _DAYS))
    if letter in "Ec" and (letter == "E" or len(field) > 2):
        return Piece("weekday", _texts(locale, field, _DAYS[:7]))
    if letter == "G":
        return Piece("text", _texts(locale, field, _DAYS[:1]))
    return None


def _texts(locale: Any, field: str, days: Iterable[date]) -> tuple[str, ...]:
    """What Babel writes for the field on each of some days."""
    from babel.dates import DateTimeFormat

    return tuple(DateTimeFormat(day, locale)[field] for day in days)
