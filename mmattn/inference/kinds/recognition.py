"""What was said in a sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmattn.inference import dense, examples
from mmattn.inference.inputs import Inputs
from mmattn.inference.kind import Kind
from mmattn.inference.looking import Look, look_of_layer
from mmattn.inference.program import Program, trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RecognitionKind(Kind):
    """A :class:`~mmattn.recognition.SpeechRecognizer`; gives a text."""

    name = "recognition"

    def predict(
        self, model: Any, items: Sequence[Any], outputs: Mapping[str, Any], top: int
    ) -> list[dict[str, Any]]:
        return [{"text": text} for text in model.transcribe(items, outputs["beam_size"])]

    def look(self, model: Any, item: Any, outputs: Mapping[str, Any]) -> Look:
        """By the last layer of the encoder."""
        return look_of_layer(model, lambda: model([item]), model.adapter.regions([item])[0], "encoder.")

    def draw(
        self, model: Any, shown: Any, item: Any, row: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Figure:
        """What was heard over the spectrogram, each unit where it is said, and what it looked at."""
        if not row["text"]:
            return super().draw(model, shown, item, row, outputs)
        from mmattn.recognition import draw_alignment

        return draw_alignment(model, item, row["text"])

    def program(self, model: Any, inputs: Inputs, outputs: Mapping[str, Any]) -> Program:
        example, front = examples.example(model.adapter, inputs), dense.front(model.adapter)
        twin = dense.Dense(
            front, dense.encoder(model.encoder, front, example.x, example.one_size), model.head
        )

        def logits(waves: Any) -> Any:
            return model(waves).values.unflatten(0, (len(waves), -1))

        size = model.units.vocab_size
        return trace(twin, logits, example, f"logits of units [batch, tokens, {size}], 0 = blank")
