"""Random changes of whole batches of small pictures, drawn for each picture on its own."""

from __future__ import annotations

from typing import Literal

import torch
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

Policy = Literal["none", "rand", "trivial"]

OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
BINS = 31
"""Strengths that an operation is drawn among, as in torchvision: shares 0/30 to 30/30 of its limit."""

# Limits of shear, shift (in sides for "rand", in pixels for "trivial"), degrees, blending and bits taken away.
_LIMITS = {"rand": (0.3, 150 / 331, 30.0, 0.9, 4), "trivial": (0.99, 32.0, 135.0, 0.99, 6)}
_SIGNED = frozenset(OPERATIONS[1:10])
_RAND_OPS, _RAND_BIN = 2, 9  # of RandAugment, torchvision's defaults


def crop_and_flip(pixels: Tensor, padding: int, flip: bool) -> Tensor:
    """Shift each picture of a batch by its own offset and mirror half of them.

    The same distribution as ``v2.RandomCrop(side, padding)`` and ``v2.RandomHorizontalFlip()`` on each
    picture; those draw one offset for a whole batch, and a call per picture costs ten times as much.

    Args:
        pixels: batch of pictures ``[B, C, H, W]``.
        padding: black pixels put around each picture before an ``H`` by ``W`` window is cut out.
        flip: mirror half of the pictures left to right.
    """
    batch, channels, height, width = pixels.shape
    padded = v2.functional.pad(pixels, [padding]) if padding else pixels
    top = torch.randint(0, 2 * padding + 1, (batch, 1))
    left = torch.randint(0, 2 * padding + 1, (batch, 1))
    columns = torch.arange(width).expand(batch, width)
    if flip:
        columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
    rows = (top + torch.arange(height)).unsqueeze(2) * (width + 2 * padding)
    source = (rows + (left + columns).unsqueeze(1)).view(batch, 1, -1).expand(-1, channels, -1)
    return padded.view(batch, channels, -1).gather(2, source).view_as(pixels)


