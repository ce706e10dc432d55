"""VisionTransformer: pictures of any sizes in one batch, to classes."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmattn.adapters.image import Images
from mmattn.blocks import Block
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch
from mmattn.vit.head import PictureHead
from mmattn.vit.tokens import PictureTokens


class VisionTransformer(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021) that takes pictures of several resolutions and aspects at once.

    A list of pictures is packed end to end, without padding and without resizing; a picture's result does not
    depend on the others. A stack ``[B, C, H, W]`` goes through the same blocks as a dense tensor, which
    ``torch.compile`` and ``torch.export`` take.

    Args:
        adapter: pictures -> tokens.
        encoder: tokens -> tokens, of the same width. Positions that it adds are refused: they belong to the adapter.
        head: tokens -> classes.

    Raises:
        ValueError: the parts do not fit each other.

    Example:
        >>> from mmattn.vit import build_vit
        >>> model = build_vit("vit_pico_conv4_32", num_classes=7).eval()
        >>> model([torch.rand(3, 32, 48), torch.rand(3, 20, 20)]).shape
        torch.Size([2, 7])
    """

    def __init__(self, adapter: PictureTokens, encoder: Encoder, head: PictureHead) -> None:
        super().__init__()
        widths = adapter.embed_dim, encoder.embed_dim, head.embed_dim
        if len(set(widths)) > 1:
            raise ValueError(f"adapter, encoder and head must have the same embed_dim: got {widths}")
        if adapter.prefix_length != head.prefix_length:
            raise ValueError(
                f"adapter and head must agree on the tokens in front: "
                f"got {adapter.prefix_length} and {head.prefix_length}"
            )
        if encoder.positions is not None:
            raise ValueError(
                f"positions belong to the adapter: got an encoder with {type(encoder.positions).__name__}"
            )
        self.adapter = adapter
        self.encoder = encoder
        self.head = head
        self.grad_checkpointing = False

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return self.adapter.embed_dim

    def forward(self, items: Images) -> Tensor:
        """Logits ``[B, C]`` of pictures ``[B, C, H, W]``, or of B pictures ``[C, H, W]`` of any sizes."""
        return cast(Tensor, self.head(self.features(items)))

    def features(self, items: Images) -> TokenBatch | Tensor:
        """Normed tokens: dense ``[B, N, D]`` of a stack, packed ``[T, D]`` of a list."""
        if isinstance(items, Tensor):
            tokens, _ = self.through_blocks(*self.adapter.stack(items))
            return cast(Tensor, self.encoder.norm(tokens))
        packed: TokenBatch = self.adapter(items)
        tokens, _ = self.through_blocks(packed, packed.coords)
        return packed.replace(self.encoder.norm(cast(TokenBatch, tokens).values))

    def through_blocks(
        self, tokens: TokenBatch | Tensor, coords: Tensor, keep: Collection[int] = (), last: int | None = None
    ) -> tuple[TokenBatch | Tensor, list[TokenBatch | Tensor]]:
        """Tokens behind the blocks, before the last norm.

        Args:
            tokens: packed ``[T, D]`` or dense ``[B, N, D]``.
            coords: their places, ``[T, 2]`` or ``[N, 2]``.
            keep: blocks whose output is to be kept.
            last: the last block to go through; ``None`` goes through all.

        Returns:
            The tokens, and those behind each block of ``keep``, in order.
        """
        made: dict[tuple[int, int], Tensor] = {}  # blocks that share rotary positions share their tables
        kept: list[TokenBatch | Tensor] = []
        saving = self.grad_checkpointing and torch.is_grad_enabled() and isinstance(tokens, Tensor)
        values = tokens if isinstance(tokens, Tensor) else tokens.values
        blocks = cast("list[Block]", list(self.encoder.blocks))
        for index, block in enumerate(blocks[: None if last is None else last + 1]):
            rotary, tables = block.attention.positions, None
            if rotary is not None:
                key = (id(rotary), block.attention.head_dim)
                if key not in made:
                    made[key] = rotary.tables(coords, block.attention.head_dim, values.dtype)
                tables = made[key]
            if saving:
                tokens = checkpoint(block, tokens, tables=tables, use_reentrant=False)
            else:
                tokens = block(tokens, tables=tables)
            if index in keep:
                kept.append(tokens)
        return tokens, kept

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm: positions, learned tokens, the pooling query."""
        names = {f"adapter.{name}" for name in self.adapter.no_weight_decay()}
        return names if self.head.attention is None else {*names, "head.attention.query"}
