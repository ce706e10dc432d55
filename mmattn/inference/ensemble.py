"""Several classifiers used as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmattn.inference.kinds.classification import ClassificationKind, rows_of
from mmattn.inference.looking import Look
from mmattn.inference.predictor import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ensemble:
    """Classifiers of the same classes, used as one: their probabilities are averaged.

    Models that differ in nothing but their seed err in different places; where data are few, their average is
    often better than each of them, and its probabilities are less sure of what is wrong (Lakshminarayanan, Pritzel
    and Blundell 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles").

    Args:
        members: predictors of kind ``"classification"`` with the same classes, in the same order, and the same way of
            reading files. They may differ in all else.

    Attributes:
        members: as given.
        kind: ``"classification"``.
        inputs: how files are read, by all members.
        outputs: what belongs to the outputs: ``class_names``.

    Raises:
        ValueError: there are no members, or they do not go together.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one model: got none")
        first = members[0]
        for other in members:
            if other.kind != ClassificationKind.name:
                raise ValueError(f"an ensemble is of classification models: got {other.kind}")
            names, expected = other.outputs["class_names"], first.outputs["class_names"]
            if names != expected:
                raise ValueError(
                    f"models of an ensemble must have the same classes: "
                    f"got {', '.join(names)} and {', '.join(expected)}"
                )
            if other.inputs != first.inputs:
                raise ValueError(
                    f"models of an ensemble must read files alike: got {other.inputs} and {first.inputs}"
                )
        self.members = list(members)
        self.kind = first.kind
        self.inputs = first.inputs
        self.outputs = first.outputs

    def read(self, path: Path | str) -> Any:
        """The item of a file, see :meth:`Predictor.read`."""
        return self.members[0].read(path)

    @torch.inference_mode()
    def predict(self, items: Sequence[Any], top: int = 5) -> list[dict[str, Any]]:
        """For each item the label and the mean probabilities of the ``top`` classes.

        Args:
            items: see :meth:`Predictor.predict`.
            top: how many classes with their probabilities, the most probable first.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1: got {top}")
        if not items:
            return []
        each = [member.model(member.placed(items)).softmax(-1).cpu() for member in self.members]
        return rows_of(torch.stack(each).mean(0), self.outputs["class_names"], top)

    def look(self, item: Any) -> Look:
        """Where the first model looks in an item: heads of different models are not the same heads."""
        return self.members[0].look(item)

    def draw(self, item: Any, row: Mapping[str, Any] | None = None, path: Path | None = None) -> Figure:
        """Where the first model looks, drawn over the item, under what all say; see :meth:`Predictor.draw`."""
        return self.members[0].draw(item, self.predict([item])[0] if row is None else row, path)
