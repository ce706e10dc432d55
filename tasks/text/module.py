"""Text classification, from scratch or from what was pre-trained."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional as F

from mmattn.adapters.base import Adapter
from mmattn.encoder import Encoder
from mmattn.training.data import Batch, TaskData
from mmattn.training.module import ClassificationTask
from tasks.text.pretraining.weights import load_pretrained


class TextClassification(ClassificationTask):
    """Classify texts.

    Args:
        adapter: texts -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        num_classes: number of classes; the command line takes it from the data.
        pretrained: a checkpoint of ``tasks.text.pretraining``, with whose adapter (and its tokenizer) and encoder
            training begins; both must be built as they were there, but for their dropout.
        r_drop: weight of the divergence between two passes over each training batch, which dropout makes differ
            (Wu et al. 2021); 0 makes one pass.
        **kwargs: as :class:`~mmattn.training.module.ClassificationTask`.

    Raises:
        ValueError: r_drop is negative.
    """

    domain = "text"

    def __init__(
        self,
        adapter: Adapter,
        encoder: Encoder,
        num_classes: int,
        pretrained: str | None = None,
        r_drop: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(adapter, encoder, num_classes, **kwargs)
        if r_drop < 0:
            raise ValueError(f"r_drop must not be negative: got {r_drop}")
        self.pretrained = pretrained
        self._took_up = False
        self.r_drop = r_drop

    def prepare(self, data: TaskData, stage: str) -> None:
        """Before training, take up what was pre-trained; then train a tokenizer that still needs it."""
        if stage == "fit" and self.pretrained is not None and not self._took_up:
            rank_zero_info(load_pretrained(self.pretrained, self.adapter, self.encoder, self.recipe))
            self._took_up = True
        super().prepare(data, stage)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a training batch; with R-drop, of two passes, and half their symmetric divergence."""
        if not self.r_drop:
            return super().loss(batch)
        logits = self([*batch.items, *batch.items])
        labels = torch.cat([batch.labels, batch.labels])
        cross_entropy = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        first, second = logits.log_softmax(-1).chunk(2)
        divergence = (first - second) * (first.exp() - second.exp())  # summed over classes: both directions
        return cross_entropy + self.r_drop * 0.5 * divergence.sum(-1).mean()
