"""CIFAR-10 from torchvision's files or from a folder of pictures, decoded once and augmented by the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity
from tqdm import tqdm

from mmattn.training.data import ClassificationData, Example, ExampleSet
from tasks.checks import Problems, check_fraction, check_splits, cut, digest, missing
from tasks.vision.data.augment import PixelAugment, policy_of
from tasks.vision.data.folder import SUFFIXES, decode, list_tree, normalise

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
# Mean and standard deviation of each channel over the 50,000 training pictures.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class PixelSet(ExampleSet):
    """Pictures of one size in memory: items ``[3, H, W]``, normalised floats.

    Args:
        pixels: all pictures ``[N, 3, H, W]`` (uint8).
        labels: index of each picture's class ``[N]``.
        digests: sha256 of each picture's source.
        augment: random changes in training, of a batch at a time; None for evaluation.
    """

    class_names = CLASSES

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        digests: Sequence[bytes],
        augment: PixelAugment | None = None,
    ) -> None:
        self.pixels = pixels
        self.labels = labels
        self.digests = list(digests)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Examples of one batch, made together; torch's loader calls this when it is there."""
        chosen = torch.as_tensor(indices)
        pixels = self.pixels[chosen]
        if self.augment is None:
            items = normalise(pixels, MEAN, STD)
        else:
            items = self.augment.floats(normalise(self.augment.pixels(pixels), MEAN, STD))
        return [Example(*pair) for pair in zip(items.unbind(), self.labels[chosen].tolist(), strict=True)]

    def size(self, index: int) -> int:
        """Pixels of a picture, the same for all."""
        return self.pixels.shape[2] * self.pixels.shape[3]

    def fingerprint(self) -> str:
        """sha256 over the sources (pixels, or the bytes of the picture files) and their labels."""
        names = (self.class_names[i] for i in self.labels.tolist())
        return digest(zip(names, self.digests, strict=True), self.class_names)


class CIFAR10(ClassificationData):
    """CIFAR-10 (Krizhevsky, 2009): 32 by 32 pictures of ten classes; 50,000 for training, 10,000 for test.

    Either torchvision's files ``root/cifar-10-batches-py`` or pictures ``root/{train,test}/<class>/*``; what
    is there is used and nothing is downloaded then. ``val`` is cut from ``train``, stratified by class.

    Args:
        root: the folder.
        download: fetch torchvision's files if neither form is there.
        val_fraction: share of the training pictures that become ``val``.
        split_seed: seed of the cut.
        crop_padding: in training, pad by so many pixels and crop at random; 0 leaves it out.
        flip: mirror half of the training pictures left to right.
        rand_augment: apply RandAugment to training pictures.
        trivial_augment: apply TrivialAugment to training pictures instead.
        random_erasing: probability that a rectangle of a training picture is erased.
        **kwargs: ``batch_size``, ``num_workers`` and ``length_pool`` of the base.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        crop_padding: int = 4,
        flip: bool = True,
        rand_augment: bool = False,
        random_erasing: float = 0.0,
        trivial_augment: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        self.root = Path(root)
        self.download = download
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        policy = policy_of(rand_augment, trivial_augment)
        self.augment = PixelAugment(crop_padding, flip, policy, random_erasing)

    @property
    def inputs(self) -> dict[str, Any]:
        """Mean and deviation of each channel, and the size."""
        return {"mean": list(MEAN), "std": list(STD), "size": [SIDE, SIDE]}

    def build(self) -> dict[str, ExampleSet]:
        """Load all pictures into memory and cut ``val``.

        Raises:
            FileNotFoundError: neither form is there and ``download`` is off.
            ValueError: files are unreadable, of another size or of another class; all of them are named.
            RuntimeError: the download failed.
        """
        pixels, labels, digests, tests = self._load()
        names = [CLASSES[i] for i in labels.tolist()]
        # Hashes put the pictures in an order that no file system and no packing changes.
        train = sorted((i for i, test in enumerate(tests) if not test), key=lambda i: (digests[i], i))
        kept, val = cut(names, train, self.val_fraction, self.split_seed)
        splits = {"train": kept, "val": val, "test": [i for i, test in enumerate(tests) if test]}
        check_splits(splits)
        return {
            name: PixelSet(
                pixels[indices],
                labels[indices],
                [digests[i] for i in indices],
                self.augment if name == "train" else None,
            )
            for name, indices in splits.items()
        }

    def _load(self) -> tuple[Tensor, Tensor, list[bytes], list[bool]]:
        """Pixels ``[N, 3, 32, 32]``, labels ``[N]``, digests of the sources, and whether each is for test."""
        batches = self.root / datasets.CIFAR10.base_folder
        if not batches.is_dir():
            if all((self.root / split).is_dir() for split in ("train", "test")):
                return read_pictures(self.root)
            if not self.download:
                layout = f"{batches.name} or {{train,test}}/<class>/*"
                raise missing(layout, self.root, self.download)
        return read_batches(self.root, self.download)


def read_pictures(root: Path) -> tuple[Tensor, Tensor, list[bytes], list[bool]]:
    """Decode every picture of ``root/{train,test}/<class>/*``; see :meth:`CIFAR10._load`.

    Raises:
        ValueError: files are unreadable, of another size or of another class; all of them are named.
    """
    problems = Problems(f"every picture must be readable, {SIDE} by {SIDE} and of a CIFAR-10 class")
    found = [entry for entry in list_tree(root, SUFFIXES) if entry[2] != "val"]
    pixels = torch.empty(len(found), 3, SIDE, SIDE, dtype=torch.uint8)
    labels, digests = [], []
    for row, (path, label, _) in enumerate(tqdm(found, "decoding pictures", disable=None)):
        try:
            data = path.read_bytes()
            picture = decode(data)
            if label not in CLASSES:
                raise ValueError(f"{label!r} is none of {', '.join(CLASSES)}")
            if picture.shape != pixels.shape[1:]:
                raise ValueError(f"height {picture.shape[1]}, width {picture.shape[2]}")
        except (OSError, RuntimeError, ValueError) as error:
            problems.add(path, error)
            continue
        pixels[row] = picture
        labels.append(CLASSES.index(label))
        digests.append(hashlib.sha256(data).digest())
    problems.raise_any()
    return pixels, torch.tensor(labels), digests, [split == "test" for _, _, split in found]


def read_batches(root: Path, download: bool) -> tuple[Tensor, Tensor, list[bytes], list[bool]]:
    """Load torchvision's ``cifar-10-batches-py``; see :meth:`CIFAR10._load`.

    Raises:
        ValueError: files are absent or not the published ones; all of them are named.
        RuntimeError: the download failed.
    """
    kind = datasets.CIFAR10
    expected = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    wrong = [name for name, md5 in expected if not check_integrity(root / kind.base_folder / name, md5)]
    if wrong and not download:
        problems = Problems("every CIFAR-10 file must be the published one (or pass download=True)")
        for name in wrong:
            problems.add(root / kind.base_folder / name, "is absent or its md5 differs")
        problems.raise_any()
    try:
        # The archive holds all parts, so fetching once is enough; whole files are not fetched again.
        train, test = kind(root, train=True, download=bool(wrong)), kind(root, train=False)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"a download must succeed before training: got {error} for {kind.url}") from error
    data = torch.cat([torch.from_numpy(part.data) for part in (train, test)])
    pixels = data.permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([*train.targets, *test.targets])
    digests = [hashlib.sha256(picture.numpy().tobytes()).digest() for picture in pixels]
    return pixels, labels, digests, [False] * len(train) + [True] * len(test)
