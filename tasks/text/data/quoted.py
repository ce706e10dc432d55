"""Find the quoted sentence: name the language of the one sentence in quotes.

Source: the interface translations that come inside Django (``locale/<language>/LC_MESSAGES/django.mo`` of
each of its parts; BSD 3-clause; made by Django's translators, https://explore.transifex.com/django/).
Compiled catalogs hold no fuzzy entries. Only Django's folder is looked up: none of its code runs.
"""

from __future__ import annotations

import gettext
import hashlib
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmattn.training.data import Example
from tasks.scenes import SceneData, SceneSet, TrainLevels

STANDARD_LEVEL = 2
"""Level of the comparison: two sentences beside the quoted one."""

# fmt: off
LANGUAGES = (
    "ar", "az", "be", "bg", "ca", "ckb", "cs", "da", "de", "el", "es", "et", "eu",
    "fi", "fr", "ga", "gd", "gl", "hsb", "hu", "id", "it", "ky", "lt", "lv", "mn",
    "ms", "nl", "pl", "pt", "ru", "sk", "sl", "sq", "sr", "sv", "tr", "ug", "uk",
)
# fmt: on
"""The 39 languages with the most sentences of their own, 353 to 411 each in Django 5.2, by Django's codes.
Left out are regional forms of a language that is here (pt_BR, es_AR, sr_Latn, ...), Lower Sorbian beside
Upper Sorbian, and Norwegian, much of which is Danish to the letter. The list is fixed: labels must not move
with the catalogs."""

MIN_LENGTH, MAX_LENGTH = 12, 80
"""Characters of a usable sentence: shorter ones are words that languages share, longer ones are rare."""

_MARKUP = re.compile(r"%(\(\w+\))?[\d.]*[a-zA-Z%]|\{\w*\}|<[^>]*>|&#?\w+;|https?://\S+")
_DIRECTION = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # invisible: which way to write
_QUOTES = re.compile(r"[\"«»“”„‟‹›`´]|(?<!\w)['‘’‚]|['‘’‚](?!\w)")  # an apostrophe inside a word stays


class Sentence(NamedTuple):
    """One translation: its text, the index of its language, and the English message it translates."""

    text: str
    label: int
    message: str


