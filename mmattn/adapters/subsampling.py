"""Frames to fewer tokens: convolutions or patches, over clips laid end to end or chunk by chunk."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.tokens import TokenBatch


class FramePatches(nn.Module):
    """Embeds each run of ``size`` frames on its own; the last run of a clip is filled up with zeros.

    Args:
        in_features: features of a frame.
        embed_dim: width D of the tokens.
        size: frames in a run.
    """

    def __init__(self, in_features: int, embed_dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.linear = nn.Linear(in_features * size, embed_dim)

    @property
    def look_ahead(self) -> int:
        """Frames behind its first that a token sees."""
        return self.size - 1

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """``[T, F] -> [T', D]`` with lengths ``ceil(n / size)``."""
        counts = (frames.lengths + self.size - 1) // self.size
        line = frames.values.new_zeros(int(counts.sum()) * self.size, frames.values.shape[1])
        starts = (counts.cumsum(0) - counts) * self.size
        places = _places(frames, starts)
        line = line.index_copy(0, places, frames.values)
        return TokenBatch(self.linear(line.reshape(-1, self.size * line.shape[1])), counts)

    def start(self) -> list[Tensor]:
        """Begin a stream: the frames that wait for the rest of their run."""
        weight = self.linear.weight
        return [weight.new_zeros(0, weight.shape[1] // self.size)]

    def step(self, frames: Tensor, waiting: list[Tensor], last: bool) -> Tensor:
        """Tokens ``[n, D]`` that the next frames ``[N, F]`` of a stream complete; ``waiting`` is kept up to date."""
        line = torch.cat([waiting[0], frames])
        if last:
            line = nn.functional.pad(line, (0, 0, 0, -len(line) % self.size))
        whole = len(line) // self.size * self.size
        waiting[0] = line[whole:].clone()
        tokens: Tensor = self.linear(line[:whole].reshape(-1, self.size * line.shape[1]))
        return tokens


#: Long lines of clips end after a multiple of this many tokens: oneDNN makes kernels for each length it meets.
_ROUND = 64


class ConvSubsampling(nn.Module):
    """Convolutions of width 3 and stride 2 over time, each with a GELU, on clips laid end to end.

    Between two clips lies at least one frame of zeros at every layer, just what padding a clip alone gives.

    Args:
        in_features: features of a frame.
        embed_dim: width D of the tokens.
        factor: total stride, a power of two; 1 is a convolution of stride 1.
    """

    def __init__(self, in_features: int, embed_dim: int, factor: int) -> None:
        super().__init__()
        steps = int(math.log2(factor))
        if 2**steps != factor:
            raise ValueError(f"subsampling must be a power of two for a conv stem: got {factor}")
        strides = [2] * steps or [1]
        widths = [in_features] + [embed_dim] * len(strides)
        self.factor = factor
        self.convs = nn.ModuleList(
            nn.Conv1d(widths[i], widths[i + 1], 3, stride, padding=1) for i, stride in enumerate(strides)
        )
        self.linear = nn.Linear(embed_dim, embed_dim)

    @property
    def look_ahead(self) -> int:
        """Frames behind its first that a token sees."""
        return max(self.factor - 1, 1)

    def forward(self, frames: TokenBatch) -> TokenBatch:
        """``[T, F] -> [T', D]`` with lengths ``ceil(n / factor)``."""
        slots = ((frames.lengths + self.factor - 1) // self.factor + 1) * self.factor
        starts = slots.cumsum(0) - slots
        length = int(slots.sum())
        if length > self.factor * _ROUND:
            length += -length % (self.factor * _ROUND)
        line = frames.values.new_zeros(length, frames.values.shape[1])
        line = line.index_copy(0, _places(frames, starts), frames.values)
        layout, x = frames, line.T[None]
        for conv in self.convs:
            stride = cast(nn.Conv1d, conv).stride[0]
            x = nn.functional.gelu(conv(x))
            counts = (layout.lengths + stride - 1) // stride
            starts = starts // stride
            layout = TokenBatch(torch.empty(int(counts.sum()), device=x.device), counts)
            real = torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device)
            places = _places(layout, starts)
            real[places] = 1  # biases and GELU would fill the gaps
            x = x * real
        return TokenBatch(self.linear(x[0].T[places]), layout.lengths)

    def start(self) -> list[Tensor]:
        """Begin a stream: for each layer the rows that it still needs, at first the zeros before the clip."""
        weights = [cast(nn.Conv1d, conv).weight for conv in self.convs]
        return [weight.new_zeros(1, weight.shape[1]) for weight in weights]

    def step(self, frames: Tensor, waiting: list[Tensor], last: bool) -> Tensor:
        """Tokens ``[n, D]`` that the next frames ``[N, F]`` of a stream complete; ``waiting`` is kept up to date."""
        x = frames
        for index, module in enumerate(self.convs):
            conv = cast(nn.Conv1d, module)
            stride = conv.stride[0]
            line = torch.cat([waiting[index], x.to(waiting[index].dtype)])
            if last:
                line = nn.functional.pad(line, (0, 0, 0, 1))
            count = max((len(line) - 3) // stride + 1, 0)
            waiting[index] = line[count * stride :].clone()
            if not count:
                x = line.new_zeros(0, len(conv.weight))
                continue
            seen = line[: (count - 1) * stride + 3].T[None]
            x = nn.functional.gelu(nn.functional.conv1d(seen, conv.weight, conv.bias, stride))[0].T
        tokens: Tensor = self.linear(x)
        return tokens


def _places(layout: TokenBatch, starts: Tensor) -> Tensor:
    """Where each token of a batch goes when sequence b starts at ``starts[b]``."""
    offsets = starts.repeat_interleave(layout.lengths).to(layout.device)
    return layout.coords[:, 0] + offsets
