"""The trunk of a model in parts, so that what comes before a change is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.blocks import Block
from mmattn.encoder import Encoder
from mmattn.heads import AttentionPool
from mmattn.observation import set_head_mask
from mmattn.tokens import TokenBatch
from mmattn.training.module import ClassificationTask
from tasks.compare.measuring.scenes import Scenes

POOL = "head.pool.attention"

Kind = Literal["softmax", "uniform", "none"]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; then each module's mode and torch's random state as before."""
    modes = [(part, part.training) for model in models for part in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def attentions(task: ClassificationTask) -> dict[str, MultiHeadAttention]:
    """The attention of the blocks and of the pool, by name, in the order in which they run."""
    found = {}
    for index, block in enumerate(task.encoder.blocks):
        if isinstance(block, Block):
            found[f"encoder.blocks.{index}.attention"] = block.attention
    if isinstance(task.head.pool, AttentionPool):
        found[POOL] = task.head.pool.attention
    return found


def kind_of(task: ClassificationTask) -> Kind:
    """Whether a model pools by attention with weights of its own, by equal weights, or without attention."""
    if not isinstance(task.head.pool, AttentionPool):
        return "none"
    return "uniform" if task.head.pool.attention.scale == 0 else "softmax"


def logits(task: ClassificationTask, tokens: TokenBatch) -> Tensor:
    """``[B, C]`` of the tokens that the adapter gave."""
    scores: Tensor = task.head(cast(TokenBatch, task.encoder(tokens)))
    return scores


def accuracy(task: ClassificationTask, tokens: TokenBatch, labels: Tensor) -> float:
    """Share of scenes named rightly, 0 to 1."""
    return float((logits(task, tokens).argmax(-1) == labels).double().mean())


class Trials:
    """A model's accuracy with heads masked; each trial begins at the first layer that is changed.

    Args:
        task: in eval mode, with attention in all blocks and in the pool.
        scenes: that it answers.
    """

    def __init__(self, task: ClassificationTask, scenes: Scenes) -> None:
        self.task = task
        self.labels = scenes.labels
        self.heads = {name: module.num_heads for name, module in attentions(task).items()}
        blocks = cast("list[Block]", list(task.encoder.blocks))
        self._tails = [Encoder(blocks[first:], task.encoder.norm) for first in range(len(blocks))]
        x = scenes.tokens if task.encoder.positions is None else task.encoder.positions(scenes.tokens)
        self._inputs = [x]
        for block in blocks:
            x = block(x)
            self._inputs.append(x)
        self._inputs[-1] = x.replace(task.encoder.norm(x.values))

    def accuracy(self, kept: Mapping[str, Tensor]) -> float:
        """With the masks ``[H]`` of some layers, by name: 1 keeps a head, 0 takes it out."""
        if not kept:
            return self._answered(len(self._tails))
        first = min(list(self.heads).index(name) for name in kept)
        set_head_mask(self.task, kept)
        try:
            return self._answered(first)
        finally:
            set_head_mask(self.task, dict.fromkeys(kept))

    def _answered(self, first: int) -> float:
        tokens = self._inputs[first]
        if first < len(self._tails):
            tokens = cast(TokenBatch, self._tails[first](tokens))
        return float((self.task.head(tokens).argmax(-1) == self.labels).double().mean())
