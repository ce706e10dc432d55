"""What the domains add to the shared task: SpecAugment, the sample rate, mixup."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("lightning")
pytest.importorskip("torchaudio")
pytest.importorskip("timm")

from mmattn import AudioFrames, ImagePatches, TokenBatch, build_encoder
from mmattn.training.data import Batch
from tasks.speech.data import SpokenCommands
from tasks.speech.module import KeywordSpotting, SpecAugment
from tasks.vision.module import ImageClassification


def test_spec_augment_zeroes_whole_bands_and_stretches_inside_each_clip():
    frames = TokenBatch(torch.ones(53 + 17, 13), [53, 17])
    augment = SpecAugment(time_masks=1, time_share=0.5, frequency_masks=1, frequency_bands=5)
    seen = set()
    for _ in range(20):
        masked = augment(frames)
        assert masked.sizes == (53, 17)
        for clip in masked.values.split(masked.sizes):
            rows, columns = (clip == 0).all(1), (clip == 0).all(0)
            assert torch.equal(clip == 0, rows[:, None] | columns[None])  # nothing but bands and stretches
            assert columns.sum() <= 5
            assert rows.sum() <= len(clip) // 2
            seen.add((int(rows.sum()), int(columns.sum())))
    assert len(seen) > 10
    assert torch.equal(frames.values, torch.ones(70, 13))  # the input is not touched


def test_spec_augment_is_off_outside_training():
    task = KeywordSpotting(AudioFrames(12, 8000, 20), build_encoder(12, 1, 2), 3, SpecAugment(time_share=1.0))
    waves = [torch.randn(4001), torch.randn(1999)]
    plain = task.adapter(waves).values
    assert not torch.equal(task.train().tokens(waves).values, plain)
    assert torch.equal(task.eval().tokens(waves).values, plain)


def test_another_sample_rate_than_the_adapters_is_refused():
    task = KeywordSpotting(AudioFrames(12, 16_000, 20), build_encoder(12, 1, 2), 10)
    message = "^data and adapter must have the same sample_rate: got 8000 and 16000 samples a second$"
    with pytest.raises(ValueError, match=message):
        task.check_data(SpokenCommands())
    KeywordSpotting(AudioFrames(12, 8000, 20), build_encoder(12, 1, 2), 10).check_data(SpokenCommands())


def vision(**options: float) -> ImageClassification:
    torch.manual_seed(0)
    return ImageClassification(ImagePatches(12, 4), build_encoder(12, 1, 2), 3, **options)


def test_mixup_mixes_pictures_and_targets_without_touching_the_batch():
    batch = Batch(torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2]), [None] * 6)
    before = batch.items.clone()
    plain, mixed = vision(), vision(mixup=0.8, cutmix=1.0)
    expected = F.cross_entropy(plain(batch.items), batch.labels)
    assert torch.equal(plain.loss(batch), expected)
    assert not torch.isclose(mixed.loss(batch), expected)
    assert torch.equal(batch.items, before)


def test_what_cannot_be_mixed_stays_as_it_is():
    mixed = vision(mixup=0.8)
    odd = Batch(torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1]), [None] * 5)
    assert torch.equal(mixed.loss(odd), F.cross_entropy(mixed(odd.items), odd.labels))
    unlike = Batch([torch.rand(3, 8, 8), torch.rand(3, 4, 8)], torch.tensor([0, 1]), [None] * 2)
    assert torch.equal(mixed.loss(unlike), F.cross_entropy(mixed(unlike.items), unlike.labels))
    with pytest.raises(
        ValueError, match=r"^mixup and cutmix must not be negative: got mixup=-1, cutmix=0.0$"
    ):
        vision(mixup=-1)
