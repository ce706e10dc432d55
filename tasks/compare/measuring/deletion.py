"""Tokens deleted, most important first: how fast does the answer go?"""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.tokens import TokenBatch
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.effort import Effort
from tasks.compare.measuring.findings import Curve, Findings, mean_curve
from tasks.compare.measuring.focus import pooling_weights, rollout
from tasks.compare.measuring.scenes import Scenes
from tasks.compare.measuring.trunk import accuracy, logits

_SEED = 50021


def add_deletion(
    found: Findings, task: ClassificationTask, scenes: Scenes, attended: bool, effort: Effort
) -> None:
    """Add ``deletion/gradient``, ``deletion/random`` and, where ``attended``, ``deletion/attention`` and
    ``deletion/rollout``.

    Each is the accuracy over the share of tokens deleted and its mean height, lower where the order found what the
    answer hangs on. Tokens are taken away between adapter and trunk; the others keep their places. Orders: by the
    pooling attention of the whole scene; by the attention of all layers together; by gradient times input; by chance.
    """

    def curve(scores: Tensor) -> Curve:
        return deletion_curve(task, scenes, scores, effort.deletion_steps)

    if attended:
        found.add_curve("deletion/attention", curve(pooling_weights(task, scenes.tokens)))
        found.add_curve("deletion/rollout", curve(rollout(task, scenes.tokens)))
    found.add_curve("deletion/gradient", curve(gradient_times_input(task, scenes.tokens)))
    draw = torch.Generator().manual_seed(_SEED)
    count = len(scenes.tokens.values)
    orders = [torch.rand(count, generator=draw) for _ in range(effort.deletion_orders)]
    found.add_curve("deletion/random", mean_curve([curve(scores) for scores in orders]))


def deletion_curve(task: ClassificationTask, scenes: Scenes, scores: Tensor, steps: int) -> Curve:
    """Accuracy where shares 0, 1 / steps, ... 1 of each scene's tokens are deleted, highest scores ``[T]`` first."""
    points = []
    for step in range(steps + 1):
        left = without(scenes.tokens, scores, step / steps)
        points.append([step / steps, accuracy(task, left, scenes.labels)])
    return points


def without(tokens: TokenBatch, scores: Tensor, share: float) -> TokenBatch:
    """The tokens but for a share of each sequence, rounded, that has the highest scores ``[T]``."""
    deleted = torch.tensor([round(share * size) for size in tokens.sizes])
    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[tokens.segment_ids[by_score].argsort(stable=True)]
    begins = tokens.lengths.cumsum(0) - tokens.lengths
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - begins[tokens.segment_ids]
    kept = rank >= deleted[tokens.segment_ids]
    return TokenBatch(tokens.values[kept], tokens.lengths - deleted, tokens.coords[kept])


def gradient_times_input(task: ClassificationTask, tokens: TokenBatch) -> Tensor:
    """``[T]``: the slope of the predicted class's logit times what a token holds, absolute and summed over its width.

    Absolute, since what speaks against a class matters to the answer as well.
    """
    with torch.enable_grad():
        values = tokens.values.detach().requires_grad_()
        scores = logits(task, tokens.replace(values))
        (slope,) = torch.autograd.grad(scores.amax(-1).sum(), values)
    return (slope * values.detach()).abs().sum(-1)
