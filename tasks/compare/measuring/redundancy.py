"""How unlike the heads of a layer are: in where they look, and in what they give."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from mmattn.observation import observe
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.findings import Findings
from tasks.compare.measuring.scenes import Scenes
from tasks.compare.measuring.trunk import attentions, logits

_ROWS = 2048  # queries that are compared in a layer


def add_distances(found: Findings, name: str, task: ClassificationTask, scenes: Scenes) -> None:
    """Add ``<name>/js``: the Jensen-Shannon distance (base 2, 0 to 1) between where two heads of a layer look.

    The mean over queries, pairs and layers; with a table for each layer.
    """
    with observe(task, weights=True) as record:
        logits(task, scenes.tokens)
    means = []
    for layer in attentions(task):
        weights, lengths = record[layer].weights, record[layer].q_lengths
        real = torch.arange(weights.shape[2]) < lengths[:, None]
        rows = weights.transpose(1, 2)[real]
        rows = rows[:: -(-len(rows) // _ROWS)].transpose(0, 1)
        means.append(_table(found, f"{name}/js/{layer}", rows, js_distance, own=0.0))
    found.values[f"{name}/js"] = fmean(means)


def add_likeness(found: Findings, name: str, task: ClassificationTask, scenes: Scenes) -> None:
    """Add ``<name>/cka``: how alike what two heads of a layer give is, before the output projection.

    The linear centred kernel alignment of the results of all tokens, without the bias of few tokens: 1 where one is
    the other turned and scaled, 0 where they have nothing in common; the mean over pairs and layers, with a table
    for each layer.
    """
    outputs: dict[str, Tensor] = {}
    handles = []
    for layer, module in attentions(task).items():

        def keep(_: Any, args: tuple[Tensor, ...], layer: str = layer, heads: int = module.num_heads) -> None:
            outputs[layer] = args[0].detach().unflatten(-1, (heads, -1)).double()

        handles.append(module.out_proj.register_forward_pre_hook(keep))
    try:
        logits(task, scenes.tokens)
    finally:
        for handle in handles:
            handle.remove()
    means = [
        _table(found, f"{name}/cka/{layer}", x.transpose(0, 1), linear_cka, own=1.0)
        for layer, x in outputs.items()
    ]
    found.values[f"{name}/cka"] = fmean(means)


def js_distance(p: Tensor, q: Tensor) -> float:
    """Mean over rows of the Jensen-Shannon distance of distributions ``[N, M]``, by logarithms of base 2."""
    p, q = p.double(), q.double()
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return float(divergence.clamp(0, 1).sqrt().mean())


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1) / torch.log(torch.tensor(2.0, dtype=p.dtype))


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of features ``[N, K]`` and ``[N, L]`` of the same N > 3 things (Kornblith et
    al. 2019), by the unbiased estimate of each of its three terms (Song et al. 2012); 0 where one is constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    norm = (
        (_dependence(x, x) * _dependence(y, y)) ** 0.5
        if min(_dependence(x, x), _dependence(y, y)) > 0
        else 0.0
    )
    return _dependence(x, y) / norm if norm else 0.0


def _dependence(x: Tensor, y: Tensor) -> float:
    """The Hilbert-Schmidt criterion of centred features without bias, up to a factor that depends on N alone."""
    n = len(x)
    lengths_x, lengths_y = x.square().sum(1), y.square().sum(1)
    return float(
        (x.T @ y).square().sum()
        - n / (n - 2) * (lengths_x * lengths_y).sum()
        + lengths_x.sum() * lengths_y.sum() / ((n - 1) * (n - 2))
    )


def _table(
    found: Findings, name: str, heads: Tensor, compared: Callable[[Tensor, Tensor], float], own: float
) -> float:
    """Keep the table of all pairs of heads ``[H, ...]`` under a name; give the mean over pairs of different ones."""
    table = [[own] * len(heads) for _ in heads]
    pairs = list(combinations(range(len(heads)), 2))
    for i, j in pairs:
        table[i][j] = table[j][i] = compared(heads[i], heads[j])
    found.matrices[name] = table
    return fmean(table[i][j] for i, j in pairs)
