"""Masked language modelling as a Lightning task."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import Perplexity

from mmattn.adapters.base import Adapter
from mmattn.encoder import Encoder
from mmattn.language import DynamicMasking, MaskedLanguageModel, Vocabulary
from mmattn.training.data import TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task
from tasks.text.pretraining.data import TextBatch, TextData

_SYMBOL = "[MASK]"


class MaskedLanguageModelling(Task):
    """Name hidden tokens: adapter -> encoder -> language head, as :class:`~mmattn.language.MaskedLanguageModel`.

    Its checkpoint gives a classifier its adapter and encoder: ``python -m tasks.text fit --model.pretrained ...``.

    Args:
        adapter: texts -> tokens: ``TextTokens`` or ``TextNgrams``, without token dropout.
        encoder: tokens -> tokens; of the same width as the adapter.
        vocabulary: what can be named; ``None`` takes the usual one for the adapter.
        masking: which tokens are hidden.
        optimizer: optimiser and schedule.

    Raises:
        TypeError: adapter and vocabulary do not go together.
        ValueError: the widths of adapter and encoder differ, or a number does not fit.
    """

    domain = "text"
    data_class: ClassVar[Any] = TextData

    def __init__(
        self,
        adapter: Adapter,
        encoder: Encoder,
        vocabulary: Vocabulary | None = None,
        masking: DynamicMasking = DynamicMasking(),  # noqa: B008  # frozen, and jsonargparse shows its defaults
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008
    ) -> None:
        super().__init__(optimizer)
        self.model = MaskedLanguageModel(adapter, encoder, vocabulary, masking)  # type: ignore[arg-type]  # it checks
        self.metrics = nn.ModuleDict({"val": self._new_metrics()})

    def _new_metrics(self) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "loss": MeanMetric(),
                "accuracy": MulticlassAccuracy(self.model.vocabulary.size, average="micro"),
                "perplexity": Perplexity(),
            }
        )

    def forward(self, items: list[str]) -> Tensor:
        """Logits ``[T, V]`` at all tokens of B texts, with nothing hidden."""
        logits: Tensor = self.model(items)
        return logits

    def prepare(self, data: TaskData, stage: str) -> None:
        """Let tokenizer and vocabulary learn from the training texts, and make the metrics of each test set."""
        for name in data.test_names:
            if name not in self.metrics:
                self.metrics[name] = self._new_metrics()
        if not self.model.ready:
            self.model.learn(data.training_texts())

    def training_step(self, batch: TextBatch, batch_index: int) -> Tensor:
        """Cross-entropy of the tokens chosen in one batch."""
        loss = self.model.loss(batch.items)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.items))
        return loss

    def validation_step(self, batch: TextBatch, batch_index: int) -> None:
        """Loss, accuracy and perplexity of hidden tokens on the validation set."""
        self._evaluate("val", batch, batch_index)

    def test_step(self, batch: TextBatch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Loss, accuracy and perplexity of hidden tokens on each test set."""
        data: TaskData = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer
        self._evaluate(data.test_names[dataloader_idx], batch, batch_index)

    def _evaluate(self, name: str, batch: TextBatch, batch_index: int) -> None:
        # the same tokens are hidden in every epoch, so that epochs can be compared
        logits, targets = self.model.masked(batch.items, torch.Generator().manual_seed(batch_index))
        if not len(targets):
            return
        measured = {
            "loss": (F.cross_entropy(logits, targets, reduction="none"),),
            "accuracy": (logits, targets),
            "perplexity": (logits[None], targets[None]),
        }
        for key, metric in cast(nn.ModuleDict, self.metrics[name]).items():
            cast(Metric, metric).update(*measured[key])
            options: dict[str, Any] = {"batch_size": len(batch.items), "add_dataloader_idx": False}
            self.log(f"{name}/{key}", cast(Metric, metric), prog_bar=key == "accuracy", **options)

    def predict_step(self, batch: TextBatch, batch_index: int) -> list[dict[str, Any]]:
        """For each text, what may stand at each ``[MASK]`` in it."""
        return [{"text": text, "fills": self._fills(text)} for text in batch.items]

    def _fills(self, text: str) -> list[list[dict[str, Any]]]:
        if _SYMBOL not in text:
            return []
        return [[guess._asdict() for guess in guesses] for guesses in self.model.fill(text, symbol=_SYMBOL)]
