"""A stack of Conformer blocks, offline and over a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Mask
from mmattn.blocks import Block
from mmattn.cache import KVCache
from mmattn.conformer.block import ConformerBlock
from mmattn.conformer.convolution import Past, TimeConvolution
from mmattn.dropout import Dropout
from mmattn.encoder import Encoder
from mmattn.masks import Causal, Pattern, Window
from mmattn.positions.rotary import RotaryPositions
from mmattn.tokens import TokenBatch


class ConformerState:
    """What a stream of tokens leaves behind for the next chunk; :meth:`Conformer.start` makes one.

    Its size does not grow: a window of keys and values, and what the convolutions look back to.

    Attributes:
        caches: keys and values, one cache for each block.
        pasts: rows of the convolutions, one for each block.
        length: tokens so far.
    """

    def __init__(self, caches: Sequence[KVCache], pasts: Sequence[Past]) -> None:
        self.caches = list(caches)
        self.pasts = list(pasts)
        self.length = 0


class Conformer(Encoder):
    """An :class:`~mmattn.Encoder` of Conformer blocks, with a window of attention that is part of the model.

    Args:
        blocks: the layers; their convolutions are causal or not like the encoder.
        norm: final norm over D; ``None``: none, since each block ends with one.
        window: tokens before a token that it attends to, and, unless causal, as many behind; ``None``: all.
        causal: whether a token sees itself and those before alone.

    Raises:
        ValueError: window is below 0, or a block's convolution looks ahead in a causal encoder.
    """

    def __init__(
        self,
        blocks: Sequence[ConformerBlock],
        norm: nn.Module | None = None,
        window: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__(cast(Sequence[Block], blocks), nn.Identity() if norm is None else norm)
        if window is not None and window < 0:
            raise ValueError(f"window must not be negative: got {window}")
        if causal and not all(block.convolution.causal for block in blocks):
            raise ValueError("the convolutions of a causal encoder must be causal: got one that looks ahead")
        self.window = window
        self.causal = causal

    @property
    def mask(self) -> Pattern | None:
        """Which tokens a token may attend to; None: all."""
        if self.window is None:
            return Causal() if self.causal else None
        return Window(self.window, 0 if self.causal else self.window)

    def forward(self, tokens: TokenBatch | Tensor, *, mask: Mask = None) -> TokenBatch | Tensor:
        """As :meth:`Encoder.forward`; ``mask`` narrows the encoder's own further."""
        own = self.mask
        if own is not None and mask is not None:
            if isinstance(mask, Tensor):
                mask = mask & own.dense(mask.shape[-2], mask.shape[-1], mask.device)
            else:
                mask = mask & own
        return super().forward(tokens, mask=own if mask is None else mask)

    def start(self) -> ConformerState:
        """Begin a stream.

        Raises:
            ValueError: the encoder looks ahead, or back without end.
        """
        if not self.causal or self.window is None:
            raise ValueError(
                "a stream needs an encoder with causal=True and a window: "
                f"got causal={self.causal}, window={self.window}"
            )
        blocks = [cast(ConformerBlock, block) for block in self.blocks]
        caches = [KVCache(window=self.window + 1) for _ in blocks]
        return ConformerState(caches, [Past(block.convolution.look_back) for block in blocks])

    def step(self, tokens: Tensor, state: ConformerState) -> Tensor:
        """The next tokens ``[B, N, D]`` of B streams; what :meth:`forward` gives for all tokens at once.

        For use without gradients, in ``torch.no_grad()`` or ``torch.inference_mode()``.
        """
        x, (begin, end) = tokens, (state.length, state.length + tokens.shape[1])
        if begin == end:
            return tokens
        coords = torch.arange(begin, end, device=tokens.device)[:, None]
        made: dict[tuple[int, int], Tensor] = {}
        for module, cache, past in zip(self.blocks, state.caches, state.pasts, strict=True):
            block = cast(ConformerBlock, module)
            rotary, width = block.attention.positions, block.attention.head_dim
            if rotary is not None and (id(rotary), width) not in made:
                made[id(rotary), width] = rotary.tables(coords, width, x.dtype)
            tables = made.get((id(rotary), width))
            x = cast(Tensor, block(x, mask=self.mask, tables=tables, cache=cache, past=past))
        state.length = end
        return cast(Tensor, self.norm(x))

    def extra_repr(self) -> str:
        return f"window={self.window}, causal={self.causal}"


def build_conformer(
    embed_dim: int,
    depth: int,
    num_heads: int,
    *,
    kernel_size: int = 15,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    rotary_base: float = 10_000.0,
    window: int | None = None,
    causal: bool = False,
    backend: str = "auto",
) -> Conformer:
    """Build a Conformer encoder (Gulati et al. 2020), with rotary positions and norms over features.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        num_heads: attention heads; must divide embed_dim.
        kernel_size: tokens that a convolution sees, the token itself included; odd unless causal.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        dropout: on the branches and on the hidden features of the feed-forward layers.
        attention_dropout: on the attention weights.
        drop_path: of the last block; grows linearly from 0 at the first.
        rotary_base: base of the rotary positions.
        window: tokens before a token that it attends to, and, unless causal, as many behind; ``None``: all.
        causal: nothing looks ahead: attention and convolutions see a token and those before it. With a window the
            encoder can follow a stream.
        backend: ``"auto"`` or the name of an attention backend.

    Raises:
        ValueError: a number does not fit; the message says which.

    Example:
        >>> encoder = build_conformer(16, depth=2, num_heads=4, kernel_size=5)
        >>> encoder(TokenBatch(torch.randn(5, 16), [3, 2]))
        TokenBatch(2 sequences, 5 tokens, lengths 2..3, values [5, 16] float32, coords [5, 1], cpu)
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1: got {depth}")
    rotary, hidden = RotaryPositions(rotary_base), int(embed_dim * mlp_ratio)
    blocks = []
    for index in range(depth):
        attention = MultiHeadAttention(
            embed_dim, num_heads, positions=rotary, dropout=attention_dropout, backend=backend
        )
        blocks.append(
            ConformerBlock(
                attention,
                TimeConvolution(embed_dim, kernel_size, causal),
                _feed_forward(embed_dim, hidden, dropout),
                _feed_forward(embed_dim, hidden, dropout),
                dropout=dropout,
                drop_path=drop_path * index / max(depth - 1, 1),
            )
        )
    return Conformer(blocks, window=window, causal=causal)


def _feed_forward(embed_dim: int, hidden_dim: int, dropout: float) -> nn.Sequential:
    # as one node of the autograd graph, in rows that stay in the cache, it was no faster
    return nn.Sequential(
        nn.Linear(embed_dim, hidden_dim), nn.SiLU(), Dropout(dropout), nn.Linear(hidden_dim, embed_dim)
    )
