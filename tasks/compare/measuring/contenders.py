"""What is timed against one another: heads in one step or in a loop, attention or recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.attention import MultiHeadAttention
from mmattn.builders import build_encoder


class LoopedHeads(nn.Module):
    """The heads of an attention module one after the other, with its parameters and its results.

    Each head projects its queries, keys and values, attends by torch's own fused function, and is done before the
    next begins.

    Args:
        attention: self-attention without positions, mask, gate, bias of the logits or sinks.

    Example:
        >>> attention = MultiHeadAttention(embed_dim=8, num_heads=2)
        >>> x = torch.randn(3, 5, 8)
        >>> bool(torch.allclose(LoopedHeads(attention)(x), attention(x), atol=1e-5))
        True
    """

    def __init__(self, attention: MultiHeadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        """Dense tokens ``[B, N, D]`` to the same."""
        part = self.attention
        weights = part.qkv_proj.weight.unflatten(0, (3, part.num_heads, part.head_dim)).unbind(1)
        biases = part.qkv_proj.bias.unflatten(0, (3, part.num_heads, part.head_dim)).unbind(1)
        results = []
        for weight, bias in zip(weights, biases, strict=True):
            q, k, v = (F.linear(x, w, b)[:, None] for w, b in zip(weight, bias, strict=True))
            results.append(F.scaled_dot_product_attention(q, k, v)[:, 0])
        return cast(Tensor, part.out_proj(torch.cat(results, -1)))


class Recurrent(nn.Module):
    """An LSTM or a GRU whose number of parameters comes as near to a given one as its width allows.

    Args:
        kind: ``nn.LSTM`` or ``nn.GRU``.
        embed_dim: width D of the tokens.
        depth: layers.
        parameters: that it should have.
    """

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], embed_dim: int, depth: int, parameters: int
    ) -> None:
        super().__init__()

        def off(width: int) -> int:
            with torch.device("meta"):
                return abs(count(kind(embed_dim, width, depth, batch_first=True)) - parameters)

        width = 1
        while off(width + 1) < off(width):
            width += 1
        self.layers = kind(embed_dim, width, depth, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Dense tokens ``[B, N, D]`` to ``[B, N, width]``."""
        return cast(Tensor, self.layers(x)[0])


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def contenders(embed_dim: int, depth: int, num_heads: int) -> dict[str, nn.Module]:
    """By name what is timed; ``fused`` and ``loop`` share their parameters, ``attention``, ``lstm`` and ``gru`` have
    equally many, within 2 %."""
    heads = MultiHeadAttention(embed_dim, num_heads)
    encoder = build_encoder(embed_dim, depth, num_heads)
    return {
        "fused": heads,
        "loop": LoopedHeads(heads),
        "attention": encoder,
        "lstm": Recurrent(nn.LSTM, embed_dim, depth, count(encoder)),
        "gru": Recurrent(nn.GRU, embed_dim, depth, count(encoder)),
    }


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward and backward pass."""
    parameters = list(model.parameters())

    def step() -> None:
        model(x).sum().backward()
        for parameter in parameters:
            parameter.grad = None

    return step


def inference(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward pass without gradients."""

    def step() -> None:
        with torch.no_grad():
            model(x)

    return step
