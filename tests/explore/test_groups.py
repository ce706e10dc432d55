"""Tokens shown as one, against sums by hand."""

from __future__ import annotations

import pytest
import torch

from mmattn.explore.groups import columns_in_groups, grouped, in_groups, joined
from mmattn.explore.shown import readable, visible
from mmattn.explore.titles import layer_titles
from tests.explore.made import seeded


def test_rows_are_means_and_columns_sums() -> None:
    with seeded():
        weights = torch.rand(1, 2, 4, 4).softmax(-1)
    groups, order = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 0, 3, 1])  # token i stands in place order[i]
    found = in_groups(weights, order, order, groups)
    for head in range(2):
        for q, asking in enumerate(([2, 0], [3, 1])):
            for k, asked in enumerate(([2, 0], [3, 1])):
                by_hand = sum(float(weights[0, head, i, j]) for i in asking for j in asked) / 2
                assert float(found[head, q, k]) == pytest.approx(by_hand, abs=1e-6)
    assert torch.allclose(found.sum(-1), torch.ones(2, 2))


def test_windows_do_not_see_one_another_and_merged_tokens_share() -> None:
    weights = torch.tensor(
        [[[[0.25, 0.75], [0.5, 0.5]]], [[[1.0, 0.0], [0.0, 1.0]]]]
    )  # [2 windows, 1 head, 2, 2]
    places = torch.tensor([0, 0, 1, 2, 3])  # tokens 0 and 1 were merged
    found = in_groups(weights, places, places, torch.arange(5))[0]
    row = [0.125, 0.125, 0.75, 0, 0]
    assert torch.allclose(
        found, torch.tensor([row, row, [0.25, 0.25, 0.5, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    )


def test_a_pools_columns() -> None:
    weights = torch.tensor([[[[0.1, 0.2, 0.7]]]])
    found = columns_in_groups(weights, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 0]))
    assert torch.allclose(found, torch.tensor([[[0.8, 0.2]]]))


def test_parts_of_a_character_are_one() -> None:
    groups, notes = grouped("text", ["caf", "é", "", "!"], [[], [], [], []], 512)
    assert groups.tolist() == [0, 1, 1, 2]
    assert notes == ["Tokens that are parts of one character are shown as one."]


def test_too_many_tokens_are_taken_together() -> None:
    groups, notes = grouped("speech", ["x"] * 10, [[i, i + 1] for i in range(10)], 4)
    assert groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert notes == ["10 tokens are more than 4: 3 neighbours are shown as one."]
    assert joined([[i, i + 1] for i in range(10)], groups) == [[0, 3], [3, 6], [6, 9], [9, 10]]


def test_blocks_of_patches_leave_the_class_token_alone() -> None:
    boxes = [[4 * r, 4 * c, 4 * r + 4, 4 * c + 4] for r in range(4) for c in range(5)]
    groups, notes = grouped("vision", ["x"] * 21, [[], *boxes], 9)
    assert groups[0] == 0
    assert groups[1:].view(4, 5).tolist() == [
        [1, 1, 2, 2, 3],
        [1, 1, 2, 2, 3],
        [4, 4, 5, 5, 6],
        [4, 4, 5, 5, 6],
    ]
    assert notes == ["21 tokens are more than 9: blocks of 2 × 2 are shown as one."]
    assert joined([[], *boxes], groups)[:3] == [[], [0, 0, 8, 8], [0, 8, 8, 16]]


def test_titles_are_a_readers_words() -> None:
    swin = [f"layers.{i}.blocks.{j}.attn" for i in range(2) for j in range(2)]
    assert layer_titles(swin, [False] * 4) == ["block 1", "block 2", "block 3", "block 4"]
    mixed = ["encoder.0.self_attn", "decoder.0.self_attn", "decoder.0.cross_attn"]
    assert layer_titles(mixed, [False, False, True]) == ["encoder block 1", "decoder block 1", "pooling"]


def test_what_has_no_shape_gets_one() -> None:
    assert visible("a\n\u202eb\x00\ud83d") == "a↵⟨202E⟩b⟨00⟩⟨D83D⟩"
    assert readable(["Ġwarm", "th", "Ġ"]) == [" warm", "th", " Ġ"]
