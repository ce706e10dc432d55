"""Attention weights as short text: a byte each, deflated, in base64."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Literal

import torch
from torch import Tensor

Domain = Literal["vision", "speech", "text"]

#: Of the largest weight of a row, which is kept in 16 bits.
_WHOLE = 65535


def packed_weights(weights: Tensor) -> str:
    """Weights ``[H, N, M]`` in [0, 1] as text.

    Each row is kept as its largest weight (16 bits, the low byte first) and bytes that count 255ths of it. All rows'
    largest weights come first, then all bytes; the whole is deflated (zlib) and written in base64.

    Example:
        >>> text = packed_weights(torch.tensor([[[0.25, 0.75]]]))
        >>> weights_from(text, (1, 1, 2))
        tensor([[[0.2500, 0.7500]]])
    """
    weights = weights.detach().float().cpu().clamp(0, 1)
    largest = weights.amax(-1, keepdim=True)
    # rounded up, so that no weight lies above it
    scales = (largest * _WHOLE).ceil().clamp(max=_WHOLE)
    levels = (weights * _WHOLE * 255 / scales.clamp(min=1)).round().clamp(max=255).to(torch.uint8)
    flat = scales.to(torch.int64).flatten()
    pairs = torch.stack([flat % 256, flat // 256], dim=1).to(torch.uint8)
    data = bytes(pairs.flatten().tolist()) + bytes(levels.flatten().tolist())
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def weights_from(text: str, shape: tuple[int, int, int]) -> Tensor:
    """What :func:`packed_weights` packed, to 1/510 of each row's largest weight.

    Raises:
        ValueError: the text is damaged, or of another shape.
    """
    heads, rows, columns = shape
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"packed weights must be deflated bytes in base64: got {error}") from error
    if len(data) != heads * rows * (columns + 2):
        raise ValueError(f"packed weights must be of {heads} x {rows} x {columns}: got {len(data)} bytes")
    values = torch.frombuffer(bytearray(data), dtype=torch.uint8).float()
    pairs, levels = values[: 2 * heads * rows].view(heads, rows, 2), values[2 * heads * rows :]
    largest = (pairs[..., 0] + 256 * pairs[..., 1]) / _WHOLE
    return levels.view(heads, rows, columns) / 255 * largest[..., None]
