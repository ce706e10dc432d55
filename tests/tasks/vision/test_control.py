"""The linear control of pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("lightning")

from mmattn.training.data import Example, ExampleSet
from tasks.vision.control import hog, linear_control, scores


class Made(ExampleSet):
    """Pictures of two classes; what tells them apart is handed in."""

    class_names = ("flat", "upright")

    def __init__(self, count, seed, picture):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 2, count).tolist()
        self.items = [torch.from_numpy(picture(label, rng)).float() for label in self.labels]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return Example(self.items[index], self.labels[index])

    def size(self, index):
        return self.items[index][0].numel()

    def fingerprint(self):
        return ""


def brightness(label, rng):
    return rng.normal(label * 0.5, 0.5, (3, 8, 12))


def stripes(label, rng):
    """Stripes at any offset and of either sign: no pixel alone says anything."""
    place = np.indices((12, 12))[label] + rng.uniform(0, 6)
    return np.sin(place * math.pi / 3)[None].repeat(3, 0) * rng.choice([-1, 1])


def sets(picture):
    return {name: Made(count, seed, picture) for seed, (name, count) in
            enumerate({"train": 300, "val": 80, "test": 200}.items())}  # fmt: skip


def test_pixels_tell_brightness():
    found = scores(sets(brightness), "pixels")
    assert found["test"] > 0.9
    assert found["C"] in (1e-5, 1e-4, 1e-3, 1e-2)


def test_directions_need_histograms():
    made = sets(stripes)
    pixels, directions = (scores(made, kind) for kind in ("pixels", "hog"))
    assert directions["test"] > 0.98
    assert pixels["test"] < 0.75


def test_it_is_deterministic_and_learns_nothing_from_shuffled_labels():
    made = sets(brightness)
    assert scores(made, "pixels") == scores(made, "pixels")
    rng = np.random.default_rng(9)
    for part in made.values():
        rng.shuffle(part.labels)
    assert abs(scores(made, "pixels")["test"] - 0.5) < 0.12


def test_hog_of_a_ramp_has_one_direction():
    down, across = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing="ij")
    for angle, wanted in ((0.0, 0), (math.pi / 3, 3), (2 * math.pi / 3, 6)):
        ramp = (math.cos(angle) * across + math.sin(angle) * down).expand(1, 3, -1, -1)
        cells = hog(ramp).view(4, 9, 3, 2)  # four cells of a block, directions, blocks
        assert cells.shape == (4, 9, 3, 2)
        inner = cells[:, :, 1, 0].sum(0)
        assert int(inner.argmax()) == wanted
        torch.testing.assert_close(hog(-ramp), hog(ramp), atol=1e-4, rtol=1e-4)  # directions have no sign
        torch.testing.assert_close(
            cells.flatten(0, 1).square().sum(0), torch.ones(3, 2), atol=1e-3, rtol=1e-3
        )


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="features must be 'pixels' or 'hog': got 'sift'"):
        scores(sets(brightness), "sift")
    with pytest.raises(ValueError, match=r"sides of at least 8: got \[7, 12\]"):
        hog(torch.zeros(1, 3, 7, 12))


def test_a_data_module_gives_one_figure_and_augmentation_is_left_out():
    made = sets(brightness)

    class Augmented(Made):
        augment = "something"

        def __getitem__(self, index):
            assert self.augment is None, "the training set is augmented"
            return super().__getitem__(index)

    made["train"].__class__ = Augmented

    class Data:
        sets = made

    assert linear_control(Data(), "pixels") == scores(made, "pixels")["test"]
    assert made["train"].augment == "something"
