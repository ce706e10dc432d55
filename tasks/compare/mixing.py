"""Encoders that mix tokens by other means than attention, with as many parameters as the encoder of attention.

Their models pool by the mean, so the parameters of the attention pool are theirs to spend as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.backends import Mask
from mmattn.blocks import FeedForward
from mmattn.builders import build_classifier, build_encoder
from mmattn.dropout import Dropout
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch

KERNEL = {1: 7, 2: 5}
"""Width of the convolution in tokens, by the number of axes on which the tokens stand."""


class DepthwiseMixing(nn.Module):
    """A gated depthwise convolution over the places where tokens stand, ``[T, D] -> [T, D]``.

    Two projections, one the gate of the other; each channel is convolved on its own along the axes of the
    coordinates, where places without a token are zero; then a third projection (after Liu et al. 2022).

    Args:
        embed_dim: width D.
        hidden_dim: channels E that are convolved.
        axes: axes of the coordinates: 1 for sound and text, 2 for pictures.
        kernel_size: width of the convolution in tokens along each axis, odd.

    Raises:
        ValueError: axes or kernel_size do not fit.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, axes: int, kernel_size: int) -> None:
        super().__init__()
        if axes not in (1, 2):
            raise ValueError(f"axes must be 1 or 2: got {axes}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd: got {kernel_size}")
        kind = nn.Conv1d if axes == 1 else nn.Conv2d
        self.axes = axes
        self.gated = nn.Linear(embed_dim, 2 * hidden_dim)
        self.convolution = kind(
            hidden_dim, hidden_dim, kernel_size, padding=kernel_size // 2, groups=hidden_dim
        )
        self.out = nn.Linear(hidden_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights and zero biases, as in attention; the convolution keeps the variance."""
        for part in (self.gated, self.out):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        nn.init.normal_(self.convolution.weight, std=self.convolution.weight[0].numel() ** -0.5)
        nn.init.zeros_(cast(Tensor, self.convolution.bias))

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Packed tokens to values ``[T, D]``; the coordinates are whole numbers from 0."""
        if tokens.coords.shape[1] != self.axes:
            raise ValueError(f"tokens must stand on {self.axes} axes: got {tokens.coords.shape[1]}")
        x = F.glu(self.gated(tokens.values), -1)
        if not len(x):
            return cast(Tensor, self.out(x))
        places = (tokens.segment_ids, *tokens.coords.long().unbind(1))
        size = (len(tokens), *(tokens.coords.long().amax(0) + 1).tolist(), x.shape[1])
        grid = x.new_zeros(size).index_put(places, x)
        mixed = self.convolution(grid.movedim(-1, 1)).movedim(1, -1)[places]
        return cast(Tensor, self.out(F.silu(mixed)))


class TokenwiseMixing(FeedForward):
    """No mixing at all: two linear layers for each token on its own."""

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Packed tokens to values ``[T, D]``."""
        return super().forward(tokens.values)


class MixingBlock(nn.Module):
    """Pre-norm block: ``x + mixing(norm(x))``, then ``x + feed_forward(norm(x))``.

    Args:
        embed_dim: width D.
        mixing: ``TokenBatch -> [T, D]``.
        feed_forward: ``[T, D] -> [T, D]``.
        dropout: on both branches.
    """

    def __init__(
        self, embed_dim: int, mixing: nn.Module, feed_forward: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mixing_norm, self.feed_forward_norm = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.mixing, self.feed_forward = mixing, feed_forward
        self.dropout = Dropout(dropout)

    def forward(self, tokens: TokenBatch) -> TokenBatch:
        """Packed tokens to the same."""
        x = tokens.values
        x = x + self.dropout(self.mixing(tokens.replace(self.mixing_norm(x))))
        return tokens.replace(x + self.dropout(self.feed_forward(self.feed_forward_norm(x))))


class MixingEncoder(Encoder):
    """Blocks without attention in the place of an encoder.

    Args:
        embed_dim: width D.
        blocks: the layers.
    """

    def __init__(self, embed_dim: int, blocks: Sequence[MixingBlock]) -> None:
        nn.Module.__init__(self)  # an encoder's own blocks have attention
        self.width = embed_dim
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embed_dim)
        self.positions = None

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return self.width

    def forward(self, tokens: TokenBatch | Tensor, *, mask: Mask = None) -> TokenBatch:
        """Packed tokens ``[T, D]`` to the same."""
        if not isinstance(tokens, TokenBatch) or mask is not None:
            raise ValueError("an encoder without attention takes packed tokens and no mask: got others")
        for block in self.blocks:
            tokens = cast(TokenBatch, block(tokens))
        return tokens.replace(self.norm(tokens.values))


def build_convolution_encoder(
    embed_dim: int, depth: int, *, mlp_ratio: float = 4.0, dropout: float = 0.0, axes: int = 1
) -> Encoder:
    """Blocks of depthwise convolution and feed-forward, with the parameters of attention's encoder and pool.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        dropout: on the branches and hidden features.
        axes: axes of the coordinates: 1 for sound and text, 2 for pictures.

    Raises:
        ValueError: a number does not fit.

    Example:
        >>> sum(p.numel() for p in build_convolution_encoder(16, depth=2).parameters())
        7696
    """
    if axes not in KERNEL:
        raise ValueError(f"axes must be 1 or 2: got {axes}")
    return _built(
        embed_dim, depth, mlp_ratio, dropout,
        lambda hidden: DepthwiseMixing(embed_dim, hidden, axes, KERNEL[axes]),
    )  # fmt: skip


def build_tokenwise_encoder(
    embed_dim: int, depth: int, *, mlp_ratio: float = 4.0, dropout: float = 0.0
) -> Encoder:
    """Blocks that see each token on its own, with the parameters of attention's encoder and pool.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        dropout: on the branches and hidden features.

    Raises:
        ValueError: a number does not fit.
    """
    return _built(
        embed_dim, depth, mlp_ratio, dropout, lambda hidden: TokenwiseMixing(embed_dim, hidden, dropout)
    )


def build_deeper_encoder(
    embed_dim: int, depth: int, *, mlp_ratio: float = 4.0, dropout: float = 0.0, rotary_base: float = 10_000.0
) -> Encoder:
    """One head and one block more than ``depth``; otherwise as :func:`mmattn.build_encoder`."""
    return build_encoder(
        embed_dim, depth + 1, 1, mlp_ratio=mlp_ratio, dropout=dropout, rotary_base=rotary_base
    )


def _built(
    embed_dim: int, depth: int, mlp_ratio: float, dropout: float, mixing: Callable[[int], nn.Module]
) -> Encoder:
    if depth < 1:
        raise ValueError(f"depth must be at least 1: got {depth}")

    def encoder(hidden: int) -> Encoder:
        blocks = []
        for _ in range(depth):
            feed_forward = FeedForward(embed_dim, int(embed_dim * mlp_ratio), dropout)
            blocks.append(MixingBlock(embed_dim, mixing(hidden), feed_forward, dropout))
        return MixingEncoder(embed_dim, blocks)

    with torch.device("meta"):
        wanted = parameters(build_encoder(embed_dim, depth, 1, mlp_ratio=mlp_ratio))
        wanted += parameters(build_classifier(embed_dim, 2, num_heads=1))
        wanted -= parameters(build_classifier(embed_dim, 2, pool="mean"))
        one, two = parameters(encoder(1)), parameters(encoder(2))
    return encoder(max(1, 1 + round((wanted - one) / (two - one))))


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
