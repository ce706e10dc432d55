"""Speech Commands in torchaudio's layout, and clips from folders and manifests."""

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.datasets import SPEECHCOMMANDS

from tasks.speech.data.audiofolder import AudioFolder
from tasks.speech.data.commands import CORE_WORDS, FOLDER, WORDS, SpeechCommands

RNG = np.random.default_rng(11)


def record(path, seconds=0.05, rate=16000, channels=1, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, RNG.uniform(-0.5, 0.5, (int(seconds * rate), channels)), rate, subtype=subtype)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to download fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture
def commands(tmp_path):
    top = tmp_path / FOLDER
    lists = {"validation_list.txt": 1, "testing_list.txt": 2}
    for word in WORDS:
        for take in range(5):
            record(top / word / f"{take:08x}_nohash_0.wav")
    record(top / "_background_noise_" / "tap.wav", 1.0)
    for name, take in lists.items():
        (top / name).write_text("".join(f"{word}/{take:08x}_nohash_0.wav\n" for word in WORDS))
    return tmp_path


def test_speech_commands_has_the_splits_of_torchaudio(commands):
    data = SpeechCommands(str(commands), download=True)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 105, "val": 35, "test": 35}
    assert data.class_names == WORDS
    assert len(WORDS) == 35
    for name, subset in (("train", "training"), ("val", "validation"), ("test", "testing")):
        theirs = SPEECHCOMMANDS(commands, subset=subset)
        expected = sorted(theirs.get_metadata(i)[0].split("/")[-2] for i in range(len(theirs)))
        assert data.sets[name].labels == expected
    digests = [digest for part in data.sets.values() for digest in part.digests]
    assert len(set(digests)) == 175


def test_ten_words_leave_the_others_out(commands):
    # The folder of the clips itself may be given as well.
    data = SpeechCommands(str(commands / FOLDER), num_words=10)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 30, "val": 10, "test": 10}
    assert set(data.class_names) == set(CORE_WORDS)
    test = data.sets["test"]
    wave, _ = soundfile.read(commands / FOLDER / "stop" / "00000002_nohash_0.wav", dtype="float32")
    assert torch.equal(test[data.class_names.index("stop")].item, torch.from_numpy(wave))
    with pytest.raises(ValueError, match=r"num_words must be 35 or 10: got 12"):
        SpeechCommands(str(commands), num_words=12)


def test_speech_commands_names_all_that_is_wrong(commands):
    top = commands / FOLDER
    (top / "bed" / "00000003_nohash_0.wav").write_bytes(b"")
    (top / "cat" / "00000001_nohash_0.wav").unlink()
    record(top / "zebra" / "00000003_nohash_0.wav")
    with (top / "testing_list.txt").open("a") as file:
        file.write("dog/00000001_nohash_0.wav\n")
    with pytest.raises(ValueError, match=r"got 4 that are not") as caught:
        SpeechCommands(str(commands)).setup()
    text = str(caught.value)
    for part in (
        "bed/00000003_nohash_0.wav (the file is empty)",
        "cat/00000001_nohash_0.wav (validation_list.txt lists it and it is absent)",
        "'zebra' is none of the 35 words",
        "dog/00000001_nohash_0.wav (testing_list.txt lists it after validation_list.txt did)",
    ):
        assert part in text


def test_absent_speech_commands(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"validation_list.txt.*\(pass download=True to fetch it\)"):
        SpeechCommands(str(tmp_path)).setup()


@pytest.fixture
def clips(tmp_path):
    root = tmp_path / "clips"
    for i in range(10):
        record(root / "yes" / f"{i}.wav", 0.05, 8000)
        record(root / "no" / f"{i}.flac", 0.05, 22050, channels=2)
    return root


