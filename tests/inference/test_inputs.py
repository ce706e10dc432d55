"""Pictures and sounds are read as other libraries read them, and refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.inference.inputs import Pictures, Sounds, inputs_from

GREY = Pictures((0.25,), (0.5,))


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    from PIL import Image

    Image.fromarray(array).save(path, **options)
    return path


def test_grey_pictures_are_normalised(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    array = np.random.default_rng(0).integers(0, 256, (7, 5), dtype=np.uint8)
    found = GREY.read(write(tmp_path / "a.png", array))
    expected = (torch.from_numpy(array)[None] / 255 - 0.25) / 0.5
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(GREY.shown(found), torch.from_numpy(array)[None])


def test_colours_are_made_grey_and_grey_is_made_colours(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image

    array = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    path = write(tmp_path / "a.png", array)
    grey = np.asarray(Image.fromarray(array).convert("L"))
    assert np.abs(GREY.pixels(path)[0].numpy().astype(int) - grey).max() <= 1
    colour = Pictures((0.0,) * 3, (1.0,) * 3)
    assert torch.equal(
        colour.pixels(write(tmp_path / "b.png", grey)), torch.from_numpy(grey.copy()).expand(3, 7, 5)
    )


def test_the_orientation_of_the_camera_is_followed(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "a.jpg", np.zeros((8, 24, 3), dtype=np.uint8), exif=exif)
    assert GREY.pixels(path).shape == (1, 24, 8)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (13, 29)),
        ({"size": (6, 4)}, (6, 4)),
        ({"longer_side": 20}, (9, 20)),
        ({"longer_side": 1}, (1, 1)),
    ],
)
def test_pictures_are_resized(options: dict[str, object], shape: tuple[int, int]) -> None:
    pytest.importorskip("torchvision")
    inputs = Pictures((0.25,), (0.5,), **options)
    assert inputs.prepared(torch.zeros(1, 13, 29, dtype=torch.uint8)).shape == (1, *shape)


def test_broken_pictures_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    whole = write(tmp_path / "a.png", np.zeros((40, 40), dtype=np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "empty.png"):
        with pytest.raises(ValueError, match=r".+") as refused:
            GREY.read(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_sounds_are_mixed_and_resampled(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    functional = pytest.importorskip("torchaudio").functional
    both = np.random.default_rng(0).uniform(-0.5, 0.5, (1201, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", both, 6000, subtype="FLOAT")
    mono = torch.from_numpy(both.mean(1))
    torch.testing.assert_close(Sounds(6000).read(tmp_path / "a.wav"), mono)
    torch.testing.assert_close(Sounds(4000).read(tmp_path / "a.wav"), functional.resample(mono, 6000, 4000))


def test_broken_sounds_are_refused(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.zeros(500), 6000)
    data = (tmp_path / "a.wav").read_bytes()
    soundfile.write(tmp_path / "nan.wav", np.full(50, np.nan), 6000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 6000)
    (tmp_path / "cut.wav").write_bytes(data[:-200])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all")
    said = {}
    for name in ("nan", "none", "cut", "empty", "text"):
        with pytest.raises(ValueError, match=r".+") as refused:
            Sounds(6000).read(tmp_path / f"{name}.wav")
        said[name] = str(refused.value)
    assert said["nan"] == "holds samples that are not finite"
    assert said["none"] == "holds no sample"
    assert said["cut"] == "holds 844 of 1044 bytes"
    assert said["empty"] == "the file is empty"
    assert "\n" not in said["text"]


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        (
            {"kind": "pictures", "mean": [0.5] * 2, "std": [1.0] * 2},
            "mean and std must be of 1 or 3 channels",
        ),
        ({"kind": "pictures", "mean": [0.5], "std": [0.0]}, "std must be above 0: got"),
        (
            {"kind": "pictures", "mean": [0.5], "std": [1], "size": [0, 3]},
            "a size must be a height and a width",
        ),
        ({"kind": "pictures", "mean": [0.5], "std": [1], "size": [3]}, "a size must be a height and a width"),
        ({"kind": "pictures", "mean": [0], "std": [1], "size": [3, 3], "longer_side": 4}, "not both"),
        ({"kind": "sounds", "sample_rate": 0}, "sample_rate must be at least 1: got 0"),
        ({"kind": "sounds"}, "sounds must have the fields that they take"),
        ({}, "a kind of inputs must be one of pictures, sounds, texts: got None"),
    ],
)
def test_inputs_that_do_not_fit_are_one_sentence(plain: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        inputs_from(plain)


@pytest.mark.parametrize("inputs", [GREY, Pictures((0, 0, 0), (1, 1, 1), size=(3, 5)), Sounds(8000)])
def test_inputs_are_written_and_read(inputs: Pictures | Sounds) -> None:
    import json

    assert inputs_from(json.loads(json.dumps(inputs.plain()))) == inputs
