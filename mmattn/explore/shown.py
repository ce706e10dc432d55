"""What the tokens of an item are called, where they lie, and what is shown beneath them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmattn.explore import media

#: Left in a text these would turn the order of everything after them.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
_SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
#: What tokenizers write in front of a word, and of the rest of one.
_SPACES, _REST = ("▁", "Ġ"), "##"
#: transformers' mark for a tokenizer that cuts nothing is far above this.
_NO_LIMIT = 10**9


@dataclass(frozen=True, eq=False)
class Shown:
    """The tokens of an item, ready to be shown; see :class:`~mmattn.explore.Exploration`.

    Attributes:
        tokens, regions, image, size, sound: as there.
        places: ``[n, 2 A]``: the regions in the units of the model, for the tokens behind the first ``prefix``.
        prefix: tokens in front that have no place.
        unit: what a region of the model is divided by to give one that is shown.
        notes: sentences on what is not shown as it is.
    """

    tokens: list[str]
    regions: list[list[float]]
    places: Tensor | None
    prefix: int = 0
    image: str = ""
    size: tuple[float, float] = (0.0, 0.0)
    sound: str = ""
    unit: float = 1.0
    notes: list[str] = field(default_factory=list)


def picture_tokens(pixels: Tensor, boxes: Tensor, count: int, module: nn.Module) -> Shown:
    """Patches of a picture ``[C, H, W]`` (uint8) in boxes ``[n, 4]``; of ``count`` tokens the first have none."""
    prefix = count - len(boxes)
    rows = {top: i + 1 for i, top in enumerate(sorted(set(boxes[:, 0].tolist())))}
    columns = {left: i + 1 for i, left in enumerate(sorted(set(boxes[:, 1].tolist())))}
    named = [f"row {rows[top]}, column {columns[left]}" for top, left, *_ in boxes.tolist()]
    height, width = pixels.shape[-2:]
    return Shown(
        [*prefix_names(module, prefix), *named],
        [*([] for _ in range(prefix)), *_rounded(boxes)],
        boxes, prefix, media.picture(pixels), (float(height), float(width)),
    )  # fmt: skip


def sound_tokens(wave: Tensor, rate: int, spans: Tensor, log_values: Tensor, prefix: int = 0) -> Shown:
    """Stretches ``[n, 2]``, in samples, of a wave ``[S]``; ``log_values [frames, bands]`` is its spectrogram."""
    seconds = spans.double() / rate
    named = [f"{start:.2f} to {stop:.2f} s" for start, stop in seconds.tolist()]
    return Shown(
        [*(f"token {i + 1} in front" for i in range(prefix)), *named],
        [*([] for _ in range(prefix)), *_rounded(seconds, 4)],
        spans, prefix, media.spectrogram(log_values), (round(len(wave) / rate, 4), rate / 2),
        media.sound(wave, rate), float(rate),
    )  # fmt: skip


def text_tokens(text: str, spans: Tensor, prefix: int = 0) -> Shown:
    """Pieces of a text by the characters ``[n, 2]`` that its tokens stand for."""
    tokens = [*(f"⟨{i + 1}⟩" for i in range(prefix)), *_pieces(text, spans.tolist())]
    return Shown(tokens, [[] for _ in tokens], spans, prefix)


def _pieces(text: str, spans: Sequence[Sequence[int]]) -> list[str]:
    """What stands between two tokens goes with the second; of tokens that share a character, the first shows it."""
    pieces, done = [], 0
    for start, stop in spans:
        piece = text[done:stop] if stop > done else ""
        space = piece[: len(piece) - len(piece.lstrip())] if start > done else ""
        pieces.append(space + visible(piece[len(space) :]))
        done = max(done, stop)
    return pieces


def tokenized(tokenizer: Any, text: str) -> tuple[dict[str, Any], Shown]:
    """What a tokenizer of transformers gives for a text, and its tokens; a text that is too long is cut."""
    most = tokenizer.model_max_length
    cut = most < _NO_LIMIT
    found = tokenizer(text, return_tensors="pt", truncation=cut)
    ids = found["input_ids"][0].tolist()
    names: Sequence[str] = tokenizer.convert_ids_to_tokens(ids)
    special = [number in set(tokenizer.all_special_ids) for number in ids]
    if tokenizer.is_fast:
        spans = tokenizer(text, return_offsets_mapping=True, truncation=cut)["offset_mapping"]
        pieces = _pieces(text, [(start, stop) for start, stop in spans])
    else:
        pieces = readable(names)
    tokens = [" " + name if own else piece for name, piece, own in zip(names, pieces, special, strict=True)]
    whole = len(tokenizer(text)["input_ids"]) if cut else len(ids)
    notes = [f"The tokenizer cuts texts at {most} tokens: this one has {whole}."] if whole > len(ids) else []
    return dict(found), Shown(tokens, [[] for _ in tokens], None, notes=notes)


def readable(names: Sequence[str]) -> list[str]:
    """Tokens of a vocabulary as text: marks for spaces become spaces, words are set apart.

    Example:
        >>> readable(["play", "##ing", "go"]), readable(["▁play", "ing", "▁go"])
        ([' play', 'ing', ' go'], [' play', 'ing', ' go'])
    """
    marked = any(name.startswith(_SPACES) for name in names)
    pieces = []
    for name in names:
        if name.startswith(_REST) and len(name) > len(_REST):
            pieces.append(visible(name[len(_REST) :]))
        elif name.startswith(_SPACES):
            pieces.append(" " + (visible(name[1:]) or name))
        else:
            pieces.append(("" if marked else " ") + visible(name))
    return pieces


def visible(text: str) -> str:
    """A text with signs for line ends and tabs, and the code of what has no shape."""
    shown = []
    for character in text:
        code = ord(character)
        if character in _SIGNS:
            shown.append(_SIGNS[character])
        elif character in _BIDI or unicodedata.category(character) in ("Cc", "Cs"):
            shown.append(f"⟨{code:02X}⟩")
        else:
            shown.append(character)
    return "".join(shown)


def prefix_names(module: nn.Module, count: int) -> list[str]:
    """What the tokens in front of the patches are called."""
    own = any(
        name.rpartition(".")[2] in ("cls_token", "class_token") for name, _ in module.named_parameters()
    )
    first = own or getattr(getattr(module, "head", None), "pool", None) == "token"
    if count and first:
        return ["class token", *(f"extra token {i + 1}" for i in range(count - 1))]
    return [f"extra token {i + 1}" for i in range(count)]


def _rounded(values: Tensor, digits: int = 2) -> list[list[float]]:
    return [[round(x, digits) for x in row] for row in values.tolist()]
