"""Image classification, with mixup and CutMix."""

from __future__ import annotations

from typing import Any

from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional as F

from mmattn.adapters.base import Adapter
from mmattn.encoder import Encoder
from mmattn.training.data import Batch
from mmattn.training.module import ClassificationTask


class ImageClassification(ClassificationTask):
    """Classify pictures.

    Args:
        adapter: pictures -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        num_classes: number of classes; the command line takes it from the data.
        mixup: alpha of mixup (Zhang et al. 2018) in training, by timm; 0 mixes nothing. Needs pictures of one size
            and batches of an even number; an odd one stays as it is.
        cutmix: alpha of CutMix (Yun et al. 2019), likewise; with both, each batch draws one of them.
        **kwargs: as :class:`~mmattn.training.module.ClassificationTask`.

    Raises:
        ValueError: an alpha is negative.
    """

    domain = "vision"

    def __init__(
        self,
        adapter: Adapter,
        encoder: Encoder,
        num_classes: int,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(adapter, encoder, num_classes, **kwargs)
        if mixup < 0 or cutmix < 0:
            raise ValueError(f"mixup and cutmix must not be negative: got mixup={mixup}, cutmix={cutmix}")
        self.mix = (
            Mixup(mixup, cutmix, label_smoothing=self.label_smoothing, num_classes=num_classes)
            if mixup or cutmix
            else None
        )

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a training batch, mixed where asked."""
        if self.mix is None or not isinstance(batch.items, Tensor) or len(batch.labels) % 2:
            return super().loss(batch)
        pictures, targets = self.mix(batch.items.clone(), batch.labels)
        return F.cross_entropy(self(pictures), targets)
