"""The data of several senses side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from mmattn.training.data import Batch, ClassificationData, ExampleSet, TaskData

SENSES = ("vision", "speech", "text")
"""The senses, in the order in which everything is reported."""


@dataclass
class Items:
    """Raw items of several senses.

    Attributes:
        by_sense: name of the sense -> its items, as its own data module gives them.
    """

    by_sense: dict[str, Any]

    def __len__(self) -> int:
        return sum(map(len, self.by_sense.values()))


@dataclass
class JointBatch:
    """What one step trains on: raw items, and labels ``[B]`` for each sense."""

    items: Items
    labels: dict[str, Tensor]


class JointData(TaskData):
    """One data module for each sense; a training step takes a batch of each.

    The batches are those of the data modules themselves, so each has its own ``batch_size`` and ``num_workers``.
    The sets are theirs with the sense behind the name: ``train_vision``, ``val_speech``, ``test_text``,
    ``test_plain_text``.

    Args:
        vision: pictures; ``None`` leaves the sense out.
        speech: recordings; likewise.
        text: texts; likewise.
        mode: what an epoch is: ``"max_size_cycle"`` goes through the sense with the most batches once, and begins
            the others again; ``"min_size"`` ends with the sense that has the fewest, in an order that is new in each
            epoch (Lightning's ``CombinedLoader``).

    Raises:
        ValueError: there is no sense, or the mode is unknown.
    """

    def __init__(
        self,
        vision: ClassificationData | None = None,
        speech: ClassificationData | None = None,
        text: ClassificationData | None = None,
        mode: Literal["max_size_cycle", "min_size"] = "max_size_cycle",
    ) -> None:
        super().__init__()
        given = {"vision": vision, "speech": speech, "text": text}
        self.parts = {sense: part for sense, part in given.items() if part is not None}
        if not self.parts:
            raise ValueError("joint data need at least one sense: got none of vision, speech and text")
        if mode not in ("max_size_cycle", "min_size"):
            raise ValueError(f"mode must be 'max_size_cycle' or 'min_size': got {mode!r}")
        self.mode = mode
        self.synthetic = any(part.synthetic for part in self.parts.values())

    def build(self) -> dict[str, ExampleSet]:
        """The sets of all senses; what they raise, this raises."""
        return {
            f"{name}_{sense}": examples
            for sense, part in self.parts.items()
            for name, examples in part.sets.items()
        }

    @property
    def inputs(self) -> dict[str, Any]:
        """How the items of each sense are prepared."""
        return {sense: part.inputs for sense, part in self.parts.items()}

    @property
    def senses(self) -> tuple[str, ...]:
        """The senses that there are, in the order of the validation loaders."""
        return tuple(self.parts)

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Names of the classes of each sense, in the order of their labels."""
        return {sense: list(part.class_names) for sense, part in self.parts.items()}

    @property
    def tests(self) -> tuple[tuple[str, str], ...]:
        """Sense and name of each test set, in the order of the test loaders."""
        return tuple(
            (sense, f"{name}_{sense}") for sense, part in self.parts.items() for name in part.test_names
        )

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names of the test sets."""
        return tuple(name for _, name in self.tests)

    def train_dataloader(self) -> Any:
        """A batch of each sense at a time; see :meth:`on_before_batch_transfer`."""
        return CombinedLoader(
            {sense: part.train_dataloader() for sense, part in self.parts.items()}, self.mode
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make one :class:`JointBatch` of the batches of a training step."""
        if not isinstance(batch, dict):
            return batch
        batches: dict[str, Batch] = batch
        return JointBatch(
            Items({sense: of.items for sense, of in batches.items()}),
            {sense: of.labels for sense, of in batches.items()},
        )

    def val_dataloader(self) -> Any:
        """The validation examples of each sense in order."""
        return [part.val_dataloader() for part in self.parts.values()]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """The examples of each test set in order."""
        return [loader for part in self.parts.values() for loader in part.test_dataloader()]

    def predict_dataloader(self) -> Any:
        """The test examples of each sense in order."""
        return [part.predict_dataloader() for part in self.parts.values()]
