"""Recordings that stand for real ones: each digit a chord of its own, so that a model can learn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

RATE = 8000


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to download fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def chord(digit: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    tones = [np.sin(2 * np.pi * f * time) for f in (300 + 130 * digit, 2900 - 170 * digit)]
    return 0.2 * sum(tones) + 0.01 * rng.standard_normal(len(time))


@pytest.fixture(scope="session")
def fsdd(tmp_path_factory) -> Path:
    """``recordings/{digit}_{speaker}_{take}.wav``: two speakers, ten takes of 0.17 to 0.26 s."""
    root = tmp_path_factory.mktemp("fsdd")
    (root / "recordings").mkdir()
    rng = np.random.default_rng(5)
    for digit in range(10):
        for speaker in ("anna", "theo"):
            for take in range(10):
                path = root / "recordings" / f"{digit}_{speaker}_{take}.wav"
                soundfile.write(path, chord(digit, 0.17 + 0.01 * take, rng), RATE, subtype="PCM_16")
    return root


@pytest.fixture
def clips(tmp_path) -> Path:
    """Seven clips of 0.5 to 1.1 s at 8 kHz below ``tmp_path``, one of them stereo FLAC at 16 kHz."""
    rng = np.random.default_rng(6)
    (tmp_path / "clips").mkdir()
    for index in range(6):
        noise = rng.uniform(-0.5, 0.5, 4000 + 800 * index)
        soundfile.write(tmp_path / "clips" / f"{index}.wav", noise, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "clips" / "6.flac", rng.uniform(-0.5, 0.5, (16000, 2)), 16000)
    return tmp_path