class BatchPolicy:
    """RandAugment (Cubuk et al. 2020) or TrivialAugment (Müller and Hutter 2021) on a batch of pictures.

    Operations, strengths and probabilities are those of torchvision's ``v2.RandAugment()`` and
    ``v2.TrivialAugmentWide()``, which draw one operation for a whole batch; here each picture draws its own, and
    pictures that drew the same operation go through it together, each with its own strength.

    Args:
        policy: ``"rand"``: two operations a picture, at 9/30 of their limits; ``"trivial"``: one, at any strength.

    Example:
        >>> pixels = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
        >>> BatchPolicy("trivial")(pixels).shape
        torch.Size([5, 3, 8, 8])
    """

    def __init__(self, policy: Literal["rand", "trivial"]) -> None:
        if policy not in _LIMITS:
            raise ValueError(f"policy must be 'rand' or 'trivial': got {policy!r}")
        self.policy = policy

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` (uint8) to changed ones."""
        for _ in range(_RAND_OPS if self.policy == "rand" else 1):
            pixels = self._once(pixels)
        return pixels

    def _once(self, pixels: Tensor) -> Tensor:
        count = len(pixels)
        chosen = torch.randint(len(OPERATIONS), (count,))
        bins = torch.randint(BINS, (count,)) if self.policy == "trivial" else torch.full((count,), _RAND_BIN)
        signs = torch.where(torch.rand(count) <= 0.5, -1.0, 1.0)
        changed = pixels.clone()
        for index in chosen.unique().tolist():
            rows = (chosen == index).nonzero()[:, 0]
            changed[rows] = self.apply(OPERATIONS[index], pixels[rows], bins[rows], signs[rows])
        return changed

    def apply(self, name: str, pixels: Tensor, bins: Tensor, signs: Tensor) -> Tensor:
        """One operation on pictures ``[n, 3, H, W]`` (uint8), with the strength ``bins`` ``[n]`` of each, 0 to 30,
        and a sign ``[n]`` where the operation has two directions."""
        if name == "Identity":
            return pixels
        if name == "AutoContrast":
            return v2.functional.autocontrast(pixels)
        if name == "Equalize":
            return v2.functional.equalize(pixels)
        shares = bins.double() / (BINS - 1)
        shear, shift, degrees, blending, bits = _LIMITS[self.policy]
        if name == "Posterize":
            kept = (8 - shares * bits).round().int()
            return pixels & (255 - (255 >> kept)).to(torch.uint8).view(-1, 1, 1, 1)
        if name == "Solarize":
            over = pixels >= (255 * (1 - shares)).float().view(-1, 1, 1, 1)
            return torch.where(over, 255 - pixels, pixels)
        signed = shares * signs.double()
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            return _blended(pixels, _degenerate(name, pixels), 1 + signed * blending)
        height, width = pixels.shape[-2:]
        across, down = (width, height) if self.policy == "rand" else (1, 1)
        limit = {"Rotate": degrees, "TranslateX": shift * across, "TranslateY": shift * down}.get(name, shear)
        return _warped(pixels, _inverse_matrix(name, signed * limit, height, width))


class PixelAugment:
    """What is done at random to a batch of pictures of one size in training.

    Args:
        crop_padding: pad by so many pixels and crop at random; 0 leaves it out.
        flip: mirror half of the pictures left to right.
        policy: ``"rand"`` or ``"trivial"`` as in :class:`BatchPolicy`.
        random_erasing: probability that a rectangle is set to zero after normalisation (timm's).

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self, crop_padding: int = 4, flip: bool = True, policy: Policy = "none", random_erasing: float = 0.0
    ) -> None:
        if crop_padding < 0:
            raise ValueError(f"crop_padding must not be negative: got {crop_padding}")
        if not 0 <= random_erasing <= 1:
            raise ValueError(f"random_erasing must lie in [0, 1]: got {random_erasing}")
        self.crop_padding = crop_padding
        self.flip = flip
        self.policy = None if policy == "none" else BatchPolicy(policy)
        self.erasing = RandomErasing(random_erasing, device="cpu") if random_erasing else None

    def pixels(self, batch: Tensor) -> Tensor:
        """Before normalisation, ``[B, 3, H, W]`` (uint8)."""
        if self.crop_padding or self.flip:
            batch = crop_and_flip(batch, self.crop_padding, self.flip)
        return batch if self.policy is None else self.policy(batch)

    def floats(self, batch: Tensor) -> Tensor:
        """After normalisation; changes the batch in place."""
        return batch if self.erasing is None else self.erasing(batch)


def policy_of(rand_augment: bool, trivial_augment: bool) -> Policy:
    """The policy that two switches ask for.

    Raises:
        ValueError: both are on.
    """
    if rand_augment and trivial_augment:
        raise ValueError("rand_augment and trivial_augment exclude each other: got both")
    return "rand" if rand_augment else "trivial" if trivial_augment else "none"


def _degenerate(name: str, pixels: Tensor) -> Tensor:
    """What a picture is blended with, float: black, its grey self, its mean grey, or its blurred self."""
    wide = pixels.float()
    if name == "Brightness":
        return torch.zeros_like(wide)
    if name == "Sharpness":
        kernel = torch.full((3, 1, 3, 3), 1 / 13)
        kernel[:, :, 1, 1] = 5 / 13
        wide[..., 1:-1, 1:-1] = F.conv2d(wide, kernel, groups=3).round_()
        return wide
    red, green, blue = wide.unbind(1)
    grey = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()[:, None]
    return grey if name == "Color" else grey.mean(dim=(1, 2, 3), keepdim=True)


def _blended(pixels: Tensor, other: Tensor, ratios: Tensor) -> Tensor:
    """``ratio * picture + (1 - ratio) * other`` with a ratio ``[n]`` of each picture."""
    weights = ratios.float().view(-1, 1, 1, 1)
    return (pixels * weights + other * (1 - weights)).clamp_(0, 255).to(torch.uint8)


def _inverse_matrix(name: str, amounts: Tensor, height: int, width: int) -> Tensor:
    """From the target's places to the source's ``[n, 2, 3]``, in pixels around the middle of the picture."""
    matrix = torch.eye(2, 3, dtype=torch.float64).repeat(len(amounts), 1, 1)
    if name == "ShearX":
        matrix[:, 0, 1], matrix[:, 0, 2] = amounts, amounts * height / 2
    elif name == "ShearY":
        matrix[:, 1, 0], matrix[:, 1, 2] = amounts, amounts * width / 2
    elif name == "TranslateX":
        matrix[:, 0, 2] = -amounts.trunc()
    elif name == "TranslateY":
        matrix[:, 1, 2] = -amounts.trunc()
    else:
        angles = amounts.deg2rad()
        matrix[:, 0, 0] = matrix[:, 1, 1] = angles.cos()
        matrix[:, 0, 1], matrix[:, 1, 0] = -angles.sin(), angles.sin()
    return matrix.float()


def _warped(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Each picture through its own matrix, nearest pixels, black outside."""
    height, width = pixels.shape[-2:]
    across = torch.linspace((1.0 - width) / 2, (width - 1.0) / 2, width).expand(height, width)
    down = torch.linspace((1.0 - height) / 2, (height - 1.0) / 2, height)[:, None].expand(height, width)
    places = torch.stack([across, down, torch.ones(height, width)], dim=-1).view(1, -1, 3)
    scaled = matrix.transpose(1, 2) / torch.tensor([0.5 * width, 0.5 * height])
    grid = places.expand(len(pixels), -1, -1).bmm(scaled).view(-1, height, width, 2)
    return F.grid_sample(pixels.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)
