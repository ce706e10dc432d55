"""Classes of pictures, sounds and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmattn.inference import dense, examples
from mmattn.inference.inputs import Inputs
from mmattn.inference.kind import Kind
from mmattn.inference.looking import Look, look_of_layer
from mmattn.inference.program import Program, trace


class ClassificationKind(Kind):
    """Adapter, encoder and head; gives a label and probabilities."""

    name = "classification"

    def predict(
        self, model: Any, items: Sequence[Any], outputs: Mapping[str, Any], top: int
    ) -> list[dict[str, Any]]:
        logits: Tensor = model(items)
        return rows_of(logits.softmax(-1), outputs["class_names"], top)

    def caption(self, row: Mapping[str, Any]) -> str:
        return f"{row['label']}, {row['probabilities'][row['label']]:.0%}"

    def look(self, model: Any, item: Any, outputs: Mapping[str, Any]) -> Look:
        """By the pooling heads; where there are none, by the last layer, from the token that the class is read from
        or the mean of all."""
        regions = model.adapter.regions([item])[0][getattr(model.adapter, "prefix_length", 0) :]
        of_token = torch.tensor([0]) if getattr(model.head, "pool", None) == "token" else None
        return look_of_layer(model, lambda: model([item]), regions, queries=of_token)

    def program(self, model: Any, inputs: Inputs, outputs: Mapping[str, Any]) -> Program:
        gives = f"logits [batch, {len(outputs['class_names'])}]"
        if hasattr(model.adapter, "stack"):  # a VisionTransformer takes stacked pictures as they are
            return trace(model, model, examples.example(model.adapter.patches, inputs), gives)
        example, front = examples.example(model.adapter, inputs), dense.front(model.adapter)
        encoder = dense.encoder(model.encoder, front, example.x, example.one_size)
        return trace(dense.Dense(front, encoder, dense.DenseClassifier(model.head)), model, example, gives)


def rows_of(probabilities: Tensor, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """Rows of probabilities ``[B, C]``: the label, and the ``top`` classes with their shares, the largest first."""
    best = probabilities.topk(min(top, len(names)))
    rows = []
    for shares, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        of_names = {names[index]: round(share, 6) for share, index in zip(shares, indices, strict=True)}
        rows.append({"label": names[indices[0]], "probabilities": of_names})
    return rows
