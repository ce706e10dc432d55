"""Which source tokens a translator attended to for each token of a translation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.adapters.text import Span, TextTokens
from mmattn.observation import observe
from mmattn.translation.translator import Translator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 0.42
"""Inches of a cell of the picture."""

_LINES = "#d0d7de"
"""Colour of the lines between the cells."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """Attention from the tokens of a translation to those of its source.

    Attributes:
        source: the text.
        target: its translation.
        source_spans: characters of the source that each of its M tokens stands for: start, stop.
        target_spans: the same for the N tokens of the translation.
        weights: ``[N, M]``; a row says where the decoder looked when it gave this token, and adds up to 1.
    """

    source: str
    target: str
    source_spans: list[Span]
    target_spans: list[Span]
    weights: Tensor

    @property
    def source_pieces(self) -> list[str]:
        """What the tokens of the source stand for, without the spaces around it."""
        return [self.source[start:stop].strip() for start, stop in self.source_spans]

    @property
    def target_pieces(self) -> list[str]:
        """What the tokens of the translation stand for, without the spaces around it."""
        return [self.target[start:stop].strip() for start, stop in self.target_spans]

    def by_words(self) -> Alignment:
        """The same between words, numbers and marks: weights on a word add up, rows of a word are averaged.

        A token belongs to the word of its first character, spaces to the word behind them.
        """
        of_source, of_target = words(self.source), words(self.target)
        onto = _members(self.source_spans, of_source).to(self.weights)
        rows = _members(self.target_spans, of_target).to(self.weights)
        weights = (rows / rows.sum(0).clamp(min=1)).T @ self.weights @ onto
        return Alignment(self.source, self.target, of_source, of_target, weights)


def alignment(
    translator: Translator,
    source: str,
    target: str | None = None,
    layer: int | None = -1,
    heads: Sequence[int] | None = None,
) -> Alignment:
    """The cross-attention of a translator over a text and its translation.

    Args:
        translator: in training or not; it is looked at as it works outside training.
        source: the text.
        target: its translation, as given (teacher forcing); ``None`` lets the translator find it.
        layer: block of the decoder, from 0 or, negative, from the end; ``None`` takes the mean over all blocks.
        heads: heads whose weights are averaged; ``None`` takes all.

    Raises:
        ValueError: there is no such layer or head, or a text has no token.

    Example:
        >>> from mmattn import TextTokens, build_decoder, build_encoder
        >>> translator = Translator(TextTokens(8), build_encoder(8, 1, 2), None, build_decoder(8, 1, 2, context=True))
        >>> found = alignment(translator, "3. 4.", "4-3")
        >>> found.weights.shape, found.source_pieces, found.target_pieces
        (torch.Size([3, 5]), ['3', '.', '', '4', '.'], ['4', '-', '3'])
    """
    if target is None:
        target = translator.translate([source])[0]
    spans = [_spans(translator.source, source), _spans(translator.target, target)]
    for name, text, found in (("source", source, spans[0]), ("target", target, spans[1])):
        if not found:
            raise ValueError(f"the {name} must have at least one token: got {text!r}")
    names = _layers(translator, layer)
    training = translator.training
    translator.eval()
    try:
        with torch.no_grad(), observe(translator.decoder, weights=True, layers=names) as record:
            translator.hidden([source], [target])
    finally:
        translator.train(training)
    weights = torch.stack([record[name].weights[0] for name in names])  # [layers, H, N + 1, M]
    if heads is not None:
        _check_heads(heads, weights.shape[1])
        weights = weights[:, list(heads)]
    # the last query gives the end, which stands for no characters
    mean = weights.float().mean((0, 1))[: len(spans[1])]
    return Alignment(source, target, spans[0], spans[1], mean)


def words(text: str) -> list[Span]:
    """Runs of letters and of digits, and single marks, as spans of characters.

    Example:
        >>> [text[a:b] for text in ["1998年3月 (Di.)"] for a, b in words(text)]
        ['1998', '年', '3', '月', '(', 'Di', '.', ')']
    """
    spans: list[Span] = []
    before = ""
    for index, character in enumerate(text):
        kind = {"L": "letter", "M": "letter", "N": "digit"}.get(unicodedata.category(character)[0], "")
        if character.isspace():
            kind = " "
        elif kind and kind == before:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
        before = kind
    return spans


def draw_alignment(
    alignment: Alignment, title: str | None = None, fonts: Sequence[str] = ("DejaVu Sans",)
) -> Figure:
    """A picture of the weights: the source across, its translation down, the darker the more attention.

    ``draw_alignment(found.by_words()).savefig("alignment.png")`` writes it. Nothing is shown, and no state of
    matplotlib is touched.

    Args:
        alignment: between tokens, or between words.
        title: above the picture.
        fonts: families to take letters from, each where those before have none; a script that none of them has
            is drawn as boxes.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('draw_alignment needs matplotlib: pip install "mmattn[tasks]"') from error
    return _drawn(Figure, alignment, title, list(fonts))


