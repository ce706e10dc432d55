"""FSDD on generated recordings: official split, one speaker held out, bad files, local first."""

import hashlib
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
import torch

from tasks.speech.data import fsdd
from tasks.speech.data.augment import Equalizer, Speed
from tasks.speech.data.fsdd import FSDD

RNG = np.random.default_rng(7)
SPEAKERS = ("george", "theo", "lucas")
TAKES = 9


def record(path, seconds=0.1, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, RNG.uniform(-0.5, 0.5, int(seconds * rate)), rate, subtype="PCM_16")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).digest()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Recordings that no test changes; take ``t`` lasts ``(t + 1) / 100`` seconds."""
    top = tmp_path_factory.mktemp("fsdd")
    for digit in range(10):
        for speaker in SPEAKERS:
            for take in range(TAKES):
                record(top / "recordings" / f"{digit}_{speaker}_{take}.wav", 0.01 * (1 + take))
    return top


@pytest.fixture
def spoilt(root, tmp_path):
    """A small copy to spoil: one speaker, five digits."""
    (tmp_path / "recordings").mkdir()
    for path in (root / "recordings").glob("[3-7]_theo_*.wav"):
        shutil.copy(path, tmp_path / "recordings")
    return tmp_path


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to download fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def takes(examples):
    return {examples.size(i) // 80 - 1 for i in range(len(examples))}


def test_official_split_by_take(root):
    data = FSDD(str(root), val_takes=2, download=True)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 60, "val": 60, "test": 150}
    assert [takes(data.sets[name]) for name in ("train", "val", "test")] == [{7, 8}, {5, 6}, {0, 1, 2, 3, 4}]
    assert data.class_names == tuple("0123456789")
    digests = [digest for part in data.sets.values() for digest in part.digests]
    assert len(set(digests)) == 270


def test_held_out_speaker_is_the_whole_test_set(root):
    data = FSDD(str(root), held_out_speaker="theo", val_takes=1)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 160, "val": 20, "test": 90}
    assert takes(data.sets["test"]) == set(range(TAKES))
    assert takes(data.sets["train"]) == set(range(TAKES)) - {5}
    with pytest.raises(ValueError, match="must be one of george, lucas, theo: got 'jackson'"):
        FSDD(str(root), held_out_speaker="jackson").setup()


def test_a_validation_speaker_is_heard_in_validation_alone(root):
    data = FSDD(str(root), held_out_speaker="theo", val_speaker="lucas", val_takes=1)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 90, "val": 90, "test": 90}
    heard = {
        name: {
            f.name.split("_")[1] for f in (root / "recordings").iterdir() if sha256(f) in set(part.digests)
        }
        for name, part in data.sets.items()
    }
    assert heard == {"train": {"george"}, "val": {"lucas"}, "test": {"theo"}}
    swapped = FSDD(str(root), held_out_speaker="lucas", val_speaker="theo")
    assert swapped.fingerprint()["train"] == data.fingerprint()["train"]
    with pytest.raises(ValueError, match="val_speaker must be one of george, lucas, theo: got 'jackson'"):
        FSDD(str(root), held_out_speaker="theo", val_speaker="jackson").setup()


def test_voices_of_espeak_are_added_to_training_alone(root):
    pytest.importorskip("espeakng_loader")
    plain, mixed = FSDD(str(root), noise=0.1), FSDD(str(root), noise=0.1, espeak_clips=31)
    train = mixed.sets["train"]
    assert len(train) == len(plain.sets["train"]) + 31
    assert train.labels[-31:] == [*"0123456789" * 3, "0"]
    assert train.size(len(train) - 1) == len(train.waves[-1])
    assert train.digests[:-31] == plain.sets["train"].digests
    assert len(set(train.digests)) == len(train)
    assert train.augment is not None
    prints = plain.fingerprint(), mixed.fingerprint()
    assert [prints[0][name] == prints[1][name] for name in ("train", "val", "test")] == [False, True, True]
    assert FSDD(str(root), espeak_clips=31).fingerprint() == prints[1]


def test_items_are_the_recordings_and_labels_the_digits(root):
    data = FSDD(str(root))
    test = data.sets["test"]
    wave, _ = soundfile.read(root / "recordings" / "0_george_2.wav", dtype="float32")
    same = [i for i in range(len(test)) if torch.equal(test[i].item, torch.from_numpy(wave))]
    assert [test[i].label for i in same] == [0]
    assert test[same[0]].item.dtype == torch.float32
    test[same[0]].item.zero_()
    assert test[same[0]].item.abs().max() > 0


def test_resampling_is_done_once_and_changes_the_sizes(root):
    plain, double = FSDD(str(root)), FSDD(str(root), sample_rate=16000)
    sizes = [plain.sets["train"].size(i) for i in range(30)]
    assert [double.sets["train"].size(i) for i in range(30)] == [2 * size for size in sizes]
    assert len(double.sets["train"][0].item) == 2 * sizes[0]
    assert double.fingerprint()["train"] != plain.fingerprint()["train"]


def test_all_bad_recordings_are_named_at_once(spoilt):
    folder = spoilt / "recordings"
    whole = (folder / "3_theo_1.wav").read_bytes()
    (folder / "3_theo_1.wav").write_bytes(whole[:200])
    (folder / "4_theo_1.wav").write_bytes(b"")
    (folder / "5_theo_1.wav").write_bytes(b"no sound at all")
    soundfile.write(folder / "6_theo_1.wav", np.zeros(0), 8000)
    shutil.copy(folder / "7_theo_1.wav", folder / "seven_theo_1.wav")
    with pytest.raises(ValueError, match="got 5 that are not") as caught:
        FSDD(str(spoilt)).setup()
    text = str(caught.value)
    assert f"3_theo_1.wav (holds 200 of {len(whole)} bytes)" in text
    assert "4_theo_1.wav (the file is empty)" in text
    assert "5_theo_1.wav (" in text
    assert "6_theo_1.wav (holds no sample)" in text
    assert "seven_theo_1.wav (the name does not tell digit, speaker and take)" in text


def test_fingerprint_ignores_the_folder_and_sees_a_changed_sample(spoilt, tmp_path):
    before = FSDD(str(spoilt)).fingerprint()
    moved = tmp_path / "moved" / fsdd.UNPACKED
    shutil.copytree(spoilt, moved)
    assert FSDD(str(moved.parent)).fingerprint() == before
    record(moved / "recordings" / "4_theo_0.wav")
    after = FSDD(str(moved.parent)).fingerprint()
    assert [before[name] == after[name] for name in ("train", "val", "test")] == [True, True, False]


def test_absent_recordings_and_a_download_from_an_archive(spoilt, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    with pytest.raises(
        FileNotFoundError, match=r"recordings/.*\.wav must be present \(pass download=True"
    ) as caught:
        FSDD(str(empty)).setup()
    assert str(empty) in str(caught.value)
    archive = tmp_path / "master.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (spoilt / "recordings").iterdir():
            file.write(path, f"{fsdd.UNPACKED}/recordings/{path.name}")
    calls = []

    def copy(url, target, hash_prefix=None):
        calls.append(url)
        shutil.copy(archive, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", copy)
    for _ in range(2):
        data = FSDD(str(empty), download=True)
        assert data.fingerprint() == FSDD(str(spoilt)).fingerprint()
    assert calls == [fsdd.URL]


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"time_shift": 0.02}, {720}),
        ({"gain_db": 6.0}, {720}),
        ({"noise": 0.3}, {720}),
        ({"speed": 0.1}, {655, 720, 800}),
        ({"transforms": [Equalizer(6.0)]}, {720}),
        ({"gain_db": 6.0, "transforms": [Speed(0.02)]}, {706, 713, 720, 728, 735}),
    ],
)
def test_changes_touch_training_alone(root, changes, lengths):
    data = FSDD(str(root), **changes)
    train, test = data.sets["train"], data.sets["test"]
    assert train.size(0) == 720
    drawn = [train[0].item for _ in range(30)]
    assert {len(wave) for wave in drawn} == lengths
    assert not all(len(wave) == 720 and torch.equal(wave, train.waves[0] / 32768) for wave in drawn)
    assert all(torch.equal(test[i].item, test.waves[i] / 32768) for i in range(5))


def test_changes_do_what_they_say(root):
    plain = FSDD(str(root)).sets["train"][0].item
    torch.manual_seed(1)
    shifted = FSDD(str(root), time_shift=0.01).sets["train"]
    places = {int(shifted[0].item.eq(0).cumprod(0).sum()) for _ in range(50)}
    assert max(places) > 40
    assert max(places) <= 81
    louder = FSDD(str(root), gain_db=6.0).sets["train"]
    ratios = [float(louder[0].item.norm() / plain.norm()) for _ in range(50)]
    assert 0.5 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 2.0
    noisy = FSDD(str(root), noise=0.3).sets["train"]
    shares = [float((noisy[0].item - plain).norm() / plain.norm()) for _ in range(50)]
    assert 0.2 < max(shares) < 0.33


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"val_takes": 0}, "val_takes must be at least 1: got 0"),
        ({"espeak_clips": -1}, "espeak_clips must not be negative: got -1"),
        ({"val_speaker": "theo"}, "val_speaker must be another than held_out_speaker: got 'theo', None"),
        (
            {"val_speaker": "theo", "held_out_speaker": "theo"},
            "val_speaker must be another than held_out_speaker: got 'theo', 'theo'",
        ),
        ({"sample_rate": 0}, "sample_rate must be at least 1: got 0"),
        ({"speed": 1.0}, r"speed must lie in \[0, 1\): got 1.0"),
        ({"noise": -0.1}, "noise must not be negative: got -0.1"),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(ValueError, match=text):
        FSDD("anywhere", **arguments)