class QuotedScenes(SceneSet):
    """Quoted sentences, each among ``level`` unquoted sentences of other languages.

    A scene is a ``str``: sentences in random order with a space between, one of them in «quotes»; with it
    go the start and stop of that sentence in characters, its quotes included.

    Args:
        sentences: the plain items.
        level: number of unquoted sentences.
        train_levels: see :class:`~tasks.scenes.SceneSet`.
        seed: see :class:`~tasks.scenes.SceneSet`.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        level: int,
        train_levels: TrainLevels = "fixed",
        seed: int | None = None,
    ) -> None:
        super().__init__(LANGUAGES, [sentence.label for sentence in sentences], level, train_levels, seed)
        self.sentences = list(sentences)
        self._mean = round(sum(len(sentence.text) for sentence in sentences) / max(len(sentences), 1))

    def compose(self, index: int, level: int, rng: np.random.Generator) -> Example:
        text, label, _ = self.sentences[index]
        others = [self.sentences[self.other(label, rng)].text for _ in range(level)]
        before = int(rng.integers(level + 1))
        quoted = f"«{text}»"
        start = sum(len(other) + 1 for other in others[:before])
        scene = " ".join([*others[:before], quoted, *others[before:]])
        return Example(scene, label, (start, start + len(quoted)))

    def size(self, index: int) -> int:
        """Characters of scene ``index``, each unquoted sentence counted at the mean length."""
        return len(self.sentences[index].text) + 2 + self.level * (self._mean + 1)

    def content(self) -> str:
        content = hashlib.sha256()
        for sentence in self.sentences:
            content.update(f"{self.class_names[sentence.label]}\t{sentence.text}\n".encode())
        return content.hexdigest()


def normalise(text: str) -> str:
    """Sentence without placeholders, markup and quote characters, with single spaces."""
    return " ".join(_QUOTES.sub("", _DIRECTION.sub("", _MARKUP.sub(" ", text))).split())


def _split(message: str) -> str:
    """Set of a message, by its digest: 70 % train, 10 % val, 20 % test, whatever else the catalogs hold."""
    tenth = hashlib.sha256(message.encode()).digest()[0] * 10 // 256
    return "train" if tenth < 7 else "val" if tenth < 8 else "test"


def _read(catalog: Path, label: int) -> list[Sentence]:
    with catalog.open("rb") as file:
        entries = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    found = []
    for key, translation in entries.items():
        original = key[0] if isinstance(key, tuple) else key  # plural forms: (message, number)
        message = normalise(original.rpartition("\x04")[2]).casefold()  # context and message
        text = normalise(translation)
        if message and text.casefold() != message and MIN_LENGTH <= len(text) <= MAX_LENGTH:
            found.append(Sentence(text, label, message))
    return found


@cache
def _load() -> dict[str, list[Sentence]]:
    package = importlib.util.find_spec("django")
    if package is None or package.origin is None:
        raise ImportError('QuotedLanguage needs Django: pip install "mmattn[tasks]"')
    root = Path(package.origin).parent
    first: dict[tuple[int, str], Sentence] = {}  # one sentence for each language and message
    for label, language in enumerate(LANGUAGES):
        for catalog in sorted(root.glob(f"**/locale/{language}/LC_MESSAGES/django.mo")):
            for sentence in _read(catalog, label):
                first.setdefault((label, sentence.message), sentence)
    missing = [name for i, name in enumerate(LANGUAGES) if all(label != i for label, _ in first)]
    if missing:
        raise ValueError(f"Django must hold a catalog of every language: none of {', '.join(missing)}")
    return _without_doubles(list(first.values()))


def _without_doubles(sentences: list[Sentence]) -> dict[str, list[Sentence]]:
    """Sort sentences into sets, without a text that two languages share, which has no one answer, and without
    one that is there already: messages can differ in what was dropped from them alone."""
    languages: dict[str, set[int]] = {}
    for sentence in sentences:
        languages.setdefault(sentence.text.casefold(), set()).add(sentence.label)
    sets: dict[str, list[Sentence]] = {"train": [], "val": [], "test": []}
    seen: set[str] = set()
    order = {name: position for position, name in enumerate(sets)}
    for sentence in sorted(sentences, key=lambda sentence: order[_split(sentence.message)]):
        text = sentence.text.casefold()
        if len(languages[text]) == 1 and text not in seen:
            sets[_split(sentence.message)].append(sentence)
            seen.add(text)
    return sets


class QuotedLanguage(SceneData):
    """The language of the quoted sentence: 39 classes; sets split by message, over all languages at once.

    Args:
        level: number of unquoted sentences; 0 is plain language identification.
        train_levels: ``"fixed"`` trains at ``level``, ``"mixed"`` at levels drawn from 0 to ``level``.
        batch_size: examples per step.
        num_workers: worker processes of each loader; 0 loads in the main process.
        length_pool: batches sorted by length together in training.

    Raises:
        ImportError: Django is not installed (when the sets are built).
        ValueError: ``level`` is negative or ``train_levels`` unknown; a language has no catalog.

    Example:
        >>> text, label, (start, stop) = QuotedLanguage(level=2).sets["test"][0]
        >>> text[start], text[stop - 1]
        ('«', '»')
    """

    def __init__(
        self,
        level: int = STANDARD_LEVEL,
        train_levels: TrainLevels = "fixed",
        batch_size: int = 64,
        num_workers: int = 0,
        length_pool: int = 16,
    ) -> None:
        super().__init__(level, train_levels, batch_size, num_workers, length_pool)

    def scenes(self, name: str, level: int, seed: int | None) -> QuotedScenes:
        return QuotedScenes(_load()[name], level, self.train_levels, seed)
