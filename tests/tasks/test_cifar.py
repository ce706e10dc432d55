"""CIFAR-10 and picture folders on small generated files in the published layouts."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from tasks.vision.data.augment import crop_and_flip
from tasks.vision.data.cifar import CIFAR10, CLASSES, MEAN, STD
from tasks.vision.data.folder import IMAGENET_MEAN, IMAGENET_STD, ImageFolder, normalise

RNG = np.random.default_rng(5)


def picture(path, height=32, width=32, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, **save)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "cifar"
    for name in CLASSES:
        for i in range(10):
            picture(root / "train" / name / f"{i}.png")
        for i in range(2):
            picture(root / "test" / name / f"{i}.jpg")
    return root


@pytest.fixture
def pickles(tmp_path, monkeypatch):
    """torchvision's layout: five batches and a test batch of 20 pictures each, with matching checksums."""
    folder = tmp_path / "cifar" / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name):
        data = RNG.integers(0, 256, (20, 3072), dtype=np.uint8)
        return write(name, {"data": data, "labels": [i % 10 for i in range(20)]})

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    filename, md5 = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5})
    return folder.parent


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to download fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(datasets.CIFAR10, "download", refuse)


def test_folder_tree_gives_stratified_disjoint_splits(tree, offline):
    data = CIFAR10(str(tree), download=True, val_fraction=0.2)
    data.setup()
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 80, "val": 20, "test": 20}
    assert data.class_names == CLASSES
    assert data.sets["val"].labels.bincount().tolist() == [2] * 10
    train, val = (set(data.sets[name].digests) for name in ("train", "val"))
    assert len(train | val) == 100
    assert data.sets["train"].size(0) == 1024


def test_items_are_the_normalised_pixels_of_their_files(tree):
    test = CIFAR10(str(tree)).sets["test"]
    path = tree / "test" / "cat" / "1.jpg"
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    row = test.digests.index(hashlib.sha256(path.read_bytes()).digest())
    expected = (pixels / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert test[row].label == CLASSES.index("cat")
    torch.testing.assert_close(test[row].item, expected)


def test_pickles_load_with_torchvision_and_without_network(pickles, offline):
    data = CIFAR10(str(pickles), download=True)
    original = datasets.CIFAR10(str(pickles), train=False)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 90, "val": 10, "test": 20}
    test = data.sets["test"]
    assert torch.equal(test.pixels.permute(0, 2, 3, 1), torch.from_numpy(original.data))
    assert test.labels.tolist() == original.targets


