"""Pictures as the tokens of a vision transformer: patches, positions, and what stands in front of them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmattn.adapters.base import Adapter
from mmattn.adapters.image import ImagePatches, Images
from mmattn.dropout import Dropout
from mmattn.registers import Registers
from mmattn.tokens import TokenBatch
from mmattn.vit.positions import GridPositions


class PictureTokens(Adapter):
    """Patches with learned positions and learned tokens in front (Dosovitskiy et al. 2021; Darcet et al. 2024).

    It is an adapter like :class:`~mmattn.adapters.image.ImagePatches`: pictures of any sizes go into one batch.

    Args:
        patches: cuts and embeds the pictures.
        positions: learned positions of the patches; ``None`` where the encoder turns queries and keys.
        prefix: class token and registers, which have no position.
        dropout: on the tokens.

    Raises:
        ValueError: the parts have different widths.

    Example:
        >>> patches = ImagePatches(embed_dim=8, patch_size=4)
        >>> tokens = PictureTokens(patches, GridPositions((2, 2), 8), Registers(1, 8))
        >>> tokens([torch.rand(3, 16, 24), torch.rand(3, 8, 8)]).sizes
        (25, 5)
    """

    def __init__(
        self,
        patches: ImagePatches,
        positions: GridPositions | None = None,
        prefix: Registers | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [part.table.shape[-1] for part in (positions, prefix) if part is not None]
        if set(widths) - {patches.embed_dim}:
            raise ValueError(
                f"all parts must have the width of the patches, {patches.embed_dim}: got {widths}"
            )
        self.embed_dim = patches.embed_dim
        self.patches = patches
        self.positions = positions
        self.prefix = prefix
        self.dropout = Dropout(dropout)

    @property
    def prefix_length(self) -> int:
        """Tokens in front of each picture's patches."""
        return 0 if self.prefix is None else len(self.prefix.table)

    def forward(self, items: Images) -> TokenBatch:
        """Tokens of pictures ``[B, C, H, W]``, or of a sequence of B pictures ``[C, H, W]`` of any sizes."""
        tokens: TokenBatch = self.patches(items)
        if self.positions is not None:
            tokens = self.positions(tokens, self.patches.grids(items))
        if self.prefix is not None:
            tokens = cast(TokenBatch, self.prefix(tokens))
        return tokens.replace(self.dropout(tokens.values))

    def stack(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """The same tokens of pictures of one size ``[B, C, H, W]``, dense.

        Returns:
            Tokens ``[B, N, D]`` and their places ``[N, 2]``; what stands in front is at (0, 0).
        """
        features = self.patches.features(pictures)
        rows, columns = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        if self.positions is not None:
            tokens = tokens + self.positions.grid(rows, columns).flatten(0, 1)
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
        coords = torch.cat([places.new_zeros(self.prefix_length, 2), places]).to(tokens.device)
        if self.prefix is not None:
            tokens = self.prefix(tokens)
        return self.dropout(tokens), coords

    def regions(self, items: Images) -> list[Tensor]:
        """For each picture the pixel boxes ``[n, 4]`` of its tokens; what stands in front sees all of the picture."""
        boxes = []
        for picture, patches in zip(items, self.patches.regions(items), strict=True):
            whole = torch.tensor([[0, 0, picture.shape[-2], picture.shape[-1]]])
            boxes.append(torch.cat([whole.expand(self.prefix_length, 4), patches]))
        return boxes

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm."""
        parts: dict[str, nn.Module | None] = {"positions": self.positions, "prefix": self.prefix}
        return {f"{name}.table" for name, part in parts.items() if part is not None}
