"""Rotary positions over any number of axes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RotaryPositions(nn.Module):
    """Turns pairs of features of queries and keys by an angle that grows with the position (Su et al. 2021).

    The product of a turned query and key depends on the difference of their coordinates alone. With A axes
    the pairs are shared out equally among the axes, the first axis first (axial rotary); what is left over
    is not turned. So one module, which has no parameters, serves sound and text (A = 1) and pictures (A = 2).

    Args:
        base: the slowest pair turns by ``1 / base`` radians a step, nearly. See :func:`ntk_base`.
        rotary_dim: only the first ``rotary_dim`` of the K features are turned (partial rotary, GPT-J and
            GPT-NeoX); ``None`` turns all.
        interpolation: coordinates are divided by it: linear position interpolation (Chen et al. 2023).
        interleaved: True pairs neighbours ``(2 i, 2 i + 1)``, as in the paper, GPT-J and x-transformers.
            False pairs ``(i, i + rotary_dim / 2)``: the layout of weights for ``rotate_half`` of Llama and
            GPT-NeoX in transformers. The two differ in the order of features alone.

    Raises:
        ValueError: base is not above 1, rotary_dim not even and positive, or interpolation not positive.

    Example:
        >>> rotary = RotaryPositions()
        >>> q, coords = torch.randn(5, 2, 8), torch.arange(5)[:, None]
        >>> rotary.rotate(q, rotary.tables(coords, head_dim=8)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        base: float = 10_000.0,
        *,
        rotary_dim: int | None = None,
        interpolation: float = 1.0,
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"base must be above 1: got {base}")
        if rotary_dim is not None and (rotary_dim < 2 or rotary_dim % 2):
            raise ValueError(f"rotary_dim must be even and at least 2: got {rotary_dim}")
        if not interpolation > 0:
            raise ValueError(f"interpolation must be above 0: got {interpolation}")
        self.base = base
        self.rotary_dim = rotary_dim
        self.interpolation = interpolation
        self.interleaved = interleaved

    def tables(self, coords: Tensor, head_dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Cosine and sine of each pair's angle, ``[..., P, 2]`` for coordinates ``[..., A]``.

        P is half of rotary_dim, or of head_dim where that is ``None``. ``dtype`` is that of the queries: float64
        gives float64, all others float32. Angles are float64 until then, so that large coordinates (seconds
        of a long recording in samples) lose nothing.

        Raises:
            ValueError: the features to turn are odd in number, less than a pair for each axis, or more than
                head_dim.
        """
        axes = coords.shape[-1]
        features = self._features(head_dim, axes)
        pairs = features // 2 // axes
        if coords.device.type == "mps":  # has no float64
            return self.tables(coords.cpu(), head_dim, dtype).to(coords.device)
        steps = torch.arange(pairs, device=coords.device, dtype=torch.float64)
        speeds = self.base ** -(steps / pairs) / self.interpolation
        angles = (coords.double()[..., None] * speeds).flatten(-2)
        left_over = features // 2 - angles.shape[-1]
        if left_over:
            angles = nn.functional.pad(angles, (0, left_over))
        turns = torch.stack((angles.cos(), angles.sin()), dim=-1)
        return turns.to(torch.float64 if dtype == torch.float64 else torch.float32)

    def _features(self, head_dim: int, axes: int) -> int:
        """How many features of a head are turned."""
        features = head_dim if self.rotary_dim is None else self.rotary_dim
        if features > head_dim:
            raise ValueError(
                f"rotary_dim must be at most head_dim: got rotary_dim={features}, head_dim={head_dim}"
            )
        if features % 2 or features < 2 * axes:
            name = "head_dim" if self.rotary_dim is None else "rotary_dim"
            raise ValueError(
                f"{name} must be even and at least 2 for each axis: got {name}={features}, axes={axes}"
            )
        return features

    def rotate(self, x: Tensor, tables: Tensor) -> Tensor:
        """Turn ``[..., H, K]`` by tables ``[..., P, 2]``; keeps the dtype, half precision is turned in float32.

        Raises:
            ValueError: the tables turn more than the K features of a head.
        """
        features = 2 * tables.shape[-2]
        if features > x.shape[-1]:
            raise ValueError(f"tables must turn at most the K={x.shape[-1]} features of x: got {features}")
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        rest = wide[..., features:]
        wide = wide[..., :features]
        tables = tables[..., None, :, :].to(wide.dtype)
        turned = _turn_neighbours(wide, tables) if self.interleaved else _turn_halves(wide, tables)
        if rest.shape[-1]:
            turned = torch.cat((turned, rest), dim=-1)
        return turned.to(x.dtype)

    def extra_repr(self) -> str:
        partial = "" if self.rotary_dim is None else f", rotary_dim={self.rotary_dim}"
        stretch = "" if self.interpolation == 1 else f", interpolation={self.interpolation:g}"
        layout = "" if self.interleaved else ", interleaved=False"
        return f"base={self.base:g}{partial}{stretch}{layout}"


def ntk_base(base: float, factor: float, rotary_dim: int) -> float:
    """The base that stretches the slowest pair's wavelength ``factor`` times and leaves the fastest as it is.

    "NTK-aware" scaling: a model takes ``factor`` times longer input without training, and unlike
    ``interpolation`` near positions stay as distinct as they were. The formula is bloc97's, as in
    x-transformers (``base_rescale_factor``) and in transformers (``rope_type="dynamic"``).

    Args:
        base: the base that the model was trained with.
        factor: how many times longer the input may be.
        rotary_dim: features turned for one axis: K, or K / A with A axes.

    Raises:
        ValueError: rotary_dim is not even and at least 4, since a single pair has one wavelength, or factor is
            not positive.

    Example:
        >>> rotary = RotaryPositions(ntk_base(10_000.0, factor=4.0, rotary_dim=64))
        >>> round(rotary.base)
        41829
    """
    if rotary_dim < 4 or rotary_dim % 2:
        raise ValueError(f"rotary_dim must be even and at least 4: got {rotary_dim}")
    if not factor > 0:
        raise ValueError(f"factor must be above 0: got {factor}")
    return float(base * factor ** (rotary_dim / (rotary_dim - 2)))


def _turn_neighbours(x: Tensor, tables: Tensor) -> Tensor:
    """Turn the pairs ``(2 i, 2 i + 1)``."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic, and knows no complex one
        (a, b), (cos, sin) = pairs.unbind(-1), tables.unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    # one complex product: several times faster on a CPU than four real ones and a concatenation
    if not _complex_view_exists(pairs):
        pairs = pairs.contiguous()
    turned = torch.view_as_complex(pairs) * torch.view_as_complex(tables)
    return torch.view_as_real(turned).flatten(-2)


def _turn_halves(x: Tensor, tables: Tensor) -> Tensor:
    """Turn the pairs ``(i, i + half)``; the fastest form on a CPU that autograd takes."""
    cos, sin = tables.unbind(-1)
    partners = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * torch.cat((cos, cos), dim=-1), partners, torch.cat((-sin, sin), dim=-1))


def _complex_view_exists(pairs: Tensor) -> bool:
    """Heads of odd width and transposed tensors lie so that no pair is one complex number in place."""
    *outer, inner = pairs.stride()
    return inner == 1 and pairs.storage_offset() % 2 == 0 and all(stride % 2 == 0 for stride in outer)
