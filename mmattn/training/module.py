"""The Lightning module that every classification task shares: adapter, encoder, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from mmattn.adapters.base import Adapter
from mmattn.adapters.text import TextTokens
from mmattn.builders import build_classifier
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch
from mmattn.training.data import Batch, ClassificationData, TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task


class ClassificationTask(Task):
    """Adapter -> encoder -> classification head, with cross-entropy and accuracy.

    Args:
        adapter: raw items -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        num_classes: number of classes; the command line takes it from the data.
        class_names: their names, in the order of the labels; the command line takes them from the data.
        optimizer: optimiser and schedule.
        pool: how the head pools the tokens: ``"attention"`` or ``"mean"``.
        pool_heads: heads of the pooling attention.
        pool_attention: ``"uniform"`` makes the pooling attention the uniform control.
        head_dropout: dropout on the pooled features.
        label_smoothing: of the cross-entropy, in [0, 1).

    Raises:
        ValueError: the widths of adapter and encoder differ, or a number does not fit.
    """

    data_class: ClassVar[Any] = ClassificationData
    from_data: ClassVar[dict[str, str]] = {"num_classes": "num_classes", "class_names": "class_names"}

    def __init__(
        self,
        adapter: Adapter,
        encoder: Encoder,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008  # frozen, and jsonargparse shows its defaults
        pool: Literal["attention", "mean"] = "attention",
        pool_heads: int = 4,
        pool_attention: Literal["softmax", "uniform"] = "softmax",
        head_dropout: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(optimizer)
        if adapter.embed_dim != encoder.embed_dim:
            raise ValueError(
                f"adapter and encoder must have the same embed_dim: "
                f"got {adapter.embed_dim} and {encoder.embed_dim}"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1): got {label_smoothing}")
        self.adapter = adapter
        self.encoder = encoder
        self.head = build_classifier(
            encoder.embed_dim, num_classes,
            pool=pool, num_heads=pool_heads, dropout=head_dropout, attention=pool_attention,
        )  # fmt: skip
        self.label_smoothing = label_smoothing
        self.class_names = list(class_names or [str(i) for i in range(num_classes)])
        self.accuracies = nn.ModuleDict({"val": MulticlassAccuracy(num_classes, average="micro")})

    def tokens(self, items: Any) -> TokenBatch:
        """Raw items -> tokens; a domain adds its augmentation of features here."""
        tokens: TokenBatch = self.adapter(items)
        return tokens

    def forward(self, items: Any) -> Tensor:
        """Logits ``[B, C]`` of raw items, in float32."""
        logits: Tensor = self.head(cast(TokenBatch, self.encoder(self.tokens(items))))
        return logits.float()

    def prepare(self, data: TaskData, stage: str) -> None:
        """Train a tokenizer that needs it, and make one accuracy for each test set."""
        for name in data.test_names:
            if name not in self.accuracies:
                self.accuracies[name] = MulticlassAccuracy(self.head.linear.out_features, average="micro")
        if isinstance(self.adapter, TextTokens) and not self.adapter.tokenizer.ready:
            self.adapter.tokenizer.train(data.training_texts())

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a training batch; a domain may mix its examples first."""
        return F.cross_entropy(self(batch.items), batch.labels, label_smoothing=self.label_smoothing)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy of one batch."""
        loss = self.loss(batch)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.labels)
        )
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss and accuracy on the validation set."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy on each test set."""
        data = cast(ClassificationData, self.trainer.datamodule)  # type: ignore[attr-defined]  # set by Trainer
        self._evaluate(data.test_names[dataloader_idx], batch)

    def _evaluate(self, name: str, batch: Batch) -> None:
        logits = self(batch.items)
        accuracy = cast(MulticlassAccuracy, self.accuracies[name])
        accuracy.update(logits, batch.labels)
        options: dict[str, Any] = {"batch_size": len(batch.labels), "add_dataloader_idx": False}
        self.log(f"{name}/loss", F.cross_entropy(logits, batch.labels), **options)
        self.log(f"{name}/accuracy", accuracy, prog_bar=True, **options)

    def predict_step(self, batch: Batch, batch_index: int) -> list[dict[str, Any]]:
        """For each item its most probable class and all probabilities."""
        rows = self(batch.items).softmax(-1).tolist()
        return [
            {"label": self.class_names[max(range(len(row)), key=row.__getitem__)],
             "probabilities": dict(zip(self.class_names, row, strict=True))}
            for row in rows
        ]  # fmt: skip
