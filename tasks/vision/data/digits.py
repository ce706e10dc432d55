"""Find the whole digit: handwritten digits among fragments of other digits.

Source: the 1,797 scans of handwritten digits that come inside scikit-learn (``sklearn.datasets.load_digits``,
the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0).
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mmattn.training.data import Example
from tasks.scenes import SceneData, SceneSet, TrainLevels

STANDARD_LEVEL = 3
"""Level of the comparison: three fragments on a canvas of 32 x 32 pixels."""

SIDE = 16
"""Height and width of a digit in pixels."""

SPLITS = {"train": (0, 1197), "val": (1197, 1297), "test": (1297, 1797)}
"""Start and stop of each set. The scans stay in the order of the source, which goes from writer to writer:
drawn at random, a writer's digits would lie in training and test alike."""

VARIANTS = 48
"""Variants of each training digit, itself among them."""

# Largest turn in radians, slant, change of size, and shifts in halves of the picture.
_DISTORTION = (0.25, 0.2, 0.15, 0.15, 0.15)
_DISTORTION_SEED = 10011

# Height and width of the pieces that a digit is cut into: two upright halves, two lying ones, four quarters.
_PIECES = ((SIDE, SIDE // 2), (SIDE // 2, SIDE), (SIDE // 2, SIDE // 2))
_MIN_INK = 8.0  # sum of a piece's values: paler ones are background
_TRIES = 128  # places tried before a scene is begun again


def canvas_side(level: int) -> int:
    """Height and width of a scene in pixels, a multiple of 4; digit and fragments fill about half."""
    return SIDE if level == 0 else 4 * -(-(75 + 7 * level) // 12)


def noise(level: int) -> float:
    """Standard deviation of the noise in a scene, in units of the brightest value."""
    return min(0.02 * level, 0.1)


class DigitScenes(SceneSet):
    """Whole digits, each among ``level`` fragments of digits of other classes.

    A scene is a picture ``[1, H, W]`` in 0..1, with the region of the whole digit in pixels. Level 0 is the
    digit alone. Above, the fragments are halves and quarters as large and as bright as those of the target;
    nothing overlaps.

    Args:
        digits: pictures ``[V, N, 16, 16]`` in 0..1, float32: V variants of N digits; a scene draws among them.
        labels: their digits, 0 to 9.
        level: number of fragments.
        train_levels: see :class:`~tasks.scenes.SceneSet`.
        seed: see :class:`~tasks.scenes.SceneSet`.
    """

    def __init__(
        self,
        digits: NDArray[np.float32],
        labels: NDArray[np.int64],
        level: int,
        train_levels: TrainLevels = "fixed",
        seed: int | None = None,
    ) -> None:
        super().__init__([str(digit) for digit in range(10)], labels.tolist(), level, train_levels, seed)
        self.variants = digits

    def compose(self, index: int, level: int, rng: np.random.Generator) -> Example:
        label = self.labels[index]
        if level == 0:
            return Example(torch.from_numpy(self._drawn(index, rng)[None].copy()), label, (0, 0, SIDE, SIDE))
        pieces = [self._drawn(index, rng), *(self._fragment(label, rng) for _ in range(level))]
        side = canvas_side(level)
        corners = _place([piece.shape for piece in pieces], side, rng)
        canvas = rng.standard_normal((side, side), dtype=np.float32) * np.float32(noise(level))
        for piece, (top, left) in zip(pieces, corners, strict=True):
            canvas[top : top + piece.shape[0], left : left + piece.shape[1]] += piece
        np.clip(canvas, 0, 1, out=canvas)
        top, left = corners[0]
        return Example(torch.from_numpy(canvas[None]), label, (top, left, top + SIDE, left + SIDE))

    def _drawn(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """One of the variants of a digit ``[16, 16]``."""
        count = len(self.variants)
        return self.variants[int(rng.integers(count)) if count > 1 else 0, index]

    def _fragment(self, label: int, rng: np.random.Generator) -> NDArray[np.float32]:
        while True:
            digit = self._drawn(self.other(label, rng), rng)
            height, width = _PIECES[rng.integers(len(_PIECES))]
            top = height * int(rng.integers(SIDE // height))
            left = width * int(rng.integers(SIDE // width))
            piece: NDArray[np.float32] = digit[top : top + height, left : left + width]
            if piece.sum() >= _MIN_INK:
                return piece

    def size(self, index: int) -> int:
        """Pixels of scene ``index``; with ``train_levels="mixed"`` the largest it can have."""
        return canvas_side(self.level) ** 2

    def content(self) -> str:
        content = hashlib.sha256(np.round(self.variants[0] * 1024).astype("<i2").tobytes())
        content.update(np.asarray(self.labels, dtype="<i2").tobytes())
        return content.hexdigest()


def _place(shapes: list[tuple[int, ...]], side: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Top left corners at which rectangles of these ``shapes`` lie apart on a square canvas."""
    while True:
        taken: list[tuple[int, int, int, int]] = []
        draws = iter(
            rng.random((_TRIES, 2)).tolist()
        )  # in one call, which costs as much as the search itself
        for height, width in shapes:
            for y, x in draws:
                top, left = int(y * (side - height + 1)), int(x * (side - width + 1))
                bottom, right = top + height, left + width
                for box in taken:
                    if box[0] < bottom and top < box[2] and box[1] < right and left < box[3]:
                        break
                else:
                    taken.append((top, left, bottom, right))
                    break
        if len(taken) == len(shapes):  # else the canvas was too crowded to go on: begin again
            return [(top, left) for top, left, _, _ in taken]


@cache
def _load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('Digits needs scikit-learn: pip install "mmattn[tasks]"') from error
    raw = load_digits()
    scans = torch.from_numpy(raw.images.astype(np.float32) / 16)[:, None]  # 17 grey values, 0 to 16
    large = F.interpolate(scans, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large[:, 0].numpy(), raw.target.astype(np.int64)


@cache
def _distorted() -> NDArray[np.float32]:
    """The training digits ``[V, N, 16, 16]``: as they are, and turned, slanted, scaled and shifted a little."""
    digits, _ = _load()
    start, stop = SPLITS["train"]
    plain = torch.from_numpy(digits[start:stop])
    generator = torch.Generator().manual_seed(_DISTORTION_SEED)
    variants = [plain]
    for _ in range(VARIANTS - 1):
        draw = torch.rand(5, len(plain), generator=generator) * 2 - 1
        angle, slant, stretch, right, down = draw * torch.tensor(_DISTORTION)[:, None]
        scale = 1 / (1 + stretch)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        rows = [torch.stack([cos, slant - sin, right]), torch.stack([sin, cos, down])]
        grid = F.affine_grid(
            torch.stack(rows).permute(2, 0, 1), [len(plain), 1, SIDE, SIDE], align_corners=False
        )
        variants.append(F.grid_sample(plain[:, None], grid, align_corners=False)[:, 0])
    return torch.stack(variants).numpy()


class Digits(SceneData):
    """Handwritten digits to be found among fragments: ten classes; 1,197 / 100 / 500 scenes.

    Args:
        level: number of fragments; 0 is plain digit recognition.
        train_levels: ``"fixed"`` trains at ``level``, ``"mixed"`` at levels drawn from 0 to ``level``.
        batch_size: examples per step.
        num_workers: worker processes of each loader; 0 loads in the main process.
        length_pool: batches sorted by size together in training.

    Raises:
        ImportError: scikit-learn is not installed (when the sets are built).
        ValueError: ``level`` is negative or ``train_levels`` unknown.

    Example:
        >>> scenes = Digits(level=3).sets["test"]
        >>> scenes[0].item.shape, len(scenes[0].relevant)
        (torch.Size([1, 32, 32]), 4)
    """

    def __init__(
        self,
        level: int = STANDARD_LEVEL,
        train_levels: TrainLevels = "fixed",
        batch_size: int = 64,
        num_workers: int = 0,
        length_pool: int = 16,
    ) -> None:
        super().__init__(level, train_levels, batch_size, num_workers, length_pool)

    @property
    def inputs(self) -> dict[str, Any]:
        """Grey values are in 0..1 as they are."""
        return {"mean": [0.0], "std": [1.0]}

    def scenes(self, name: str, level: int, seed: int | None) -> DigitScenes:
        digits, labels = _load()
        start, stop = SPLITS[name]
        variants = _distorted() if name == "train" else digits[None, start:stop]
        return DigitScenes(variants, labels[start:stop], level, self.train_levels, seed)
