"""What a kind of model knows: what it gives for its items, and where it looked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mmattn.inference.dense import NotDense
from mmattn.inference.inputs import Inputs
from mmattn.inference.looking import Look
from mmattn.inference.program import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Kind(ABC):
    """One kind of model: classification, recognition, translation, ...

    In all methods ``model`` is of this kind, in eval mode, ``items`` are raw items on its device, and ``outputs`` is
    what the configuration says of the outputs.
    """

    #: As it stands in a configuration.
    name: ClassVar[str]

    @abstractmethod
    def predict(
        self, model: Any, items: Sequence[Any], outputs: Mapping[str, Any], top: int
    ) -> list[dict[str, Any]]:
        """For each item what the model gives, as plain data; ``top`` is how many classes or words to give with
        their probabilities, where there are any."""

    def caption(self, row: Mapping[str, Any]) -> str:
        """What the model says of an item, in a few words, from its row of :meth:`predict`."""
        return str(row["text"])

    @abstractmethod
    def look(self, model: Any, item: Any, outputs: Mapping[str, Any]) -> Look:
        """Where the model looks in one item."""

    def draw(
        self, model: Any, shown: Any, item: Any, row: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Figure:
        """The look at one item, drawn over it.

        Args:
            model: of this kind.
            shown: the item as the user has it: pixels ``[C, H, W]`` of a picture, otherwise the item itself.
            item: as the model takes it.
            row: what :meth:`predict` gave for it.
            outputs: as above.
        """
        from mmattn.inference import drawing, sentences  # only now: Matplotlib is slow to load

        look, caption = self.look(model, item, outputs), self.caption(row)
        if isinstance(item, str):
            return sentences.sentence(shown, look, caption)
        if item.ndim == 3:
            return drawing.picture(shown, tuple(item.shape[-2:]), look, caption)
        rate = model.adapter.sample_rate
        log_mel = model.adapter.spectrum(item).cpu()
        return drawing.sound(log_mel, len(item) / rate, rate, look, caption)

    def program(self, model: Any, inputs: Inputs, outputs: Mapping[str, Any]) -> Program:
        """The model as a traced program.

        Raises:
            NotDense: there is none; the message says why.
        """
        raise NotDense(f"a program runs the same steps for all items: got {self.name}, which searches")