def _spans(adapter: TextTokens, text: str) -> list[Span]:
    return [(start, stop) for start, stop in adapter.regions([text])[0].tolist()]


def _layers(translator: Translator, layer: int | None) -> list[str]:
    """Names of the cross-attention modules inside the decoder."""
    depth = len(translator.decoder.blocks)
    if layer is not None and not -depth <= layer < depth:
        raise ValueError(f"layer must be from {-depth} to {depth - 1}: got {layer}")
    chosen = range(depth) if layer is None else [layer % depth]
    return [f"blocks.{index}.cross_attention" for index in chosen]


def _check_heads(heads: Sequence[int], count: int) -> None:
    if not heads or not all(0 <= head < count for head in heads):
        raise ValueError(f"heads must be at least one number from 0 to {count - 1}: got {list(heads)}")


def _members(tokens: Sequence[Span], of: Sequence[Span]) -> Tensor:
    """``[tokens, words]``: 1 where a token belongs to a word."""
    members = torch.zeros(len(tokens), len(of))
    for row, (start, _) in enumerate(tokens):
        behind = [column for column, (_, stop) in enumerate(of) if stop > start]
        if of:
            members[row, behind[0] if behind else len(of) - 1] = 1
    return members


def _drawn(kind: type[Figure], found: Alignment, title: str | None, fonts: list[str]) -> Figure:
    across, down = found.source_pieces, found.target_pieces
    slanted = max(map(len, across)) > 2
    grid_width, grid_height = _CELL * len(across), _CELL * len(down)
    # room for the words: a letter is about 0.1 inches wide, and 0.07 when it is slanted
    left = 0.25 + 0.1 * max(map(len, down))
    above = 0.25 + (0.07 * max(map(len, across)) if slanted else 0.1) + (0.35 if title else 0.0)
    ends = [
        _CELL * (column + 0.5) + (0.07 * len(word) if slanted else 0) for column, word in enumerate(across)
    ]
    width = left + max(grid_width + 0.75, max(ends) + 0.15, 0.1 * len(title or "") - left)
    height = 0.2 + max(grid_height + above, 1.2)
    figure = kind(figsize=(width, height), dpi=150)
    axes = figure.add_axes((left / width, 0.2 / height, grid_width / width, grid_height / height))
    image = axes.imshow(found.weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    letters: dict[str, Any] = {"fontfamily": fonts, "fontsize": 10}
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xticks(range(len(across)), across, rotation=45 if slanted else 0, **letters)
    for label in axes.get_xticklabels():
        label.set(ha="left" if slanted else "center", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down, **letters)
    for side in axes.spines.values():
        side.set_visible(False)
    for line in range(len(across) + 1):
        axes.axvline(line - 0.5, color=_LINES, linewidth=0.6, clip_on=False)
    for line in range(len(down) + 1):
        axes.axhline(line - 0.5, color=_LINES, linewidth=0.6, clip_on=False)
    tall = min(grid_height, 2.0)
    bar = figure.add_axes(((left + grid_width + 0.2) / width, 0.2 / height, 0.12 / width, tall / height))
    figure.colorbar(image, cax=bar).outline.set_visible(False)
    bar.set_yticks([0, 0.5, 1], ["0", "½", "1"], fontsize=8)
    bar.tick_params(length=0)
    if title:
        figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", fontweight="bold", **letters)
    return figure
