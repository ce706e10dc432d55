"""Texts in another language, or in another form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmattn.inference.kind import Kind
from mmattn.inference.looking import Look, look_of_layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TranslationKind(Kind):
    """A :class:`~mmattn.translation.Translator`; gives a text for a text."""

    name = "translation"

    def predict(
        self, model: Any, items: Sequence[Any], outputs: Mapping[str, Any], top: int
    ) -> list[dict[str, Any]]:
        found = model.translate(items, outputs["beam_size"], outputs["length_penalty"], outputs["max_length"])
        return [{"text": text} for text in found]

    def look(self, model: Any, item: Any, outputs: Mapping[str, Any]) -> Look:
        """By the last layer of the encoder."""
        return look_of_layer(model, lambda: model.encode([item]), model.source.regions([item])[0], "encoder.")

    def draw(
        self, model: Any, shown: Any, item: Any, row: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Figure:
        """The words of the text across, those of the translation down, and what these looked at."""
        if not row["text"].strip():
            return super().draw(model, shown, item, row, outputs)
        from mmattn.translation.alignment import alignment, draw_alignment

        return draw_alignment(alignment(model, item, row["text"]).by_words())
