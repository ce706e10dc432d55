"""The linear control of keyword spotting."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("torchaudio")
pytest.importorskip("sklearn")

from tasks.speech.control import linear_control, main, pooled
from tasks.speech.data.fsdd import FSDD


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten tones by two speakers; speaker b's tones lie a little higher."""
    top = tmp_path_factory.mktemp("tones") / "recordings"
    top.mkdir()
    rng = np.random.default_rng(3)
    for digit in range(10):
        for speaker, factor in (("a", 1.0), ("b", 1.03)):
            for take in range(9):
                time = np.arange(1100 + 50 * take) / 8000
                wave = np.sin(2 * np.pi * 300 * 1.25**digit * factor * time)
                wave = 0.3 * wave + 0.02 * rng.standard_normal(len(time))
                soundfile.write(top / f"{digit}_{speaker}_{take}.wav", wave, 8000, subtype="PCM_16")
    return str(top.parent)


def test_features_are_slices_means_and_deviations(root):
    data = FSDD(root, noise=0.5)
    features, labels = pooled(data.sets["train"], 8000)
    assert features.shape == (len(labels), 40 * 16 + 80)
    assert labels.tolist() == [data.sets["train"].plain()[i].label for i in range(len(labels))]
    assert np.allclose(features[:, :640].reshape(-1, 40, 16).mean(2), features[:, 640:680], atol=0.3)
    less, _ = pooled(data.sets["train"], 8000, subtract_means=True)
    slices = features[:, :640].reshape(-1, 40, 16) - features[:, 640:680, None]
    assert np.allclose(less, np.concatenate([slices.reshape(-1, 640), features[:, 680:]], 1), atol=1e-4)
    again, _ = pooled(data.sets["train"], 8000)
    assert np.array_equal(features, again)  # waves without random changes


def test_it_learns_what_can_be_told_apart(root):
    assert linear_control(FSDD(root)) == 1.0
    assert linear_control(FSDD(root, held_out_speaker="b")) > 0.9


def test_labels_that_say_nothing_give_chance(root):
    data = FSDD(root)
    order = torch.randperm(len(data.sets["train"]), generator=torch.Generator().manual_seed(2)).tolist()
    data.sets["train"].labels = [data.sets["train"].labels[i] for i in order]
    assert linear_control(data) < 0.5


def test_the_command_prints_every_split(root, capsys, monkeypatch):
    monkeypatch.setattr("tasks.speech.control.SPEAKERS", ("a", "b"))
    main([root])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line[:18].rstrip() for line in lines] == [
        "official split", "without a", "without b", "mean of speakers"
    ]  # fmt: skip
    shares = np.array([[float(share.rstrip("%")) for share in line[18:].split()] for line in lines])
    assert shares[0, 0] == 100
    assert shares[0, 1] < 100  # a steady tone less its mean is hardly anything
    assert shares[3] == pytest.approx(shares[1:3].mean(0), abs=0.06)


def test_data_without_waves_are_refused():
    with pytest.raises(TypeError, match=r"^linear_control needs data with a sample_rate: got object$"):
        linear_control(object())
