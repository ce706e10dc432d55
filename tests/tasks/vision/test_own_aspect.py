"""Pictures that keep their own aspect: from the folder through the batch to the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("timm")

from mmattn import ImagePatches, build_encoder
from mmattn.vit import GridPositions, PictureTokens
from tasks.vision.data import ImageFolder
from tasks.vision.data.folder import own_size
from tasks.vision.module import ImageClassification

RNG = np.random.default_rng(3)
SIZES = {"ant": (30, 70), "bee": (90, 40), "cat": (16, 16), "doe": (5, 200)}


@pytest.fixture
def folder(tmp_path):
    for name, (height, width) in SIZES.items():
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("seed", range(20))
def test_own_size_is_the_nearest_that_fits(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 400, 2))
    multiple = int(rng.integers(1, 20))
    limit = int(rng.integers(multiple, 200))
    found = own_size(height, width, limit, multiple)
    assert all(side % multiple == 0 and multiple <= side <= limit for side in found)
    factor = min(1.0, limit / max(height, width))
    for side, length in zip(found, (height, width), strict=True):
        ideal = length * factor
        best = min(range(multiple, limit + 1, multiple), key=lambda s, ideal=ideal: abs(s - ideal))
        assert abs(side - ideal) == pytest.approx(abs(best - ideal))


def test_without_a_limit_sides_are_only_rounded():
    assert own_size(30, 70, None, 8) == (32, 72)
    assert own_size(3, 70, None, 8) == (8, 72)
    assert own_size(30, 70, None, 1) == (30, 70)
    assert own_size(30, 70, 35, 1) == (15, 35)


def test_the_folder_hands_out_pictures_of_their_own_aspect(folder):
    data = ImageFolder(str(folder), max_side=48, multiple_of=8, flip=False)
    shapes = {}
    for part in data.sets.values():
        for i, (_, label) in enumerate(part.files):
            shape = tuple(part[i].item.shape[1:])
            assert part.size(i) == shape[0] * shape[1]
            shapes[label] = shape
    assert shapes == {"ant": (24, 48), "bee": (48, 24), "cat": (16, 16), "doe": (8, 48)}
    assert data.fingerprint() != ImageFolder(str(folder), flip=False).fingerprint()


def test_a_batch_of_unlike_pictures_is_each_picture_alone(folder):
    data = ImageFolder(
        str(folder), max_side=48, multiple_of=8, batch_size=7, length_pool=1, trivial_augment=True
    )
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch.items, list)
    assert len({item.shape for item in batch.items}) > 1
    patches = ImagePatches(12, 8)
    for adapter in (patches, PictureTokens(patches, GridPositions((4, 4), 12))):
        task = ImageClassification(
            adapter, build_encoder(12, 2, 3, rotary_base=100.0), data.num_classes
        ).eval()
        together = task(batch.items)
        for item, logits in zip(batch.items, together, strict=True):
            torch.testing.assert_close(task([item])[0], logits, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(task.train().loss(batch))


def test_a_batch_can_be_limited_by_its_pixels(folder):
    data = ImageFolder(str(folder), max_side=48, multiple_of=8, batch_size=100, max_size=2400)
    counts = [sum(item[0].numel() for item in batch.items) for batch in data.train_dataloader()]
    assert max(counts) <= 2400
    assert len(counts) > 3


def test_shifts_and_policies_are_drawn_anew_each_time(folder):
    train = ImageFolder(str(folder), flip=False, crop_padding=3).sets["train"]
    plain = ImageFolder(str(folder), flip=False).sets["train"]
    seen = [train[0].item for _ in range(8)]
    assert all(item.shape == plain[0].item.shape for item in seen)
    assert len({tuple(item.flatten().tolist()) for item in seen}) > 1
    trivial = ImageFolder(str(folder), flip=False, trivial_augment=True).sets["train"]
    assert len({tuple(trivial[0].item.flatten().tolist()) for _ in range(8)}) > 1


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("multiple_of must be at least 1: got 0", {"multiple_of": 0}),
        ("max_side must be at least multiple_of=8: got 4", {"max_side": 4, "multiple_of": 8}),
        (
            "image_size goes without max_side and multiple_of: got image_size=32",
            {"max_side": 40, "image_size": 32},
        ),
        (
            "rand_augment and trivial_augment exclude each other",
            {"rand_augment": True, "trivial_augment": True},
        ),
        ("crop_padding must not be negative: got -2", {"crop_padding": -2}),
    ],
)
def test_arguments_are_checked(text, options):
    with pytest.raises(ValueError, match=text):
        ImageFolder("anywhere", **options)
