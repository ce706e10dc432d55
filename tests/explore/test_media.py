"""Pictures and sounds in addresses: readable by others, equal for equal data."""

from __future__ import annotations

import base64
import io
import wave as waves

import pytest
import torch

from mmattn.explore import media
from tests.explore.made import seeded, wave


def data(address: str, kind: str) -> io.BytesIO:
    head, _, text = address.partition(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(text))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_those_that_pillow_reads(channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    with seeded():
        pixels = torch.randint(256, (channels, 7, 11), dtype=torch.uint8)
    pixels[:, :, 4:] = pixels[:, :, 3:4]  # both filters get their chance
    with image.open(data(media.picture(pixels), "image/png")) as read:
        assert read.mode == ("L" if channels == 1 else "RGB")
        found = torch.tensor(list(read.tobytes()), dtype=torch.uint8).view(7, 11, channels)
    assert torch.equal(found.permute(2, 0, 1), pixels)
    assert media.picture(pixels) == media.picture(pixels.clone())


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[1 or 3, H, W\]: got torch.float32 \[1, 2, 2\]"):
        media.picture(torch.zeros(1, 2, 2))


def test_pictures_in_0_to_1_stay_and_others_are_stretched() -> None:
    assert media.viewable(torch.tensor([[[0.0, 0.5, 1.05]]])).tolist() == [[[0, 128, 255]]]
    assert media.viewable(torch.tensor([[[-2.0, 0.0, 2.0]]])).tolist() == [[[0, 128, 255]]]
    assert media.viewable(torch.rand(5, 2, 2)).shape == (1, 2, 2)


def test_sounds_are_those_that_went_in() -> None:
    with waves.open(data(media.sound(wave(), 8000), "audio/wav")) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (8000, 1, 2)
        samples = torch.frombuffer(bytearray(read.readframes(read.getnframes())), dtype=torch.int16)
    assert torch.allclose(samples.float() / 32767, wave(), atol=1e-4)


def test_long_sounds_are_kept_at_a_lower_rate() -> None:
    with waves.open(data(media.sound(wave(10, 32000), 32000), "audio/wav")) as read:
        assert read.getframerate() == 8000
        assert read.getnframes() == 80000


def test_spectrograms_are_dark_where_it_is_loud() -> None:
    image = pytest.importorskip("PIL.Image")
    values = torch.zeros(6, 4)
    values[2, 0] = 5.0  # frame 2, lowest band
    with image.open(data(media.spectrogram(values), "image/png")) as read:
        assert read.size == (6, 4)
        assert read.getpixel((2, 3)) == 0
        assert read.getpixel((3, 3)) == 255


def test_a_tone_is_in_its_band() -> None:
    found = media.log_spectrogram(wave(1.0, 16000), 16000)
    assert found.shape[1] == 80
    assert int(found[-20].argmax()) == 440 * 80 // 8000
