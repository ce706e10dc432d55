"""Pictures of any size from a folder per class, and what all picture data share: pixels and augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from tqdm import tqdm

from mmattn.training.data import ClassificationData, Example, ExampleSet
from tasks.checks import SPLITS, Problems, check_fraction, check_known, complete_splits, digest, missing
from tasks.vision.data.augment import crop_and_flip, policy_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
# EXIF tag of the camera's orientation; from 5 on, height and width of the stored picture are exchanged.
EXIF_ORIENTATION, EXIF_LYING = 0x0112, 5
# Mean and standard deviation of each channel over ImageNet, as torchvision's pretrained models use them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels ``[..., 3, H, W]`` in 0..255 to floats around 0: ``(pixels / 255 - mean) / std``."""
    shift = torch.tensor(mean).view(3, 1, 1)
    scale = torch.tensor(std).view(3, 1, 1)
    return pixels.float().mul(1 / (255 * scale)).sub_(shift / scale)


def decode(data: bytes) -> Tensor:
    """Encoded picture to upright RGB pixels ``[3, H, W]`` (uint8).

    Grey becomes RGB, transparency is dropped, 16 bits become 8, an animation gives its first frame.

    Raises:
        RuntimeError: the bytes are no complete picture.
    """
    if not data:
        raise RuntimeError("the file is empty")
    # The copy is needed: torch does not share memory with immutable bytes without a warning.
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Tensor = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    if pixels.ndim == 4:
        pixels = pixels[0]
    return pixels if pixels.dtype == torch.uint8 else (pixels.int() // 257).to(torch.uint8)


class Augment:
    """Random changes of training pictures that work on one picture at a time.

    Args:
        flip: mirror half of the pictures left to right.
        rand_augment: apply torchvision's RandAugment (two random operations).
        random_erasing: probability that a rectangle is set to zero after normalisation.
        trivial_augment: apply torchvision's TrivialAugmentWide (one random operation) instead.
        crop_padding: shift each picture by up to so many pixels, with black behind it.
    """

    def __init__(
        self,
        flip: bool = True,
        rand_augment: bool = False,
        random_erasing: float = 0.0,
        trivial_augment: bool = False,
        crop_padding: int = 0,
    ) -> None:
        if not 0 <= random_erasing <= 1:
            raise ValueError(f"random_erasing must lie in [0, 1]: got {random_erasing}")
        if crop_padding < 0:
            raise ValueError(f"crop_padding must not be negative: got {crop_padding}")
        policy = policy_of(rand_augment, trivial_augment)
        steps: list[Any] = [partial(shifted, padding=crop_padding)] if crop_padding else []
        steps += [v2.RandomHorizontalFlip()] if flip else []
        steps += (
            [{"rand": v2.RandAugment, "trivial": v2.TrivialAugmentWide}[policy]()] if policy != "none" else []
        )
        self.pixels: Any = v2.Compose(steps) if steps else None
        self.floats: Any = v2.RandomErasing(p=random_erasing) if random_erasing else None


def shifted(pixels: Tensor, padding: int) -> Tensor:
    """A picture ``[C, H, W]`` shifted by up to ``padding`` pixels each way, drawn at random."""
    return crop_and_flip(pixels[None], padding, flip=False)[0]


def list_tree(root: Path, suffixes: Sequence[str]) -> list[tuple[Path, str, str]]:
    """Files of ``root/{train,val,test}/<class>/*`` or ``root/<class>/*`` with their label and split.

    A tree without split folders is all ``train``. Hidden files and files with other endings are passed over.

    Returns:
        Path, label and split of each file, sorted by path below ``root``.
    """
    named = {name: root / name for name in SPLITS if (root / name).is_dir()}
    tops = named or {"train": root}
    found = []
    for split, top in tops.items():
        for folder in sorted(path for path in top.iterdir() if path.is_dir() and path.name[0] not in "._"):
            files = (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.name[0] != ".")
            found += [(path, folder.name, split) for path in sorted(files)]
    return found


class PictureFiles(ExampleSet):
    """Pictures read from their files when they are asked for: items ``[3, H, W]``, normalised floats.

    Args:
        files: path and label of each picture.
        sizes: height and width of each picture as it is handed out.
        class_names: names of the classes; a label is looked up here.
        resize: resize pictures to their ``sizes``; otherwise they already have them.
        augment: random changes; None for evaluation.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, str]],
        sizes: Sequence[tuple[int, int]],
        class_names: Sequence[str],
        resize: bool = False,
        augment: Augment | None = None,
    ) -> None:
        self.files = list(files)
        self.sizes = list(sizes)
        self.class_names = tuple(class_names)
        self.resize = resize
        self.augment = augment
        self._index = {name: i for i, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        path, label = self.files[index]
        pixels = decode(path.read_bytes())
        if self.resize and tuple(pixels.shape[1:]) != self.sizes[index]:
            pixels = v2.functional.resize(pixels, list(self.sizes[index]), antialias=True)
        if self.augment is not None and self.augment.pixels is not None:
            pixels = self.augment.pixels(pixels)
        item = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
        if self.augment is not None and self.augment.floats is not None:
            item = self.augment.floats(item)
        return Example(item, self._index[label])

    def size(self, index: int) -> int:
        """Pixels of picture ``index`` as it is handed out."""
        height, width = self.sizes[index]
        return height * width

    def fingerprint(self) -> str:
        """sha256 over the files' bytes, their labels and the size asked for."""
        content = ((label, hashlib.sha256(path.read_bytes()).digest()) for path, label in self.files)
        return digest(content, self.class_names, f"{sorted(self.sizes)}" if self.resize else "")


def target_size(height: int, width: int, image_size: int | None, keep_aspect: bool) -> tuple[int, int]:
    """Height and width after resizing to ``image_size``: of a square, or of its longer side."""
    if image_size is None:
        return height, width
    if not keep_aspect:
        return image_size, image_size
    factor = image_size / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def own_size(height: int, width: int, max_side: int | None, multiple_of: int) -> tuple[int, int]:
    """Height and width that keep a picture's own aspect: no side above ``max_side``, both multiples of a number.

    Smaller pictures are not enlarged beyond the rounding; the aspect is kept as nearly as the rounding allows.

    Example:
        >>> own_size(480, 640, max_side=128, multiple_of=16), own_size(20, 50, max_side=128, multiple_of=16)
        ((96, 128), (16, 48))
    """
    longest = max(height, width) if max_side is None else max_side
    factor = min(1.0, longest / max(height, width))
    most = max(1, longest // multiple_of if max_side is not None else round(longest / multiple_of))

    def side(length: int) -> int:
        return multiple_of * min(most, max(1, round(length * factor / multiple_of)))

    return side(height), side(width)


class ImageFolder(ClassificationData):
    """Pictures in one folder per class, normalised with ImageNet's mean and deviation.

    Either ``root/{train,val,test}/<class>/*`` or ``root/<class>/*``; a split that is not there is cut from
    ``train``, stratified by class. Every file is decoded once before training to see that it is whole.

    Args:
        root: the folder.
        image_size: side of the square that pictures are resized to; None leaves each at its own size.
        keep_aspect: with ``image_size``, make the longer side that long instead and keep the aspect ratio.
        val_fraction: share of ``train`` that becomes ``val`` where there is no such folder.
        test_fraction: share of ``train`` that becomes ``test`` where there is no such folder.
        split_seed: seed of the cut.
        full_check: decode every file before training; False reads headers only, faster and less thorough.
        flip: mirror half of the training pictures left to right.
        rand_augment: apply torchvision's RandAugment to training pictures.
        random_erasing: probability that a rectangle of a training picture is erased.
        trivial_augment: apply torchvision's TrivialAugmentWide to training pictures instead of RandAugment.
        crop_padding: shift training pictures by up to so many pixels.
        max_side: keep each picture's own aspect and make no side longer than that; smaller pictures keep their size.
        multiple_of: round both sides to multiples of this, e.g. of the patch size, so that no patch is part empty.
        **kwargs: ``batch_size``, ``num_workers``, ``length_pool`` and ``max_size`` of the base.

    Raises:
        ValueError: an argument does not fit.
    """

    def __init__(
        self,
        root: str,
        image_size: int | None = None,
        keep_aspect: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        full_check: bool = True,
        flip: bool = True,
        rand_augment: bool = False,
        random_erasing: float = 0.0,
        trivial_augment: bool = False,
        crop_padding: int = 0,
        max_side: int | None = None,
        multiple_of: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1: got {image_size}")
        if multiple_of < 1:
            raise ValueError(f"multiple_of must be at least 1: got {multiple_of}")
        if max_side is not None and max_side < multiple_of:
            raise ValueError(f"max_side must be at least multiple_of={multiple_of}: got {max_side}")
        if image_size is not None and (max_side is not None or multiple_of > 1):
            raise ValueError(f"image_size goes without max_side and multiple_of: got image_size={image_size}")
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        self.root = Path(root)
        self.image_size = image_size
        self.keep_aspect = keep_aspect
        self.fractions = (val_fraction, test_fraction)
        self.split_seed = split_seed
        self.full_check = full_check
        self.max_side = max_side
        self.multiple_of = multiple_of
        self.augment = Augment(flip, rand_augment, random_erasing, trivial_augment, crop_padding)

    @property
    def inputs(self) -> dict[str, Any]:
        """ImageNet's mean and deviation, and the size that pictures are resized to."""
        size, aspect = self.image_size, self.keep_aspect
        sizes: dict[str, Any] = (
            {} if size is None else {"longer_side": size} if aspect else {"size": [size, size]}
        )
        return {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD), **sizes}

    def build(self) -> dict[str, ExampleSet]:
        """List the tree, check each picture and cut the splits.

        Raises:
            FileNotFoundError: there is no picture below ``root``.
            ValueError: files are unreadable, or a class of val or test has no training picture.
        """
        found = list_tree(self.root, SUFFIXES) if self.root.is_dir() else []
        if not found:
            raise missing("pictures as {train,val,test}/<class>/* or <class>/*", self.root)
        problems = Problems("every picture must be readable and of a class of train")
        sizes = [self._check(path, problems) for path, _, _ in tqdm(found, "checking pictures", disable=None)]
        labels = [label for _, label, _ in found]
        splits = complete_splits(labels, [split for _, _, split in found], *self.fractions, self.split_seed)
        check_known(problems, [path for path, _, _ in found], labels, splits)
        problems.raise_any()
        names = sorted(set(labels))
        return {
            split: PictureFiles(
                [found[i][:2] for i in indices],
                [sizes[i] for i in indices],
                names,
                resize=self.image_size is not None or self.own_sizes,
                augment=self.augment if split == "train" else None,
            )
            for split, indices in splits.items()
        }

    def _check(self, path: Path, problems: Problems) -> tuple[int, int]:
        """Height and width of a picture as it will be handed out; unreadable ones become a problem."""
        try:
            if self.full_check:
                height, width = decode(path.read_bytes()).shape[1:]
            else:
                with Image.open(path) as image:
                    width, height = image.size
                    if image.getexif().get(EXIF_ORIENTATION, 1) >= EXIF_LYING:
                        height, width = width, height
        except (OSError, RuntimeError, ValueError) as error:
            problems.add(path, error)
            return 0, 0
        if self.own_sizes:
            return own_size(height, width, self.max_side, self.multiple_of)
        return target_size(height, width, self.image_size, self.keep_aspect)

    @property
    def own_sizes(self) -> bool:
        """Whether each picture is resized to a size of its own."""
        return self.max_side is not None or self.multiple_of > 1
