"""What a linear classifier makes of pictures: the control that stands beside every figure of attention."""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmattn.training.data import ClassificationData, ExampleSet

Features = Literal["pixels", "hog"]

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
"""Values of scikit-learn's C to choose among on the validation set, for features of unit variance."""

_CELL, _BINS = 4, 9
_MAX_ITER = 200


def linear_control(data: ClassificationData, features: Features = "hog") -> float:
    """Accuracy on the test set, 0 to 1, of multinomial logistic regression on fixed features; see :func:`scores`."""
    return scores(data.sets, features)["test"]


def scores(
    sets: Mapping[str, ExampleSet], features: Features = "hog", strengths: Sequence[float] = STRENGTHS
) -> dict[str, float]:
    """What logistic regression by scikit-learn reaches; deterministic, and without augmentation.

    Features are standardised by the training set, and the strength of regularisation is chosen on ``val``.

    Args:
        sets: ``train``, ``val`` and ``test``; items ``[3, H, W]`` of one size.
        features: ``"pixels"``, or ``"hog"``: histograms of oriented gradients (Dalal and Triggs 2005).
        strengths: values of scikit-learn's C to choose among.

    Returns:
        ``"val"`` and ``"test"``: shares named rightly; ``"C"``: the strength chosen.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the features are unknown.
    """
    extract: dict[str, Callable[[Tensor], Tensor]] = {"pixels": lambda x: x.flatten(1), "hog": hog}
    if features not in extract:
        raise ValueError(f"features must be 'pixels' or 'hog': got {features!r}")
    try:
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError('linear_control needs scikit-learn: pip install "mmattn[tasks]"') from error
    read = {name: _read(_plain(sets[name]), extract[features]) for name in ("train", "val", "test")}
    scaler = StandardScaler(copy=False).fit(read["train"][0])
    seen = {name: (scaler.transform(x), y) for name, (x, y) in read.items()}
    models = {strength: _fitted(strength, *seen["train"]) for strength in strengths}
    best = max(models, key=lambda strength: models[strength].score(*seen["val"]))
    return {name: float(models[best].score(*seen[name])) for name in ("val", "test")} | {"C": best}


def hog(pictures: Tensor) -> Tensor:
    """Histograms of oriented gradients of pictures ``[B, 3, H, W]``, ``[B, F]``.

    Each pixel votes with its steepest channel for one of 9 directions without sign, shared between the two nearest;
    votes are summed in cells of 4 by 4 pixels, and each 2 by 2 block of cells is scaled to length 1.

    Raises:
        ValueError: a side is below 8 pixels.
    """
    if min(pictures.shape[-2:]) < 2 * _CELL:
        raise ValueError(f"pictures must have sides of at least {2 * _CELL}: got {list(pictures.shape[-2:])}")
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    steepest = (across.square() + down.square()).argmax(1, keepdim=True)
    across, down = across.gather(1, steepest)[:, 0], down.gather(1, steepest)[:, 0]
    place = torch.atan2(down, across).remainder(math.pi) / math.pi * _BINS
    lower = place.floor()
    share = place - lower
    strength = (across.square() + down.square()).sqrt()
    votes = strength.new_zeros(len(pictures), _BINS, *strength.shape[1:])
    low = lower.long().remainder(_BINS)[:, None]
    votes.scatter_add_(1, low, (strength * (1 - share))[:, None])
    votes.scatter_add_(1, (low + 1).remainder(_BINS), (strength * share)[:, None])
    cells = F.avg_pool2d(votes, _CELL)
    blocks = torch.cat(
        [cells[:, :, :-1, :-1], cells[:, :, :-1, 1:], cells[:, :, 1:, :-1], cells[:, :, 1:, 1:]], dim=1
    )
    return F.normalize(blocks, dim=1, eps=1e-3).flatten(1)


def _plain(examples: ExampleSet) -> ExampleSet:
    """The same examples without augmentation."""
    if getattr(examples, "augment", None) is None:
        return examples
    plain: Any = copy.copy(examples)
    plain.augment = None
    return cast(ExampleSet, plain)


def _read(
    examples: ExampleSet, extract: Callable[[Tensor], Tensor]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows, labels = [], []
    for start in range(0, len(examples), 512):
        batch = [examples[i] for i in range(start, min(start + 512, len(examples)))]
        rows.append(extract(torch.stack([example.item for example in batch])))
        labels += [example.label for example in batch]
    return torch.cat(rows).numpy(), np.array(labels, dtype=np.int64)


def _fitted(strength: float, x: NDArray[np.float32], y: NDArray[np.int64]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_MAX_ITER, tol=1e-3).fit(x, y)


def main() -> None:
    """Print the control's accuracy on CIFAR-10."""
    from tasks.vision.data.cifar import CIFAR10

    parser = argparse.ArgumentParser(prog="python -m tasks.vision.control", description=main.__doc__)
    parser.add_argument("root", help="folder of CIFAR-10, as for tasks.vision.data.CIFAR10")
    parser.add_argument("--features", choices=("pixels", "hog"), default="hog")
    args = parser.parse_args()
    found = scores(CIFAR10(args.root).sets, args.features)
    print(f"{args.features}: val {found['val']:.4f}, test {found['test']:.4f} (C={found['C']:g})")


if __name__ == "__main__":
    main()
