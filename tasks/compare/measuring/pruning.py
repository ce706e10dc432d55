"""Heads removed one after the other: by importance, and by chance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.observation import head_importance
from mmattn.tokens import TokenBatch
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.effort import Effort
from tasks.compare.measuring.findings import Curve, Findings, mean_curve
from tasks.compare.measuring.heads import mask
from tasks.compare.measuring.scenes import Scenes
from tasks.compare.measuring.trunk import Trials, logits

_SEED = 60013

Head = tuple[str, int]


def importances(task: ClassificationTask, scenes: Scenes) -> dict[str, Tensor]:
    """By layer ``[H]``: the mean over scenes of the slope of the loss by the head's gate (Michel et al. 2019)."""
    batches = list(zip(scenes.tokens.split(), scenes.labels.split(1), strict=True))

    def loss(model: nn.Module, batch: tuple[TokenBatch, Tensor]) -> Tensor:
        assert isinstance(model, ClassificationTask)
        return F.cross_entropy(logits(model, batch[0]), batch[1])

    return head_importance(task, batches, loss)


def add_pruning(found: Findings, trials: Trials, known: dict[str, Tensor], effort: Effort) -> None:
    """Add ``pruning/importance`` and ``pruning/random``: the accuracy over the share of all heads removed, and its
    mean height, higher where the order keeps what the answer needs; the least important head goes first."""
    heads = [(layer, head) for layer, count in trials.heads.items() for head in range(count)]
    by_importance = sorted(heads, key=lambda head: float(known[head[0]][head[1]]))
    found.add_curve("pruning/importance", pruning_curve(trials, by_importance, effort.pruning_steps))
    draw = torch.Generator().manual_seed(_SEED)
    orders = [
        [heads[i] for i in torch.randperm(len(heads), generator=draw).tolist()]
        for _ in range(effort.pruning_orders)
    ]
    curves = [pruning_curve(trials, order, effort.pruning_steps) for order in orders]
    found.add_curve("pruning/random", mean_curve(curves))


def pruning_curve(trials: Trials, order: Sequence[Head], steps: int) -> Curve:
    """Accuracy where shares 0, 1 / steps, ... 1 of the heads are removed in this order."""
    steps = min(steps, len(order))
    points = []
    for step in range(steps + 1):
        gone = order[: round(len(order) * step / steps)]
        masks = {}
        for layer in {layer for layer, _ in gone}:
            rest = set(range(trials.heads[layer])) - {head for name, head in gone if name == layer}
            masks[layer] = mask(trials.heads[layer], rest)
        points.append([len(gone) / len(order), trials.accuracy(masks)])
    return points
