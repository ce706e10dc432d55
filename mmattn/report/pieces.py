"""Tokens of a sentence as pieces that can be read."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from mmattn.report.examples import Sentence

# Left in the text these would turn the order of everything after them.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LEADING_SPACE = ("▁", "Ġ")
_SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥"}


@dataclass(frozen=True)
class Piece:
    """Tokens ``start`` to ``stop`` (exclusive), shown as ``text`` with ``before`` in front of it."""

    text: str
    before: str
    start: int
    stop: int


def _visible(text: str) -> str:
    """``text`` with signs for line ends and tabs, and the hexadecimal code of what has no shape."""
    out = []
    for character in text:
        code = ord(character)
        if character in _SIGNS:
            out.append(_SIGNS[character])
        elif 0xD800 <= code <= 0xDFFF:
            # Python keeps a byte that it could not decode as 0xDC00 plus the byte.
            out.append(f"⟨{code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code:02X}⟩")
        elif character in _BIDI_CONTROLS or unicodedata.category(character) == "Cc":
            out.append(f"⟨{code:02X}⟩")
        else:
            out.append(character)
    return "".join(out)


def _whole_character(tokens: list[str], start: int) -> tuple[str, int] | None:
    """The character that the lone bytes from ``start`` on make up, and its end; None if they make none."""
    data = b""
    for stop in range(start, min(start + 4, len(tokens))):
        if not tokens[stop] or not all("\udc80" <= character <= "\udcff" for character in tokens[stop]):
            return None
        data += tokens[stop].encode("utf-8", "surrogateescape")
        try:
            return data.decode("utf-8"), stop + 1
        except UnicodeDecodeError:
            continue
    return None


def pieces(sentence: Sentence) -> list[Piece]:
    r"""The tokens of ``sentence`` in order; bytes of one character become one piece, marks become spaces.

    >>> [piece.text for piece in pieces(Sentence(["caf", "\udcc3", "\udca9"], joiner=""))]
    ['caf', 'é']
    """
    out: list[Piece] = []
    index = 0
    while index < len(sentence.tokens):
        token = sentence.tokens[index]
        before = sentence.joiner if out else ""
        found = _whole_character(sentence.tokens, index)
        text, stop = found if found is not None else (token, index + 1)
        if text.startswith("##") and len(text) > 2:
            text, before = text[2:], ""
        elif text.startswith(_LEADING_SPACE) and len(text) > 1:
            text, before = text[1:], " " if out else ""
        out.append(Piece(_visible(text), before, index, stop))
        index = stop
    return out
