"""Packed weights: short, and as exact as is said."""

from __future__ import annotations

import base64
import zlib

import pytest
import torch

from mmattn.explore.packing import packed_weights, weights_from
from tests.explore.made import seeded


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0])
def test_weights_come_back_to_a_510th_of_a_rows_largest(sharpness: float) -> None:
    with seeded():
        weights = (sharpness * torch.randn(3, 40, 70)).softmax(-1)
    found = weights_from(packed_weights(weights), (3, 40, 70))
    error = (found - weights).abs().amax(-1)
    assert bool((error <= weights.amax(-1) / 510 + 1 / 65535).all())


def test_rows_of_zeros_and_ones_are_exact() -> None:
    weights = torch.zeros(1, 3, 4)
    weights[0, 1, 2] = 1.0
    assert torch.equal(weights_from(packed_weights(weights), (1, 3, 4)), weights)


def test_two_hundred_tokens_in_four_layers_of_four_heads_stay_below_a_megabyte() -> None:
    with seeded():
        layers = [(2 * torch.randn(4, 200, 200)).softmax(-1) for _ in range(4)]
    assert sum(len(packed_weights(each)) for each in layers) < 800_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no base64!", "must be deflated bytes in base64"),
        (base64.b64encode(b"plain").decode(), "must be deflated bytes in base64"),
        (base64.b64encode(zlib.compress(b"short")).decode(), "must be of 1 x 2 x 3: got 5 bytes"),
    ],
)
def test_damage_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        weights_from(text, (1, 2, 3))
