"""LibriSpeech and lists of one's own: what they read, and all that is wrong said at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("lightning")

from tasks.speech.recognition.data.files import Entry, locate
from tasks.speech.recognition.data.librispeech import LibriSpeech
from tasks.speech.recognition.data.manifest import Manifest

RATE = 8000


def json_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def nemo(clips, count=7, **changes):
    rows = [
        {"audio_filepath": f"clips/{i}.{'flac' if i == 6 else 'wav'}", "text": f"Clip {i}"}
        for i in range(count)
    ]
    for index, change in changes.items():
        rows[int(index[1:])].update(change)
    return json_lines(clips / "list.jsonl", rows)


def texts(data):
    return {name: sorted(part.texts()) for name, part in data.sets.items()}


def test_nemo_lists_with_offsets_and_durations(clips):
    path = nemo(clips, _2={"offset": 0.1, "duration": 0.25})
    data = Manifest(path, sample_rate=RATE, val_fraction=0.2, test_fraction=0.3)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 4, "val": 1, "test": 2}
    assert sorted(text for part in texts(data).values() for text in part) == [f"clip {i}" for i in range(7)]
    items = {
        pair.target: pair.item
        for part in data.sets.values()
        for pair in map(part.__getitem__, range(len(part)))
    }
    whole, _ = soundfile.read(clips / "clips" / "2.wav", dtype="float32")
    assert torch.equal(items["clip 2"], torch.from_numpy(whole[800:2800]))
    stereo, _ = soundfile.read(clips / "clips" / "6.flac", dtype="float32")
    assert len(items["clip 6"]) == 8000
    assert float(items["clip 6"].square().mean()) < float((stereo**2).mean())  # channels were averaged
    for part in data.sets.values():
        assert [len(part[i].item) for i in range(len(part))] == [part.size(i) for i in range(len(part))]


def test_csv_with_splits_and_a_list_for_each_set(clips):
    rows = ["text,path,split", *(f"Ä {i},{i}.wav,{'val' if i == 3 else ''}" for i in range(5))]
    (clips / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    tests = json_lines(clips / "test.json", [{"audio_filepath": "5.wav", "text": "Five", "duration": 0.4}])
    root = str(clips / "clips")
    data = Manifest(str(clips / "list.csv"), test=tests, root=root, sample_rate=RATE, lowercase=False)
    assert texts(data) == {"train": ["Ä 0", "Ä 1", "Ä 2", "Ä 4"], "val": ["Ä 3"], "test": ["Five"]}
    assert data.sets["test"].size(0) == 3200


def test_a_folder_as_kaldi_and_espnet_have_it(clips):
    folder = clips / "data" / "train"
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text("".join(f"utt{i}\t../../clips/{i}.wav\n" for i in range(6)))
    (folder / "text").write_text("".join(f"utt{i} words of {i}\n" for i in range(6)))
    data = Manifest(str(folder), sample_rate=RATE, val_fraction=0.2, test_fraction=0.2)
    assert sorted(text for part in texts(data).values() for text in part) == [
        f"words of {i}" for i in range(6)
    ]
    (folder / "text").write_text("a the first half\nb the rest\nc all of it\n")
    (folder / "segments").write_text("a utt1 0.0 0.25\nb utt1 0.25 0.6\nc utt2 0 -1\n")
    data = Manifest(str(folder), sample_rate=RATE, val_fraction=0.4, test_fraction=0.4)
    sizes = {said.text: said.samples for part in data.sets.values() for said in part.spoken()}
    assert sizes == {"the first half": 2000, "the rest": 2800, "all of it": 5600}


def test_everything_wrong_is_named_before_training(clips):
    (clips / "clips" / "empty.wav").write_bytes(b"")
    (clips / "clips" / "text.wav").write_text("no sound at all")
    cut = (clips / "clips" / "5.wav").read_bytes()
    (clips / "clips" / "5.wav").write_bytes(cut[:4000])
    rows = [
        {"audio_filepath": "clips/0.wav", "text": "  "},
        {"audio_filepath": "clips/none.wav", "text": "a"},
        {"audio_filepath": "clips/empty.wav", "text": "b"},
        {"audio_filepath": "clips/text.wav", "text": "c"},
        {"audio_filepath": "clips/5.wav", "text": "d"},
        {"audio_filepath": "clips/1.wav", "text": "e", "offset": 9.0},
        {"audio_filepath": "clips/1.wav", "text": "f", "duration": 3.0},
        {"audio_filepath": "clips/1.wav"},
        {"audio_filepath": "clips/1.wav", "text": "fine"},
    ]
    path = json_lines(clips / "list.jsonl", rows)
    with (clips / "list.jsonl").open("a") as file:
        file.write("{not json\n")
    with pytest.raises(
        ValueError, match=r"^every clip must be readable and have a transcript: got 9 "
    ) as caught:
        Manifest(path, sample_rate=RATE).setup()
    for part in (
        "list.jsonl line 1: clips/0.wav (its transcript is empty)",
        "line 2: clips/none.wav (No such file",
        "line 3: clips/empty.wav (the file is empty)",
        "line 4: clips/text.wav (",
        "line 5: clips/5.wav (holds 4000 of 16044 bytes)",
        "line 6: clips/1.wav (offset 9.0 s lies outside its 0.60 s)",
        "line 7: clips/1.wav (duration 3.0 s does not fit into its 0.60 s)",
        "list.jsonl line 8 (lacks 'text')",
        "list.jsonl line 10 (is not as expected: ",
    ):
        assert part in str(caught.value)


def test_kaldi_and_csv_lines_that_are_wrong(clips):
    (clips / "wav.scp").write_text("a sph2pipe a.sph |\nb clips/1.wav\nc clips/2.wav\n")
    (clips / "text").write_text("a one\nb two\nd three\n")
    with pytest.raises(ValueError, match=r"got 3 that are not") as caught:
        Manifest(str(clips), sample_rate=RATE).setup()
    for part in (
        "/a (is a command, and commands are not run)",
        "/c (lacks its transcript)",
        "/d (lacks its sound)",
    ):
        assert part in str(caught.value)
    (clips / "list.csv").write_text("path,text,split\nclips/1.wav,one,dev\n,two,train\nclips/2.wav\n")
    with pytest.raises(ValueError, match=r"got 3 that are not") as caught:
        Manifest(str(clips / "list.csv"), sample_rate=RATE).setup()
    for part in (
        "line 2 (split 'dev' is none of train, val, test)",
        "line 3 (lacks its path)",
        "line 4: clips/2.wav (its transcript is empty)",
    ):
        assert part in str(caught.value)
    (clips / "list.csv").write_text("file,words\nx,y\n")
    with pytest.raises(
        ValueError, match=r"^a CSV list must have the columns path and text: got file, words$"
    ):
        Manifest(str(clips / "list.csv")).setup()
    with pytest.raises(FileNotFoundError, match=r"must be present: got .*none.jsonl"):
        Manifest(str(clips / "none.jsonl")).setup()
    (clips / "list.txt").write_text("")
    with pytest.raises(ValueError, match=r"^a list must be a .json"):
        Manifest(str(clips / "list.txt")).setup()


def test_long_clips_are_left_out_of_training_alone(clips):
    path = nemo(clips)
    data = Manifest(path, val=path, sample_rate=RATE, max_seconds=0.75, test_fraction=0.2)
    assert max(data.sets["train"].size(i) for i in range(len(data.sets["train"]))) <= 6000
    assert max(data.sets["val"].size(i) for i in range(7)) == 8000
    with pytest.raises(ValueError, match=r"^max_seconds must leave something to train on: got 0.1$"):
        Manifest(path, sample_rate=RATE, max_seconds=0.1).setup()


def test_fingerprints_follow_content_and_not_places(clips, tmp_path_factory):
    def fingerprint(top):
        return Manifest(nemo(top), sample_rate=RATE).fingerprint()

    first = fingerprint(clips)
    other = tmp_path_factory.mktemp("other")
    (clips / "clips").rename(other / "clips")
    assert fingerprint(other) == first
    nemo(other, _1={"text": "changed"})
    assert Manifest(str(other / "list.jsonl"), sample_rate=RATE).fingerprint() != first


def test_locate_takes_a_duration_that_was_rounded(clips):
    span = locate(Entry(clips / "clips" / "0.wav", "a", 0.25, 0.255))
    assert (span.start, span.length, span.rate) == (2000, 2000, RATE)


@pytest.fixture
def librispeech(tmp_path):
    rng = np.random.default_rng(8)
    for subset, speakers in (("train-clean-100", 3), ("dev-clean", 1), ("test-clean", 1), ("test-other", 1)):
        for speaker in range(speakers):
            folder = tmp_path / "LibriSpeech" / subset / f"{speaker}1" / "77"
            folder.mkdir(parents=True)
            lines = []
            for i in range(2):
                name = f"{speaker}1-77-000{i}"
                soundfile.write(folder / f"{name}.flac", rng.uniform(-0.1, 0.1, 5000 + 100 * i), 16000)
                lines.append(f"{name} WORDS {speaker} OF {subset.upper()} {i}\n")
            (folder / f"{speaker}1-77.trans.txt").write_text("".join(lines))
    return tmp_path


def test_librispeech_reads_what_torchaudio_reads(librispeech):
    from torchaudio.datasets import LIBRISPEECH

    data = LibriSpeech(str(librispeech), test=("test-clean", "test-other"))
    assert {name: len(part) for name, part in data.sets.items()} == {
        "train": 6, "val": 2, "test": 2, "test_test_other": 2
    }  # fmt: skip
    assert data.test_names == ("test", "test_test_other")
    theirs = LIBRISPEECH(librispeech, url="train-clean-100")
    for index in range(6):
        path, rate, text, *_ = theirs.get_metadata(index)
        wave, target = data.sets["train"][index]
        expected, _ = soundfile.read(librispeech / "LibriSpeech" / path, dtype="float32")
        assert torch.equal(wave, torch.from_numpy(expected))
        assert (rate, text.lower()) == (16000, target)


def test_librispeech_names_all_that_is_wrong(librispeech):
    top = librispeech / "LibriSpeech" / "train-clean-100"
    (top / "01" / "77" / "01-77-0000.flac").write_bytes(b"fLaC nothing")
    (top / "11" / "77" / "11-77-0001.flac").unlink()
    (top / "21" / "77" / "21-77.trans.txt").write_text("21-77-0000 ONE\n21-77-0001 \n")
    with pytest.raises(ValueError, match=r"got 3 that are not") as caught:
        LibriSpeech(str(librispeech)).setup()
    for part in (
        "train-clean-100/01-77-0000 (",
        "train-clean-100/11-77-0001 (lacks its clip)",
        "train-clean-100/21-77-0001 (its transcript is empty)",
    ):
        assert part in str(caught.value)


def test_librispeech_is_fetched_only_when_allowed(librispeech, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"dev-other.* must be present \(pass download=True to fetch it\)"
    ):
        LibriSpeech(str(librispeech), val=("dev-other",)).setup()
    from torchaudio.datasets import librispeech as theirs

    def fail(root, url):
        raise OSError(f"no way to {url}")

    monkeypatch.setattr(theirs, "_download_librispeech", fail)
    with pytest.raises(
        RuntimeError, match=r"^a download must succeed before training: got no way to dev-other"
    ):
        LibriSpeech(str(librispeech), val=("dev-other",), download=True).setup()
    with pytest.raises(ValueError, match=r"^a subset must be one of dev-clean.*: got train-other$"):
        LibriSpeech(str(librispeech), train=("train-other",))
    with pytest.raises(ValueError, match=r"^every set must have subsets of its own"):
        LibriSpeech(str(librispeech), val=("test-clean",))
