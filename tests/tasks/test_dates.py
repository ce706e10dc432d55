"""Dates in hundreds of locales: forms against Babel, what is ambiguous, and what is apart."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, timedelta

import pytest

pytest.importorskip("babel")
pytest.importorskip("lightning")

from babel.dates import format_date
from babel.localedata import exists

from tasks.text.translation.data import date_forms, dates
from tasks.text.translation.data.date_forms import Form, Piece, Readings, read_forms
from tasks.text.translation.data.dates import FIRST, LAST, DateStrings, dates_of, families, languages

NUMBERS = tuple(str(number) for number in range(1, 32))
PADDED = tuple(f"{number:02}" for number in range(1, 32))
DAY, MONTH, YEAR = Piece("day", NUMBERS), Piece("month", NUMBERS[:12]), Piece("year", ())
SLASH = Piece("text", ("/",))


@pytest.fixture(scope="module")
def written():
    return dates._written()


@pytest.fixture(scope="module")
def data():
    return DateStrings(train_size=20_011)


def test_every_form_writes_what_babel_writes(written):
    days = [date(1900, 1, 1), date(1998, 3, 3), date(2024, 2, 29), date(2013, 12, 28), date(2099, 9, 10)]
    wrong = []
    for index, (locale, _, length, form) in enumerate(written):
        day = days[index % len(days)]
        if form.write(day) != format_date(day, length, locale):
            wrong.append((locale, length, form.write(day), format_date(day, length, locale)))
    assert not wrong[:5]
    assert len({locale for locale, *_ in written}) > 500
    assert len({language for _, language, *_ in written}) > 150


def test_what_everybody_knows():
    forms = {(locale, length): form for locale, _, length, form in read_forms()}
    day = date(1998, 3, 3)
    assert forms["de", "full"].write(day) == "Dienstag, 3. März 1998"
    assert forms["ja", "long"].write(day) == "1998年3月3日"
    assert forms["ru", "long"].write(day).startswith("3 марта 1998")
    assert forms["en_GB", "short"].write(day) == "03/03/1998"
    assert ("de", "short") not in forms  # 03.03.98
    assert forms["th", "full"].write(day).startswith("วันอังคารที่ 3 มีนาคม")


def test_every_form_is_read_back_as_its_date(written):
    readings = dates._readings()
    for index, (_, _, _, form) in enumerate(written[::7]):
        day = FIRST + timedelta((index * 7919) % ((LAST - FIRST).days + 1))
        assert day in readings.dates(form.write(day))


def test_readings_find_all_dates_of_a_small_world_and_no_others():
    forms = [
        Form((DAY, SLASH, MONTH, SLASH, YEAR)),
        Form((MONTH, SLASH, DAY, SLASH, YEAR)),
        Form((Piece("day", PADDED), SLASH, Piece("month", PADDED[:12]), SLASH, YEAR)),
        Form((Piece("weekday", tuple("abcdefg")), DAY, Piece("text", (" x4 ",)), MONTH, SLASH, YEAR)),
        Form((DAY, SLASH, Piece("month", tuple(f"m{12 - n}" for n in range(12))), SLASH, YEAR)),
    ]
    readings = Readings(forms)
    days = [date(2003, 12, 1) + timedelta(n) for n in range(500)]
    means: dict[str, set[date]] = {}  # by brute force
    for form in forms:
        for day in days:
            means.setdefault(form.write(day), set()).add(day)
    assert {len(found) for found in means.values()} == {1, 2}
    for text, found in means.items():
        assert {day for day in readings.dates(text) if day in days} == found, text
    assert not readings.dates("31/4x/2004")
    assert not readings.dates("003/4/2004")


def test_no_string_has_two_answers_unless_its_locale_stands_before_it(data):
    readings = dates._readings()
    prefixed = Counter()
    for index in range(0, len(data.sets["train"]), 3):
        item, target = data.sets["train"][index]
        locale, colon, rest = item.partition(": ")
        if colon and exists(locale):
            prefixed[locale] += 1
            assert len(readings.dates(rest)) > 1, item
            lengths = [w.format for w in dates._written() if w.locale == locale]
            assert rest in [format_date(date.fromisoformat(target), length, locale) for length in lengths]
        else:
            assert readings.dates(item) == {date.fromisoformat(target)}
    assert len(prefixed) > 50
    assert sum(prefixed.values()) < 0.3 * len(data.sets["train"]) / 3
    for item, target in data.sets["test_locales"].pairs:
        assert readings.dates(item) == {date.fromisoformat(target)}


def test_the_word_for_october_is_november_next_door():
    assert len(dates._readings().dates("03/04/1998")) == 2
    october = {d for w in dates._written() for d in [w.form.write(date(1998, 10, 3))] if w.locale == "hr"}
    november = {d for w in dates._written() for d in [w.form.write(date(1998, 11, 3))] if w.locale == "pl"}
    assert any("listopad" in text for text in october)
    assert any("listopad" in text for text in november)


def test_ambiguous_strings_can_be_left_out(data):
    dropped = DateStrings(train_size=2003, ambiguous="drop").sets
    readings = dates._readings()
    assert len(dropped["train"]) == 2003
    assert all(len(readings.dates(item)) == 1 for item, _ in dropped["test"].pairs)
    assert dropped["test"].fingerprint() != data.sets["test"].fingerprint()
    assert dropped["test_locales"].fingerprint() == data.sets["test_locales"].fingerprint()


def test_no_date_and_no_string_is_in_two_sets(data):
    days = {name: set(dates_of(name)) for name in ("train", "val", "test")}
    assert sum(map(len, days.values())) == len(set.union(*days.values())) == (LAST - FIRST).days + 1
    assert len(days["train"]) > 4 * (len(days["val"]) + len(days["test"])) * 0.9
    for name, part in data.sets.items():
        found = {date.fromisoformat(target) for _, target in part.pairs}
        assert found <= days["test" if name == "test_locales" else name]
    train = {item for item, _ in data.sets["train"].pairs}
    assert not train & {item for item, _ in data.sets["test"].pairs}


def test_held_out_languages_share_neither_form_nor_names_with_the_others():
    known, unknown = languages()
    assert not {language.name for language in known} & {language.name for language in unknown}
    assert 10 < len(unknown) < len(known) / 4
    seen = {form for language in known for form, _ in language.forms}
    names = {piece.texts for form in seen for piece in form.pieces if piece.kind == "month"}
    numbers = {
        piece.texts for form in seen for piece in form.pieces if piece.kind == "month" and piece.numeric
    }
    for language in unknown:
        for form, _ in language.forms:
            assert form not in seen
            assert not {piece.texts for piece in form.pieces if piece.kind == "month"} & (names - numbers)


def test_families_join_what_shares_names(written):
    found = families(written)
    family = {name: index for index, each in enumerate(found) for name in each}
    assert sum(map(len, found)) == len(family)
    assert family["nb"] == family["no"]
    assert len({family[name] for name in ("de", "ja", "ru", "th", "fi")}) == 5


def test_the_same_sets_in_every_run(data):
    again = DateStrings(train_size=20_011)
    assert again.fingerprint() == data.fingerprint()
    assert len(set(data.fingerprint().values())) == 4
    assert [len(part) for part in data.sets.values()] == [20_011, 1000, 5000, 2000]
    assert DateStrings(train_size=101).sets["train"].pairs == data.sets["train"].pairs[:101]
    assert (data.name, data.synthetic) == ("dates", True)
    item, target = data.sets["val"][7]
    assert data.sets["val"].size(7) == len(item) + len(target)


def test_it_is_there_in_seconds():
    for function in (dates.languages, dates._written, dates._readings, dates._readings_in, dates.dates_of):
        function.cache_clear()
    begin = time.process_time()
    DateStrings().setup()
    assert time.process_time() - begin < 10


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^train_size must be at least 1: got 0$"):
        DateStrings(train_size=0)
    with pytest.raises(ValueError, match=r"^ambiguous must be 'prefix' or 'drop': got 'guess'$"):
        DateStrings(ambiguous="guess")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "babel", None)
    with pytest.raises(ImportError, match=r'^DateStrings needs Babel: pip install "mmattn\[tasks\]"$'):
        date_forms.read_forms()
