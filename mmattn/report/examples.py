"""One example with its attention: what was seen, where each head looked, where the answer lay."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmattn.report import codec
from mmattn.report.codec import require


@dataclass(frozen=True)
class Picture:
    """A picture and its tokens.

    Attributes:
        pixels: ``[H][W]`` grey values or ``[H][W][3]`` red, green, blue, in [0, 1].
        tokens: one box ``(row, col, height, width)`` in pixels for each token.
        relevant: boxes of the same form around what answers the question; empty where unknown.
    """

    pixels: list[list[Any]]
    tokens: list[tuple[float, float, float, float]]
    relevant: list[tuple[float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(
            bool(self.pixels) and bool(self.pixels[0]),
            "Picture.pixels must be [H][W] or [H][W][3]",
            self.pixels,
        )
        cells = [cell for row in self.pixels for cell in row]
        even = len({len(row) for row in self.pixels}) == 1
        colour = isinstance(cells[0], (list, tuple))
        like = all(isinstance(c, (list, tuple)) and len(c) == 3 for c in cells) if colour else True
        require(
            even and like,
            "Picture.pixels must be [H][W] or [H][W][3]",
            f"rows of {[len(r) for r in self.pixels][:4]}",
        )
        flat = [value for cell in cells for value in cell] if colour else cells
        wrong = [value for value in flat if not isinstance(value, (int, float)) or not 0 <= value <= 1]
        require(not wrong, "Picture.pixels must lie in [0, 1]", wrong[:3])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return len(self.pixels), len(self.pixels[0])


@dataclass(frozen=True)
class Spectrogram:
    """A sound as a log-mel spectrogram, and its tokens.

    Attributes:
        log_mel: ``[n_mels][frames]``, lowest band first, any scale.
        seconds: length of the sound in seconds.
        tokens: ``(start, stop)`` in seconds for each token.
        relevant: ``(start, stop)`` in seconds of what answers the question; empty where unknown.
    """

    log_mel: list[list[float]]
    seconds: float
    tokens: list[tuple[float, float]]
    relevant: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.log_mel}
        require(
            len(widths) == 1 and 0 not in widths,
            "Spectrogram.log_mel must be [n_mels][frames]",
            sorted(widths),
        )
        finite = all(math.isfinite(value) for row in self.log_mel for value in row)
        require(finite, "Spectrogram.log_mel must be finite", "nan or inf")
        require(self.seconds > 0, "Spectrogram.seconds must be positive", self.seconds)


@dataclass(frozen=True)
class Sentence:
    """A text as its tokens.

    Attributes:
        tokens: the tokens as text. Marks for a leading space (``▁``, ``Ġ``) and for a continued word (``##``)
            are understood. A byte that is no text on its own is
            ``bytes([b]).decode(errors="surrogateescape")``; the bytes of a character show as that one.
        relevant: for each token, whether it answers the question; empty where unknown.
        joiner: what stands between two tokens: ``" "`` for words, ``""`` for characters, bytes and subwords
            that carry their own spaces.
    """

    tokens: list[str]
    relevant: list[bool] = field(default_factory=list)
    joiner: str = " "

    def __post_init__(self) -> None:
        ok = len(self.relevant) in (0, len(self.tokens))
        require(
            ok,
            "Sentence.relevant must have one flag for each token",
            f"{len(self.relevant)} for {len(self.tokens)}",
        )


@dataclass(frozen=True)
class AttentionLayer:
    """The attention of one layer.

    Attributes:
        name: shown to the reader, such as ``block 2, mean over queries`` or ``pooling query``.
        heads: ``[H][T]`` weights over the tokens; each head sums to about 1, or to less where it also attends
            to something that is no token of the example, such as a class token.
        relevant_mass: ``[H]`` share of each head's attention on relevant tokens; None where unknown.
    """

    name: str
    heads: list[list[float]]
    relevant_mass: list[float] | None = None

    def __post_init__(self) -> None:
        require(bool(self.heads), "AttentionLayer.heads must hold at least one head", self.heads)
        for head in self.heads:
            ok = all(math.isfinite(weight) and weight >= 0 for weight in head)
            require(ok, "AttentionLayer.heads must hold weights that are finite and not negative", head)
            require(sum(head) <= 1.01, "AttentionLayer.heads must sum to 1 at most", round(sum(head), 4))
        masses = self.relevant_mass
        if masses is not None:
            ok = len(masses) == len(self.heads)
            require(ok, "AttentionLayer.relevant_mass must have one share for each head", masses)
            require(
                all(0 <= mass <= 1.01 for mass in masses),
                "AttentionLayer.relevant_mass must lie in [0, 1]",
                masses,
            )


@dataclass(frozen=True)
class AttentionExample:
    """One example of the test set and where the model looked.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``; decides nothing but the wording and the place on the page.
        true_label, predicted_label: class names.
        probability: of the predicted class, in [0, 1].
        picture: what the model was shown, with the geometry of its T tokens.
        layers: from the first block to the pooling head; the last one is shown first.
        relevant_share: share of the T tokens that are relevant, the chance level of ``relevant_mass``;
            None where unknown.
        caption: one more sentence for the reader, such as how the example was chosen.
    """

    domain: str
    true_label: str
    predicted_label: str
    probability: float
    picture: Picture | Spectrogram | Sentence
    layers: list[AttentionLayer]
    relevant_share: float | None = None
    caption: str = ""

    def __post_init__(self) -> None:
        require(
            0 <= self.probability <= 1, "AttentionExample.probability must lie in [0, 1]", self.probability
        )
        require(bool(self.layers), "AttentionExample.layers must hold at least one layer", self.layers)
        share = self.relevant_share
        require(share is None or 0 <= share <= 1, "AttentionExample.relevant_share must lie in [0, 1]", share)
        tokens = len(self.picture.tokens)
        for layer in self.layers:
            for head in layer.heads:
                rule = f"AttentionLayer.heads must have one weight for each of the {tokens} tokens"
                require(len(head) == tokens, rule, f"{len(head)} in {layer.name!r}")


@dataclass(frozen=True)
class ExampleFile:
    """The examples of one run, as kept in ``examples.json`` beside its ``record.json``."""

    examples: list[AttentionExample]

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` as JSON and give the path."""
        return codec.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> ExampleFile:
        """Read from ``path``; raises ValueError with one sentence where it does not fit."""
        return codec.load(cls, path)
