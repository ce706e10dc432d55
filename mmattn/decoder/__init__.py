"""Decoder: causal self-attention, cross-attention to a context, and decoding a few tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Mask
from mmattn.cache import KVCache
from mmattn.decoder.block import DecoderBlock
from mmattn.decoder.state import DecoderState
from mmattn.masks import Causal, Pattern, Window
from mmattn.tokens import TokenBatch


class Decoder(nn.Module):
    """A stack of decoder blocks: over packed tokens in training, a few tokens at a time in decoding.

    Args:
        blocks: the layers.
        norm: final norm over D.
        positions: a module that adds absolute positions to the tokens; ``None`` where the blocks know positions
            themselves, or they are not wanted.
        window: sliding-window attention: each token sees this many tokens, itself included, and caches keep no
            more; ``None``: all tokens before it.

    Raises:
        ValueError: there is no block, some have cross-attention and some have not, or window is below 1.

    Example:
        >>> from mmattn import build_decoder
        >>> decoder = build_decoder(embed_dim=8, depth=2, num_heads=2, context=True).eval()
        >>> source = TokenBatch(torch.randn(9, 8), [4, 5])
        >>> decoder(TokenBatch(torch.randn(5, 8), [3, 2]), source).values.shape
        torch.Size([5, 8])
        >>> with torch.inference_mode():
        ...     state = decoder.start(source)
        ...     prompt = decoder.step(torch.randn(2, 3, 8), state)
        ...     new = decoder.step(torch.randn(2, 1, 8), state)
        >>> prompt.shape, new.shape, state
        (torch.Size([2, 3, 8]), torch.Size([2, 1, 8]), DecoderState(batch_size=2, length=4, with a context))
    """

    def __init__(
        self,
        blocks: Sequence[DecoderBlock],
        norm: nn.Module,
        positions: nn.Module | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if not blocks:
            raise ValueError("a decoder needs at least one block: got none")
        if len({block.cross_attention is None for block in blocks}) > 1:
            raise ValueError("all blocks must have cross-attention, or none: got both")
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1: got {window}")
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.positions = positions
        self.window = window
        self.mask: Pattern = Causal() if window is None else Causal() & Window(window - 1, 0)

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return cast(DecoderBlock, self.blocks[0]).attention.embed_dim

    @property
    def _layers(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", list(self.blocks))

    def forward(
        self,
        targets: TokenBatch | Tensor,
        context: TokenBatch | Tensor | None = None,
        *,
        mask: Pattern | None = None,
    ) -> TokenBatch | Tensor:
        """All targets at once (teacher forcing).

        Args:
            targets: packed tokens ``[T, D]`` or dense ``[B, N, D]``.
            context: what cross-attention attends to, one sequence for each of the targets: packed or dense,
                whatever the targets are.
            mask: a pattern over the positions inside each sequence of the targets, in place of the decoder's own;
                ``Causal() | Prefix(length)`` makes a prefix language model.

        Returns:
            Of the same kind and shape as the targets.

        Raises:
            ValueError: the decoder has cross-attention and there is no context, or the reverse, or shapes differ.
        """
        if isinstance(targets, Tensor):
            if targets.ndim != 3:
                raise ValueError(f"targets must be [B, N, D] or packed: got shape {list(targets.shape)}")
            packed = self.forward(TokenBatch.from_padded(targets), context, mask=mask)
            return cast(TokenBatch, packed).values.view(targets.shape)
        context = TokenBatch.from_padded(context) if isinstance(context, Tensor) else context
        tokens = targets if self.positions is None else self.positions(targets)
        tables: dict[tuple[int, int], Tensor] = {}
        for block in self._layers:
            shared = _tables(block.attention, tokens.coords, tokens.values.dtype, tables)
            tokens = block(tokens, context, mask=self.mask if mask is None else mask, tables=shared)
        return targets.replace(self.norm(tokens.values))

    def start(
        self,
        context: TokenBatch | Tensor | None = None,
        batch_size: int | None = None,
        capacity: int | None = None,
    ) -> DecoderState:
        """The state before the first token.

        Args:
            context: what cross-attention attends to; its keys and values are computed here, once.
            batch_size: sequences B; ``None`` takes that of the context or of the first step.
            capacity: take room for this many tokens at once; ``None`` grows, and so does a window.

        Raises:
            ValueError: the decoder has cross-attention and there is no context, or the reverse, or the numbers
                of sequences differ.
        """
        crosses = [block.cross_attention for block in self._layers]
        if (context is None) != (crosses[0] is None):
            raise ValueError(
                "a decoder with cross-attention needs a context: got none"
                if context is None
                else "a decoder without cross-attention takes no context: got one"
            )
        memories = []
        if context is not None:
            batch_size = len(context) if batch_size is None else batch_size
            if len(context) != batch_size:
                raise ValueError(
                    f"batch_size must be that of the context: got {batch_size} for {len(context)} sequences"
                )
            memories = [cross.remember(context) for cross in crosses if cross is not None]
        caches = [KVCache(None if self.window is not None else capacity, self.window) for _ in self._layers]
        return DecoderState(caches, memories, batch_size)

    def step(self, x: Tensor, state: DecoderState, *, mask: Mask = None) -> Tensor:
        """Decode new tokens: the same as :meth:`forward` over all tokens so far, in the place of the new ones.

        Args:
            x: ``[B, N, D]``, the next N tokens of each sequence.
            state: is moved on by N tokens.
            mask: for the new tokens (queries) and all tokens kept (keys), whose tail they are, in place of the
                decoder's own. A pattern that is no band needs a decoder without a window.

        Returns:
            ``[B, N, D]``.

        Raises:
            ValueError: shapes do not fit the decoder or the state, a cache is full, gradients are wanted, or an
                earlier step with this state failed half-way.
        """
        self._check_step(x, state, mask)
        new, begin = x.shape[1], state.length
        if mask is None and new != 1:
            mask = self.mask  # a single token sees all that is kept
        coords = None
        if self.positions is not None or state.memories:
            coords = torch.arange(begin, begin + new, device=x.device)[:, None]
        if self.positions is not None:
            assert coords is not None
            placed = TokenBatch(x.flatten(0, 1), [new] * len(x), coords.repeat(len(x), 1))
            x = self.positions(placed).values.view(x.shape)
        shared: dict[tuple[int, int], Tensor] = {}
        for index, (block, cache) in enumerate(zip(self.blocks, state.caches, strict=True)):
            attention, tables = cast(DecoderBlock, block).attention, None
            if attention.positions is not None:
                key = (id(attention.positions), attention.head_dim)
                if key not in shared:
                    shared[key] = state.tables_of(attention, x)
                tables = shared[key]
            memory = state.memories[index] if state.memories else None
            x = block(x, memory, mask=mask, tables=tables, cache=cache, coords=coords)
        state.length, state.batch_size = begin + new, len(x)
        return cast(Tensor, self.norm(x))

    def _check_step(self, x: Tensor, state: DecoderState, mask: Mask) -> None:
        if x.ndim != 3 or x.shape[2] != self.embed_dim or x.shape[1] < 1:
            raise ValueError(
                f"x must be [B, N, D] with N of at least 1 and D={self.embed_dim}: got shape {list(x.shape)}"
            )
        if state.batch_size is not None and state.batch_size != len(x):
            raise ValueError(f"x must have the {state.batch_size} sequences of the state: got {len(x)}")
        if len(state.caches) != len(self.blocks):
            raise ValueError(
                f"a state must have a cache for each of {len(self.blocks)} blocks: got {len(state.caches)}"
            )
        if state.caches[0].length != state.length:
            raise ValueError("a state must come from whole steps: got one whose last step failed half-way")
        if mask is None or self.window is None:
            return
        if not isinstance(mask, Pattern) or mask.band(1, 1) is None:
            raise ValueError(
                f"a decoder with a window keeps no early tokens, so a step's mask must be a band: got {mask!r}"
            )


def _tables(
    attention: MultiHeadAttention, coords: Tensor, dtype: torch.dtype, made: dict[tuple[int, int], Tensor]
) -> Tensor | None:
    """Rotary tables; blocks that share the module share them."""
    rotary = attention.positions
    if rotary is None:
        return None
    key = (id(rotary), attention.head_dim)
    if key not in made:
        made[key] = rotary.tables(coords, attention.head_dim, dtype)
    return made[key]


__all__ = ["Decoder", "DecoderBlock", "DecoderState"]
