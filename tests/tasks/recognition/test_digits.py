"""Connected digits: made of one speaker's recordings of one split, the same whenever they are drawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("lightning")

from tasks.speech.recognition.data.digit_sequences import WORDS
from tasks.speech.recognition.data.digits import TEST_SEED, ConnectedDigits
from tasks.speech.recognition.data.transcribed import Draw, drawn_from

QUICK = {"train_sequences": 41, "val_sequences": 11, "test_sequences": 23}


@pytest.fixture(scope="module")
def plain(fsdd):
    return ConnectedDigits(str(fsdd), max_gap=0.1, **QUICK)


def test_sequences_are_recordings_of_one_speaker_and_split_in_the_order_of_the_text(fsdd, plain):
    allowed = {"train": {8, 9}, "val": {5, 6, 7}, "test": {0, 1, 2, 3, 4}}
    for name, takes in allowed.items():
        part = plain.sets[name]
        found = []
        for path in (fsdd / "recordings").glob("*.wav"):
            digit, speaker, take = path.stem.split("_")
            if int(take) in takes:
                found.append((digit, speaker, soundfile.read(path, dtype="float32")[0]))
        heads = np.stack([clip[:64] for _, _, clip in found])
        for index in range(5):
            wave, text = part[index]
            speakers, heard, at = set(), [], 0
            while (
                at < len(wave) - 1360
            ):  # a recording lies where the sequence is the recording and little noise
                near = np.abs(heads - wave[at : at + 64].numpy()).max(1) < 0.02
                fits = [
                    (digit, speaker, len(clip))
                    for digit, speaker, clip in (found[i] for i in np.flatnonzero(near))
                    if np.abs(wave[at : at + len(clip)].numpy() - clip[: len(wave) - at]).max() < 0.02
                ]
                heard += [digit for digit, _, _ in fits]
                speakers |= {speaker for _, speaker, _ in fits}
                at += fits[0][2] if fits else 1
            assert " ".join(heard) == text
            assert len(speakers) == 1


def test_lengths_run_from_three_to_seven_and_speakers_take_turns(plain):
    part = plain.sets["train"]
    counts = [len(part[i].target.split()) for i in range(10)]
    assert counts == [3, 4, 5, 6, 7] * 2
    assert [part.plan(i)[0] for i in (0, 4, 5, 9, 10)] == ["anna", "anna", "theo", "theo", "anna"]


def test_validation_and_test_are_the_same_in_every_run(fsdd, plain):
    other = ConnectedDigits(str(fsdd), max_gap=0.1, noise=0.5, speed=0.1, **QUICK)
    for name in ("val", "test"):
        torch.manual_seed(random.randrange(1000))
        a, b = plain.sets[name][7], other.sets[name][Draw(5, 6, 7)]
        assert torch.equal(a.item, b.item)
        assert a.target == b.target
    assert plain.fingerprint()["test"] == other.fingerprint()["test"] != plain.fingerprint()["val"]
    texts = [plain.sets["test"][i].target for i in range(23)]
    assert len(set(texts)) > 20
    with drawn_from(TEST_SEED, 3):
        assert plain.sets["test"].chosen(3) != plain.sets["val"].chosen(3)


def test_training_sequences_follow_seed_epoch_and_index_alone(fsdd):
    part = ConnectedDigits(str(fsdd), speed=0.1, gain_db=6.0, noise=0.2, **QUICK).sets["train"]
    torch.manual_seed(1)
    first = part[Draw(0, 2, 9)]
    after = torch.rand(3)
    torch.manual_seed(2)
    again = part[Draw(0, 2, 9)]
    assert torch.equal(first.item, again.item)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))  # drawing leaves the generator alone
    others = [part[Draw(1, 2, 9)], part[Draw(0, 3, 9)], part[Draw(0, 2, 14)]]
    assert all(o.item.shape != first.item.shape or not torch.equal(o.item, first.item) for o in others)
    assert len({o.target for o in [first, *others]}) == 4


def test_augmentation_changes_training_alone_and_clip_by_clip(fsdd, plain):
    louder = ConnectedDigits(str(fsdd), max_gap=0.1, gain_db=6.0, **QUICK)
    a, b = plain.sets["train"][3].item, louder.sets["train"][3].item
    assert not torch.equal(a, b)
    faster = ConnectedDigits(str(fsdd), max_gap=0.0, speed=0.5, **QUICK).sets["train"]
    plain_lengths = {len(r.wave) for r in faster.recordings}
    lengths = {len(faster[Draw(0, epoch, 0)].item) for epoch in range(20)}
    assert max(lengths) > 3 * max(plain_lengths) > 3 * min(plain_lengths) > min(lengths)


def test_words_and_digits_say_the_same(fsdd, plain):
    words = ConnectedDigits(str(fsdd), max_gap=0.1, transcript="words", **QUICK)
    for name in ("train", "test"):
        said, written = words.sets[name][5].target, plain.sets[name][5].target
        assert [WORDS[int(digit)] for digit in written.split()] == said.split()
    assert set("".join(plain.training_targets())) == set("0123456789 ")
    assert len(plain.training_targets()) == 42


def test_size_is_what_a_sequence_has_on_average(fsdd):
    part = ConnectedDigits(str(fsdd), **QUICK).sets["train"]
    lengths = [len(part[Draw(0, epoch, 4)].item) for epoch in range(60)]
    assert part.size(4) == pytest.approx(sum(lengths) / len(lengths), rel=0.05)
    assert max(lengths) - min(lengths) > 2000


def test_epochs_differ_and_a_run_that_was_interrupted_goes_on_as_it_would_have(fsdd):
    def batches(epoch, skip=0):
        torch.manual_seed(17)
        data = ConnectedDigits(str(fsdd), batch_size=8, noise=0.1, **QUICK)
        loader = data.train_dataloader()
        torch.rand(skip)  # what else a run drew before
        loader.batch_sampler.sampler.set_epoch(epoch)
        return [batch for batch, _ in zip(loader, range(3), strict=False)]

    one, same, other = batches(4), batches(4, skip=7), batches(5)
    assert [b.targets for b in one] == [b.targets for b in same] != [b.targets for b in other]
    assert all(
        torch.equal(x, y)
        for a, b in zip(one, same, strict=True)
        for x, y in zip(*(a.items, b.items), strict=True)
    )
    torch.manual_seed(18)
    loader = ConnectedDigits(str(fsdd), batch_size=8, **QUICK).train_dataloader()
    assert len(loader) == 6
    assert sorted(draw.example for batch in loader.batch_sampler for draw in batch) == list(range(41))
    assert next(iter(loader)).targets != one[0].targets


def test_bad_arguments_are_refused(fsdd, tmp_path):
    with pytest.raises(ValueError, match=r"^min_digits must lie between 1 and max_digits: got 5 and 4$"):
        ConnectedDigits(str(fsdd), min_digits=5, max_digits=4)
    with pytest.raises(ValueError, match=r"^max_gap must not be negative: got -0.1$"):
        ConnectedDigits(str(fsdd), max_gap=-0.1)
    with pytest.raises(ValueError, match=r"^transcript must be 'digits' or 'words': got 'letters'$"):
        ConnectedDigits(str(fsdd), transcript="letters")
    with pytest.raises(ValueError, match=r"^test_sequences must be at least 1: got 0$"):
        ConnectedDigits(str(fsdd), test_sequences=0)
    with pytest.raises(ValueError, match=r"^speed must lie in \[0, 1\): got 1.5$"):
        ConnectedDigits(str(fsdd), speed=1.5)
    with pytest.raises(
        FileNotFoundError, match=r"recordings/.* must be present \(pass download=True to fetch it\)"
    ):
        ConnectedDigits(str(tmp_path)).setup()