def test_audio_folder_is_split_mixed_down_and_resampled(clips):
    data = AudioFolder(str(clips), sample_rate=8000, val_fraction=0.1, test_fraction=0.2)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 14, "val": 2, "test": 4}
    assert data.class_names == ("no", "yes")
    digests = [digest for part in data.sets.values() for digest in part.digests]
    assert len(set(digests)) == 20
    for part in data.sets.values():
        for i in range(len(part)):
            assert part[i].item.shape == (part.size(i),)
            assert part[i].item.dtype == torch.float32
            assert part.size(i) == 400


def test_hidden_files_are_no_clips(clips):
    folder = next(path for path in sorted(clips.iterdir()) if path.is_dir())
    before = {name: len(part) for name, part in AudioFolder(str(clips)).sets.items()}
    (folder / "._0.wav").write_bytes(b"left by a file browser")
    assert {name: len(part) for name, part in AudioFolder(str(clips)).sets.items()} == before


def test_resampling_keeps_a_tone(tmp_path):
    for label in ("a", "b"):
        for i in range(4):
            time = np.arange(22050) / 22050
            path = tmp_path / label / f"{i}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time), 22050, subtype="FLOAT")
    wave = AudioFolder(str(tmp_path), sample_rate=8000).sets["train"][0].item
    assert len(wave) == 8000
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)
    assert (wave - expected)[200:-200].abs().max() < 5e-3


def test_manifest_with_split_column(clips, tmp_path):
    rows = ["label,path,split"]
    rows += [f"loud,yes/{i}.wav,{'train' if i < 6 else 'test'}" for i in range(10)]
    rows += [f"soft,no/{i}.flac," for i in range(10)]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(rows))
    data = AudioFolder(str(clips), str(manifest), val_fraction=0.25, sample_rate=8000)
    assert data.class_names == ("loud", "soft")
    counts = {name: [part.labels.count(c) for c in ("loud", "soft")] for name, part in data.sets.items()}
    assert counts == {"train": [4, 8], "val": [2, 2], "test": [4, 0]}


def test_manifest_errors_name_every_row_and_file(clips, tmp_path):
    manifest = tmp_path / "list.csv"
    rows = [f"yes/{i}.wav,yes,train" for i in range(8)]
    rows += ["yes/absent.wav,yes,train", "yes/8.wav,,train", "yes/9.wav,yes,dev", "no/1.flac,no,test"]
    manifest.write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(ValueError, match=r"got 4 that are not") as caught:
        AudioFolder(str(clips), str(manifest)).setup()
    text = str(caught.value)
    for part in (
        "absent.wav (",
        "list.csv line 11 (lacks its path or label)",
        "list.csv line 12 (split 'dev' is none of train, val, test)",
        "no/1.flac (label 'no' of the test split does not occur in train)",
    ):
        assert part in text
    manifest.write_text("file,label\nx,y")
    with pytest.raises(ValueError, match=r"must have the columns path and label: got file, label"):
        AudioFolder(str(clips), str(manifest)).setup()
    with pytest.raises(FileNotFoundError, match=r"a CSV manifest"):
        AudioFolder(str(clips), str(tmp_path / "none.csv")).setup()


def test_audio_folder_with_split_folders(tmp_path):
    for split, count in (("train", 10), ("val", 3), ("test", 2)):
        for label in ("a", "b"):
            for i in range(count):
                record(tmp_path / split / label / f"{i}.wav")
    data = AudioFolder(str(tmp_path))
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 20, "val": 6, "test": 4}


def test_clips_that_are_not_finite_are_refused(clips):
    soundfile.write(clips / "yes" / "nan.wav", np.array([0.1, np.nan, 0.2]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan.wav \(holds samples that are not finite\)"):
        AudioFolder(str(clips)).setup()
    with pytest.raises(FileNotFoundError, match=r"clips as .* must be present: got"):
        AudioFolder(str(clips / "nowhere")).setup()


def test_batches_of_waves_stay_lists(clips):
    data = AudioFolder(str(clips), batch_size=5, sample_rate=8000)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch.items, list)
    assert len(batch.items) == 5
    assert batch.labels.dtype == torch.int64