def test_changed_pickles_are_all_named(pickles, offline):
    for name in ("data_batch_2", "test_batch"):
        (pickles / datasets.CIFAR10.base_folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must be the published one.*data_batch_2.*test_batch") as caught:
        CIFAR10(str(pickles)).setup()
    assert "data_batch_1 " not in str(caught.value)


def test_absent_data_name_layout_path_and_argument(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        CIFAR10(str(tmp_path)).setup()
    text = str(caught.value)
    assert "cifar-10-batches-py or {train,test}/<class>/*" in text
    assert "download=True" in text
    assert str(tmp_path) in text


def test_failing_download_is_chained(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(RuntimeError, match="a download must succeed before training: got no route") as caught:
        CIFAR10(str(tmp_path), download=True).setup()
    assert isinstance(caught.value.__cause__, OSError)


def test_all_bad_pictures_are_named_at_once(tree):
    whole = (tree / "train" / "cat" / "3.png").read_bytes()
    (tree / "train" / "cat" / "3.png").write_bytes(whole[:500])
    (tree / "test" / "dog" / "0.jpg").write_bytes(b"")
    picture(tree / "train" / "ship" / "wide.png", 32, 40)
    picture(tree / "train" / "zebra" / "a.png")
    with pytest.raises(ValueError, match="got 4 that are not") as caught:
        CIFAR10(str(tree)).setup()
    for part in (
        "cat/3.png",
        "dog/0.jpg (the file is empty)",
        "wide.png (height 32, width 40)",
        "'zebra' is none",
    ):
        assert part in str(caught.value)


def test_fingerprint_ignores_folder_and_file_names_and_sees_a_changed_pixel(tree, tmp_path):
    before = CIFAR10(str(tree)).fingerprint()
    moved = tmp_path / "elsewhere"
    shutil.copytree(tree, moved)
    for i, path in enumerate(sorted((moved / "train" / "frog").iterdir())):
        path.rename(path.with_name(f"z{9 - i}.png"))
    assert CIFAR10(str(moved)).fingerprint() == before
    picture(moved / "test" / "frog" / "0.jpg")
    after = CIFAR10(str(moved)).fingerprint()
    assert after["train"] == before["train"]
    assert after["test"] != before["test"]


def test_crop_and_flip_gives_windows_of_the_padded_picture():
    torch.manual_seed(0)
    pixels = torch.arange(1, 1 + 3 * 5 * 7).view(1, 3, 5, 7).expand(64, -1, -1, -1).to(torch.uint8)
    padded = torch.nn.functional.pad(pixels[0], (2, 2, 2, 2))
    windows = [padded[:, i : i + 5, j : j + 7] for i in range(5) for j in range(5)]
    windows += [window.flip(2) for window in windows]
    hits = [
        [torch.equal(changed, window) for window in windows] for changed in crop_and_flip(pixels, 2, True)
    ]
    assert all(any(row) for row in hits)
    # 64 draws out of 50: many different ones, mirrored and not.
    seen = {row.index(True) for row in hits}
    assert len(seen) > 20
    assert 16 < sum(row.index(True) >= 25 for row in hits) < 48
    assert torch.equal(crop_and_flip(pixels, 0, False), pixels)


def test_training_is_augmented_and_evaluation_is_not(tree):
    data = CIFAR10(str(tree), random_erasing=1.0, rand_augment=True)
    train, val = data.sets["train"], data.sets["val"]
    assert not torch.equal(train[0].item, train[0].item)
    assert (train[0].item == 0).sum() > 3 * 10
    assert torch.equal(val[0].item, val[0].item)
    plain = CIFAR10(str(tree), crop_padding=0, flip=False).sets["train"]
    assert torch.equal(plain[4].item, normalise(plain.pixels[4], MEAN, STD))


def test_loader_batches_match_single_items(tree):
    data = CIFAR10(str(tree), batch_size=8)
    batch = next(iter(data.val_dataloader()))
    assert batch.items.shape == (8, 3, 32, 32)
    assert torch.equal(batch.items[3], data.sets["val"][3].item)
    assert batch.labels.tolist() == [data.sets["val"][i].label for i in range(8)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"val_fraction": 1.5}, r"val_fraction must lie in \(0, 1\): got 1.5"),
        ({"crop_padding": -1}, "crop_padding must not be negative: got -1"),
        ({"random_erasing": 2.0}, r"random_erasing must lie in \[0, 1\]: got 2.0"),
        ({"batch_size": 0}, "batch_size must be at least 1: got 0"),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(ValueError, match=text):
        CIFAR10("anywhere", **arguments)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for i in range(10):
        picture(root / "ant" / f"{i}.png", 13, 29)
        picture(root / "bee" / "deep" / f"{i}.jpg", 40, 17)
    (root / "bee" / "notes.txt").write_text("no picture")
    return root


def test_image_folder_keeps_each_picture_as_it_is(folder):
    data = ImageFolder(str(folder), val_fraction=0.1, test_fraction=0.2, flip=False)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 14, "val": 2, "test": 4}
    files = [path for part in data.sets.values() for path, _ in part.files]
    assert len(set(files)) == 20
    test = data.sets["test"]
    shapes = {test.class_names[test[i].label]: tuple(test[i].item.shape) for i in range(4)}
    assert shapes == {"ant": (3, 13, 29), "bee": (3, 40, 17)}
    assert {test.size(i) for i in range(4)} == {13 * 29, 40 * 17}
    pixels = torch.from_numpy(np.array(Image.open(test.files[0][0]))).permute(2, 0, 1)
    torch.testing.assert_close(test[0].item, normalise(pixels, IMAGENET_MEAN, IMAGENET_STD))


def test_image_folder_resizes_to_a_square_or_to_a_longer_side(folder):
    square = ImageFolder(str(folder), image_size=16, batch_size=3).sets["train"]
    assert square[0].item.shape == (3, 16, 16)
    assert square.size(0) == 256
    kept = ImageFolder(str(folder), image_size=20, keep_aspect=True).sets["train"]
    assert {tuple(kept[i].item.shape[1:]) for i in range(len(kept))} == {(9, 20), (20, 8)}
    assert all(kept.size(i) == kept[i].item[0].numel() for i in range(len(kept)))


def test_image_folder_takes_split_folders_and_refuses_a_class_that_train_lacks(folder, tmp_path):
    root = tmp_path / "splits"
    shutil.copytree(folder, root / "train")
    shutil.copytree(folder / "ant", root / "test" / "ant")
    data = ImageFolder(str(root))
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 18, "val": 2, "test": 10}
    picture(root / "test" / "wasp" / "0.png")
    with pytest.raises(
        ValueError, match=r"wasp/0.png \(label 'wasp' of the test split does not occur in train"
    ):
        ImageFolder(str(root)).setup()


