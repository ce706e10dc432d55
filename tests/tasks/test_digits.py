"""Whole digits among fragments: where they lie, what surrounds them, and what fixes them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tasks.vision.data.digits import SIDE, SPLITS, STANDARD_LEVEL, Digits, canvas_side

pytest.importorskip("sklearn")


def inside(picture, region):
    top, left, bottom, right = region
    return picture[:, top:bottom, left:right]


def test_level_zero_is_the_plain_digit():
    example = Digits(level=0).sets["test"][7]
    assert example.item.shape == (1, SIDE, SIDE)
    assert example.item.dtype == torch.float32
    assert example.relevant == (0, 0, SIDE, SIDE)
    assert example.item.min() == 0
    assert 0.9 < example.item.max() <= 1


@pytest.mark.parametrize("level", [1, 3, STANDARD_LEVEL, 7])
def test_region_holds_the_whole_digit(level):
    plain, scenes = Digits(level=0).sets["test"], Digits(level=level).sets["test"]
    places = set()
    for index in range(0, 500, 17):
        scene, digit = scenes[index], plain[index]
        assert scene.item.shape == (1, canvas_side(level), canvas_side(level))
        assert scene.label == digit.label
        difference = inside(scene.item, scene.relevant) - digit.item
        assert difference.abs().mean() < 0.09
        assert difference.abs().max() < 0.7
        places.add(scene.relevant[:2])
    assert len(places) > 5


def test_distractors_are_pieces_of_other_classes(monkeypatch):
    train = Digits(level=5).sets["train"]
    drawn = []
    other = train.other
    monkeypatch.setattr(
        train, "other", lambda label, rng: drawn.append((label, other(label, rng))) or drawn[-1][1]
    )
    torch.manual_seed(3)
    for index in range(53):
        train[index]
    assert len(drawn) >= 5 * 53
    assert all(train.labels[item] != label for label, item in drawn)
    assert len({train.labels[item] for _, item in drawn}) == 10


def test_fragments_are_as_bright_as_the_target_and_grow_with_level():
    ink = []
    for level in (1, 3, 5):
        scenes = Digits(level=level).sets["test"]
        around, brightest = [], []
        for index in range(0, 500, 13):
            scene = scenes[index]
            rest = scene.item.clone()
            inside(rest, scene.relevant).zero_()
            around.append(float((rest > 0.5).sum()))
            brightest.append(float(rest.max()))
        ink.append(np.mean(around))
        assert np.mean(brightest) > 0.8
    assert ink[0] < ink[1] < ink[2]


def test_test_scenes_are_fixed_and_training_scenes_follow_the_seed():
    first, second = Digits().sets, Digits().sets
    torch.manual_seed(1)
    a, va, ta = first["train"][11], first["val"][11], first["test"][11]
    torch.manual_seed(2)
    b, vb, tb = second["train"][11], second["val"][11], second["test"][11]
    assert not torch.equal(a.item, b.item)
    assert torch.equal(va.item, vb.item)
    assert torch.equal(ta.item, tb.item)
    assert ta.relevant == tb.relevant
    torch.manual_seed(1)
    again = second["train"][11]
    assert torch.equal(a.item, again.item)
    assert a.relevant == again.relevant


def test_mixed_levels_reach_from_plain_to_level():
    sets = Digits(level=3, train_levels="mixed").sets
    sides = {sets["train"][index].item.shape[-1] for index in range(97)}
    assert sides == {canvas_side(level) for level in range(4)}
    assert {sets["test"][index].item.shape[-1] for index in range(31)} == {canvas_side(3)}


def test_sets_are_apart_and_fingerprints_tell_them():
    assert [stop for _, stop in SPLITS.values()][:-1] == [start for start, _ in SPLITS.values()][1:]
    data = Digits()
    prints = data.fingerprint()
    assert len(set(prints.values())) == 4
    assert prints == Digits().fingerprint()
    other = Digits(level=2).fingerprint()
    assert all(prints[name] != other[name] for name in ("train", "val", "test"))
    assert prints["test_plain"] == Digits(level=0).fingerprint()["test"]
    assert {name: len(examples) for name, examples in data.sets.items()} == {
        "train": 1197,
        "val": 100,
        "test": 500,
        "test_plain": 500,
    }
    assert data.sets["test"].size(0) == canvas_side(STANDARD_LEVEL) ** 2


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^level must be at least 0: got -1$"):
        Digits(level=-1)
    with pytest.raises(ValueError, match=r"^train_levels must be 'fixed' or 'mixed': got 'some'$"):
        Digits(train_levels="some")
    with pytest.raises(IndexError, match=r"^index must be from 0 to 499: got 500$"):
        Digits().sets["test"][500]


def test_a_missing_package_names_the_extra(monkeypatch):
    from tasks.vision.data import digits

    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    digits._load.cache_clear()
    with pytest.raises(ImportError, match=r'^Digits needs scikit-learn: pip install "mmattn\[tasks\]"$'):
        Digits().setup()


def test_a_batch_is_stacked_with_its_regions():
    batch = next(iter(Digits(batch_size=13).val_dataloader()))
    assert batch.items.shape == (13, 1, canvas_side(STANDARD_LEVEL), canvas_side(STANDARD_LEVEL))
    assert len(batch.relevant) == 13
    assert all(len(region) == 4 for region in batch.relevant)


def test_composition_is_cheap():
    train = Digits().sets["train"]
    start = time.process_time()
    for index in range(500):
        train[index]
    assert (time.process_time() - start) / 500 < 2e-3  # 0.2 ms where it was measured
