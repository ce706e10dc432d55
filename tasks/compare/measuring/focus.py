"""How much of the pooling attention lies on the tokens that matter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmattn.observation import observe
from mmattn.tokens import TokenBatch
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.findings import Findings
from tasks.compare.measuring.scenes import Scenes
from tasks.compare.measuring.trunk import POOL, attentions, logits


def add_focus(found: Findings, name: str, task: ClassificationTask, scenes: Scenes) -> None:
    """Add ``<name>/mass``, ``<name>/share`` and ``<name>/log_ratio``.

    The mass is the weight that the heads of the pool put on the tokens that matter, the share is what these are of
    all tokens; both are means over heads and scenes. The log ratio is ``log2(mass / share)``: 0 is as good as equal
    weights, 1 twice as much.
    """
    weights = pooling_weights(task, scenes.tokens)
    ones = torch.ones_like(weights)
    mass, share = (_per_scene(x * scenes.relevant, scenes.tokens) for x in (weights, ones))
    share = share / scenes.tokens.lengths
    found.values[f"{name}/mass"] = float(mass.mean())
    found.values[f"{name}/share"] = float(share.mean())
    found.values[f"{name}/log_ratio"] = _log_ratio(float(mass.mean()), float(share.mean()))


def pooling_weights(task: ClassificationTask, tokens: TokenBatch) -> Tensor:
    """``[T]``: the weight of each token in the pool, the mean over its heads; those of a scene add up to 1."""
    with observe(task, weights=True, layers=POOL) as record:
        logits(task, tokens)
    return _packed(record[POOL].weights[:, :, 0].mean(1), tokens)


def rollout(task: ClassificationTask, tokens: TokenBatch) -> Tensor:
    """``[T]``: the weights of all layers multiplied, from the pool back to the tokens that enter the trunk.

    As :func:`mmattn.relevance` defines it (Abnar and Zuidema 2020): the mean over heads, and the residual path taken
    as half of each block. That function follows tokens through any model; here it is known where they stand.
    """
    with observe(task, weights=True) as record:
        logits(task, tokens)
    layers = list(attentions(task))
    flow = record[POOL].weights.mean(1)
    for layer in reversed(layers[:-1]):
        flow = (flow + flow @ record[layer].weights.mean(1)) / 2
    return _packed(flow[:, 0], tokens)


def _packed(rows: Tensor, tokens: TokenBatch) -> Tensor:
    return torch.cat([row[:size] for row, size in zip(rows, tokens.sizes, strict=True)])


def _per_scene(values: Tensor, tokens: TokenBatch) -> Tensor:
    sums = torch.zeros(len(tokens), dtype=torch.float64)
    return sums.index_add(0, tokens.segment_ids, values.double())


def _log_ratio(mass: float, share: float) -> float | None:
    return math.log2(mass / share) if mass > 0 and share > 0 else None
