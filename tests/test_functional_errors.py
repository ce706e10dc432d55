"""attend() refuses what does not fit, in one sentence."""

from __future__ import annotations

import pytest
import torch

from mmattn import ALiBi, KeyLengths, Segments, attend

X3, X4 = torch.zeros(5, 6, 11), torch.zeros(2, 6, 5, 11)


@pytest.mark.parametrize(
    ("error", "text", "tensors", "options"),
    [
        (
            ValueError,
            r"q must be \[B, H, N, K\] \(dense; packed needs q_lengths\): got shape \[5, 6, 11\]",
            [X3] * 3,
            {},
        ),
        (
            ValueError,
            r"q must be \[T, H, K\] \(packed\): got shape \[2, 6, 5, 11\]",
            [X4] * 3,
            {"q_lengths": [5]},
        ),
        (
            ValueError,
            r"k and v must have the same shape: got \[2, 6, 5, 11\] and \[2, 6, 3, 11\]",
            [X4, X4, X4[:, :, :3]],
            {},
        ),
        (ValueError, r"same head_dim: got 11 and 7", [X4, X4[..., :7], X4[..., :7]], {}),
        (
            ValueError,
            r"num_kv_heads must divide num_heads: got num_heads=6, num_kv_heads=5",
            [X4, X4[:, :5], X4[:, :5]],
            {},
        ),
        (ValueError, r"q and k must have the same batch size: got 2 and 1", [X4, X4[:1], X4[:1]], {}),
        (
            TypeError,
            r"boolean, True = attend \(numbers are a bias\): got torch.float32",
            [X4] * 3,
            {"mask": torch.ones(5, 5)},
        ),
        (ValueError, r"dropout must lie in \[0, 1\): got 1.0", [X4] * 3, {"dropout": 1.0}),
        (ValueError, r"q_lengths must add up .* got a sum of 7 for 5", [X3] * 3, {"q_lengths": [3, 4]}),
        (ValueError, r"q_lengths must not be negative: got -2", [X3] * 3, {"q_lengths": [7, -2]}),
        (
            ValueError,
            r"k_lengths must add up .* got a sum of 7 for 5",
            [X3] * 3,
            {"q_lengths": [5], "k_lengths": [7]},
        ),
        (
            ValueError,
            r"k must have the 5 tokens of its lengths: got 3",
            [X3, X3[:3], X3[:3]],
            {"q_lengths": [5]},
        ),
        (ValueError, r"equally many: got 1 and 2", [X3] * 3, {"q_lengths": [5], "k_lengths": [2, 3]}),
        (ValueError, r"k_lengths needs q_lengths: got k_lengths alone", [X4] * 3, {"k_lengths": [5, 5]}),
        (
            ValueError,
            r"a packed call takes a Pattern as mask: got a tensor",
            [X3] * 3,
            {"q_lengths": [5], "mask": torch.ones(5, 5) > 0},
        ),
        (
            ValueError,
            r"lengths must be one for each sequence: got 1, asked for 1",
            [X3] * 3,
            {"q_lengths": [2, 3], "mask": KeyLengths((2,))},
        ),
        (
            ValueError,
            r"segments must cover 5 queries and 5 keys: got 4 tokens",
            [X3] * 3,
            {"q_lengths": [5], "mask": Segments(((0, 0, 1, 1),))},
        ),
        (ValueError, r"soft_cap must be above 0: got 0", [X4] * 3, {"soft_cap": 0}),
        (
            ValueError,
            r"sinks must be one for each of 6 heads: got shape \[5\]",
            [X4] * 3,
            {"sinks": torch.zeros(5)},
        ),
        (
            ValueError,
            r"q_coords must be \[N, A\] or \[B, N, A\] with 5 tokens: got shape \[4, 1\]",
            [X4] * 3,
            {"bias": ALiBi(6), "q_coords": torch.zeros(4, 1)},
        ),
        (
            ValueError,
            r"k_coords must be \[T, A\] with 5 tokens: got shape \[5\]",
            [X3] * 3,
            {"q_lengths": [5], "bias": ALiBi(6), "k_coords": torch.zeros(5)},
        ),
        (
            ValueError,
            r"a bias \[H, N, M\] of at least N=5, M=5: got shape \[6, 3, 5\]",
            [X3] * 3,
            {"q_lengths": [5], "bias": torch.zeros(6, 3, 5)},
        ),
    ],
)
def test_errors(error, text, tensors, options):
    with pytest.raises(error, match=text):
        attend(*tensors, **options)
