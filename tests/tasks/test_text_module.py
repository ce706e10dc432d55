"""What text adds to the shared task: R-drop."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("lightning")

from mmattn import TextNgrams, build_encoder
from mmattn.training.data import Batch
from tasks.text.module import TextClassification

BATCH = Batch(["good fun", "no fun at all", "so so"], torch.tensor([1, 0, 1]), [None] * 3)


def task(r_drop: float, dropout: float) -> TextClassification:
    torch.manual_seed(0)
    made = TextClassification(
        TextNgrams(12, buckets=97, dropout=dropout),
        build_encoder(12, 1, 3),
        2,
        r_drop=r_drop,
        label_smoothing=0.1,
    )
    torch.nn.init.normal_(made.head.linear.weight)
    return made.train()


def test_two_passes_are_held_together():
    model = task(0.7, 0.4)
    torch.manual_seed(5)
    loss = model.loss(BATCH)
    torch.manual_seed(5)
    one, two = model(BATCH.items * 2).chunk(2)
    cross_entropy = sum(F.cross_entropy(part, BATCH.labels, label_smoothing=0.1) for part in (one, two)) / 2
    p, q = (torch.distributions.Categorical(logits=part) for part in (one, two))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    assert both.mean() > 1e-3
    assert torch.allclose(loss, cross_entropy + 0.7 * both.mean() / 2, atol=1e-6)


def test_without_dropout_there_is_nothing_to_hold():
    assert torch.allclose(task(0.7, 0.0).loss(BATCH), task(0.0, 0.0).loss(BATCH), atol=1e-6)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"^r_drop must not be negative: got -1.0$"):
        task(-1.0, 0.0)
