"""The convolution over time of a Conformer block, exact for every clip of a packed batch."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.conformer.depthwise import depthwise
from mmattn.tokens import TokenBatch


class Past:
    """The last rows that went into a causal convolution, kept from one chunk of a stream to the next.

    Args:
        size: rows to keep.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: ``[B, size, D]``; None before the first chunk
        self.rows: Tensor | None = None

    def extend(self, x: Tensor) -> Tensor:
        """The rows before ``x [B, N, D]`` (zeros at the start of a stream) and x: ``[B, size + N, D]``."""
        before = x.new_zeros(len(x), self.size, x.shape[2]) if self.rows is None else self.rows
        joined = torch.cat([before, x], dim=1)
        # a copy: a view would keep the whole chunk
        self.rows = joined[:, joined.shape[1] - self.size :].clone()
        return joined


class TimeConvolution(nn.Module):
    """The convolution module of a Conformer: gated linear unit, depthwise convolution, norm, SiLU, linear layer.

    Clips lie end to end with gaps of zeros between them, as wide as the kernel reaches, through one convolution;
    every clip gives what it gives alone with zeros around it. The norm is over the features of one token, not over
    the batch and not over time, so that no other clip and no padding has a part in it. The norm in front of the
    module belongs to the block.

    Args:
        embed_dim: width D.
        kernel_size: tokens that the convolution sees, the token itself included; odd unless causal.
        causal: look at the token and those before it, for streams.
        norm: from a width to the norm behind the convolution.

    Raises:
        ValueError: kernel_size is below 1, or even without causal.

    Example:
        >>> convolution = TimeConvolution(8, kernel_size=3)
        >>> convolution(TokenBatch(torch.randn(5, 8), [3, 2])).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        kernel_size: int = 15,
        causal: bool = False,
        norm: type[nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or (kernel_size % 2 == 0 and not causal):
            raise ValueError(
                f"kernel_size must be at least 1, and odd unless causal: got kernel_size={kernel_size}, "
                f"causal={causal}"
            )
        self.causal = causal
        self.kernel_size = kernel_size
        self.pointwise_in = nn.Linear(embed_dim, 2 * embed_dim)
        self.depthwise = nn.Conv1d(embed_dim, embed_dim, kernel_size, groups=embed_dim)
        self.norm = norm(embed_dim)
        self.pointwise_out = nn.Linear(embed_dim, embed_dim)

    @property
    def look_back(self) -> int:
        """Tokens before its own that the convolution sees."""
        return self.kernel_size - 1 if self.causal else self.kernel_size // 2

    def forward(self, tokens: TokenBatch | Tensor, past: Past | None = None) -> Tensor:
        """Packed tokens ``[T, D]``, or dense ``[B, N, D]`` of rows without padding, to the same shape.

        Args:
            tokens: the tokens.
            past: what a stream keeps between calls, for dense tokens and a causal convolution.

        Raises:
            ValueError: there is a past and the convolution is not causal, or the tokens are packed.
        """
        if past is not None and (not self.causal or isinstance(tokens, TokenBatch)):
            raise ValueError("a past is for dense tokens and a causal convolution: got another")
        values = tokens.values if isinstance(tokens, TokenBatch) else tokens
        x = F.glu(self.pointwise_in(values), dim=-1)
        if isinstance(tokens, TokenBatch):
            x = self._packed(x, tokens.sizes)
        elif past is not None:
            x = self._convolved(past.extend(x))
        else:
            left = self.look_back
            x = self._convolved(F.pad(x, (0, 0, left, self.kernel_size - 1 - left)))
        result: Tensor = self.pointwise_out(F.silu(self.norm(x)))
        return result

    def _packed(self, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Each clip of ``[T, D]`` on its own, in one convolution."""
        left = self.look_back
        line = _line(sizes, left, self.kernel_size - 1 - left, x.device)
        spread = x.new_zeros(line.length, x.shape[1]).index_copy(0, line.into, x)
        return self._convolved(spread[None])[0].index_select(0, line.out)

    def _convolved(self, x: Tensor) -> Tensor:
        return depthwise(x, self.depthwise.weight, self.depthwise.bias)

    def extra_repr(self) -> str:
        return f"causal={self.causal}"


class _Line(NamedTuple):
    """Where clips lie on a line with gaps, and where a valid convolution over it has their results.

    Attributes:
        length: of the line.
        into: ``[T]``, where each token goes.
        out: ``[T]``, where its result is.
    """

    length: int
    into: Tensor
    out: Tensor


#: Lines are this many tokens long or a multiple: oneDNN makes a kernel for each shape.
_ROUND = 64


@lru_cache(maxsize=32)
def _line(sizes: tuple[int, ...], left: int, right: int, device: torch.device) -> _Line:
    """Made once for all blocks: room for ``left`` zeros before every clip and ``right`` zeros behind it."""
    with torch.inference_mode(False):  # what is made there cannot be used in training
        lengths = torch.tensor(sizes, dtype=torch.long)
        total, gap = int(lengths.sum()), max(left, right)
        before = torch.arange(len(sizes)) * gap
        out = torch.arange(total) + before.repeat_interleave(lengths)
        length = left + total + max(len(sizes) - 1, 0) * gap + right
        return _Line(-(-length // _ROUND) * _ROUND, (out + left).to(device), out.to(device))
