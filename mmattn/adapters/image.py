"""Pictures of any resolution and aspect ratio as packed patch tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.adapters.base import Adapter, group_equal, keep_variance
from mmattn.tokens import TokenBatch

Images = Tensor | Sequence[Tensor]


class ImagePatches(Adapter):
    """Cuts pictures into patches and embeds each (Dosovitskiy et al. 2021), packed, with 2-D coordinates.

    Pictures whose sides are no multiples of the patch size are filled up with zeros on the right and below.

    Args:
        embed_dim: width D of the tokens.
        patch_size: side of a patch in pixels; with a convolutional stem a power of two, its total stride.
        in_channels: channels C of the pictures.
        stem: ``"linear"`` embeds each patch on its own; ``"conv"`` uses overlapping 4x4 convolutions with
            stride 2 (Xiao et al. 2021), which help small data and short training.
        stem_dim: channels of the convolutional stem's first layer, a 3x3 convolution at full resolution; the
            strided ones behind it double theirs up to ``embed_dim``.
        stem_blocks: residual blocks of two 3x3 convolutions behind each strided one (He et al. 2016, without norms:
            the second convolution begins at zero).

    Raises:
        ValueError: an argument does not fit.

    Example:
        >>> patches = ImagePatches(embed_dim=8, patch_size=4)
        >>> patches([torch.rand(3, 16, 24), torch.rand(3, 8, 8)])
        TokenBatch(2 sequences, 28 tokens, lengths 4..24, values [28, 8] float32, coords [28, 2], cpu)
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: int = 16,
        in_channels: int = 3,
        stem: str = "linear",
        stem_dim: int = 32,
        stem_blocks: int = 0,
    ) -> None:
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1: got {patch_size}")
        if stem not in ("linear", "conv"):
            raise ValueError(f"stem must be 'linear' or 'conv': got {stem!r}")
        if stem_blocks < 0 or (stem_blocks and stem == "linear"):
            raise ValueError(
                f"stem_blocks must be at least 0, and 0 for a linear stem: got {stem_blocks}, stem={stem!r}"
            )
        self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.in_channels = in_channels
        if stem == "linear":
            self.embed: nn.Module = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        else:
            self.embed = _conv_stem(in_channels, embed_dim, patch_size, stem_dim, stem_blocks)
        keep_variance(self.embed)
        for part in self.embed.modules():
            if isinstance(part, ResidualConvs):
                nn.init.zeros_(part.second.weight)

    def forward(self, items: Images) -> TokenBatch:
        """Tokens of pictures ``[B, C, H, W]``, or of a sequence of B pictures ``[C, H, W]`` of any sizes.

        Raises:
            ValueError: a picture has other channels, or no pixel.
            TypeError: a picture is not floating-point.
        """
        if isinstance(items, Tensor):
            return self._embed(items)
        if not items:
            raise ValueError("ImagePatches needs at least one picture: got none")
        for picture in items:
            self._check(picture, "a picture must be [C, H, W]", 3)
        groups = group_equal([picture.shape for picture in items])
        batches = [self._embed(torch.stack([items[i] for i in members])) for members in groups.values()]
        if len(batches) == 1:
            return batches[0]
        order = torch.tensor([i for members in groups.values() for i in members])
        return TokenBatch.concat(batches).select(torch.argsort(order))

    def regions(self, items: Images) -> list[Tensor]:
        """For each picture the pixel boxes ``[n, 4]`` of its tokens: top, left, bottom, right."""
        size = self.patch_size
        boxes = []
        for picture in items:
            corners = size * _grid(math.ceil(picture.shape[-2] / size), math.ceil(picture.shape[-1] / size))
            boxes.append(torch.cat([corners, corners + size], dim=1))
        return boxes

    def features(self, pictures: Tensor) -> Tensor:
        """Tokens of pictures of one size ``[B, C, H, W]`` where they lie, ``[B, D, rows, columns]``.

        Raises:
            ValueError: the pictures have other channels, or no pixel.
            TypeError: they are not floating-point.
        """
        self._check(pictures, "pictures must be [B, C, H, W]", 4)
        height, width = pictures.shape[-2:]
        fill = (-width % self.patch_size, -height % self.patch_size)
        if any(fill):
            pictures = F.pad(pictures, (0, fill[0], 0, fill[1]))
        if isinstance(self.embed, nn.Sequential):
            # a step of training with overlapping convolutions took 129 ms of a CPU so, 156 ms otherwise
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.embed(pictures)
        return features

    def grids(self, items: Images) -> list[tuple[int, int]]:
        """Rows and columns of each picture's tokens."""
        size = self.patch_size
        return [(-(-picture.shape[-2] // size), -(-picture.shape[-1] // size)) for picture in items]

    def _embed(self, pictures: Tensor) -> TokenBatch:
        """One group of equal shapes ``[G, C, H, W]``."""
        features = self.features(pictures)
        count, _, rows, columns = features.shape
        values = features.flatten(2).transpose(1, 2).reshape(-1, self.embed_dim)
        coords = _grid(rows, columns).to(values.device).repeat(count, 1)
        return TokenBatch(values, [rows * columns] * count, coords)

    def _check(self, pictures: Tensor, rule: str, ndim: int) -> None:
        if pictures.ndim != ndim or pictures.shape[-3] != self.in_channels or 0 in pictures.shape:
            raise ValueError(
                f"{rule} with C={self.in_channels} and at least one pixel: got shape {list(pictures.shape)}"
            )
        if not pictures.is_floating_point():
            raise TypeError(f"pictures must be floating-point (0..1, or normalised): got {pictures.dtype}")


class ResidualConvs(nn.Module):
    """Adds what two 3x3 convolutions with a GELU between them make of a picture, ``[B, C, H, W]`` to the same.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The picture and what is added to it."""
        added: Tensor = self.second(F.gelu(self.first(x)))
        return x + added


def _grid(rows: int, columns: int) -> Tensor:
    """Coordinates ``[rows * columns, 2]`` (row, column), row by row."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)


def _conv_stem(
    in_channels: int, embed_dim: int, patch_size: int, stem_dim: int, stem_blocks: int
) -> nn.Sequential:
    steps = int(math.log2(patch_size))
    if 2**steps != patch_size or steps < 1:
        raise ValueError(f"patch_size must be a power of two above 1 for a conv stem: got {patch_size}")
    widths = [stem_dim, *(max(embed_dim // 2**left, 1) for left in reversed(range(steps)))]
    layers: list[nn.Module] = [nn.Conv2d(in_channels, stem_dim, 3, padding=1), nn.GELU()]
    for index in range(steps):
        # an even kernel keeps each token at the middle of its patch, where odd ones would move it half a patch
        layers += [nn.Conv2d(widths[index], widths[index + 1], 4, stride=2, padding=1), nn.GELU()]
        layers += [ResidualConvs(widths[index + 1]) for _ in range(stem_blocks)]
    return nn.Sequential(*layers, nn.Conv2d(embed_dim, embed_dim, 1))