@pytest.mark.parametrize("full_check", [True, False])
def test_image_folder_names_all_unreadable_pictures(folder, full_check):
    (folder / "ant" / "4.png").write_bytes(b"no picture")
    (folder / "bee" / "deep" / "7.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got 2 that are not: .*4\.png .*7\.jpg"):
        ImageFolder(str(folder), full_check=full_check).setup()
    with pytest.raises(FileNotFoundError, match="must be present: got"):
        ImageFolder(str(folder / "nowhere")).setup()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16"])
def test_every_colour_mode_becomes_rgb_bytes(folder, mode):
    grey = Image.new("L", (6, 5), 128)
    image = Image.new(mode, (6, 5), 128 * 257) if mode == "I;16" else grey.convert(mode)
    image.save(folder / "ant" / "0.png")
    train = ImageFolder(str(folder), test_fraction=0.1, flip=False)
    items = {path.name: part[i] for part in train.sets.values() for i, (path, _) in enumerate(part.files)}
    expected = normalise(torch.full((3, 5, 6), 128), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(items["0.png"].item, expected)


def test_pictures_stand_upright_and_headers_agree(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(folder / "ant" / "lying.jpg", 13, 29, exif=exif)
    for full_check in (True, False):
        data = ImageFolder(str(folder), full_check=full_check)
        shapes = {
            path.name: (part.sizes[i], tuple(part[i].item.shape[1:]))
            for part in data.sets.values()
            for i, (path, _) in enumerate(part.files)
        }
        assert shapes["lying.jpg"] == ((29, 13), (29, 13))


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_policies_change_the_pictures_of_a_batch_each_in_its_own_way(tree, policy):
    train = CIFAR10(str(tree), crop_padding=0, flip=False, **{policy: True}).sets["train"]
    torch.manual_seed(0)
    items = torch.stack([example.item for example in train.__getitems__([5] * 40)])
    plain = normalise(train.pixels[5], MEAN, STD)
    changed = (items != plain).flatten(1).any(1)
    assert 10 < int(changed.sum()) <= 40
    assert len({tuple(item.flatten().tolist()) for item in items}) > 10
    with pytest.raises(ValueError, match="rand_augment and trivial_augment exclude each other"):
        CIFAR10(str(tree), rand_augment=True, trivial_augment=True)
