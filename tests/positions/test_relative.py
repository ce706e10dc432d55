"""Biases from learned tables against T5 and Swin, and at the edges of the tables."""

from __future__ import annotations

import pytest
import torch

from mmattn.positions import GridBias, RelativeBias

H = 3


def line(*places: float) -> torch.Tensor:
    return torch.tensor(places)[:, None]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (10, 23), (4, 3), (32, 1000)])
def test_buckets_of_t5(bidirectional, num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = t5.T5Config(
        d_model=21, num_heads=H, d_kv=7, is_decoder=not bidirectional,
        relative_attention_num_buckets=num_buckets, relative_attention_max_distance=max_distance,
    )  # fmt: skip
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativeBias(H, num_buckets, max_distance, bidirectional)
    ours.load_state_dict({"table": theirs.relative_attention_bias.weight})
    n, m = 7, max_distance + 101
    want = theirs.compute_bias(n, m)[0]
    assert torch.equal(ours(torch.arange(n)[:, None], torch.arange(m)[:, None]), want)
    want = theirs.compute_bias(m, n)[0]
    assert torch.equal(ours(torch.arange(m)[:, None], torch.arange(n)[:, None]), want)
    cached = theirs.compute_bias(n, m, past_seen_tokens=m - n)[0]  # the queries are the tail of the keys
    assert torch.equal(ours(torch.arange(m - n, m)[:, None], torch.arange(m)[:, None]), cached)


def test_all_that_is_far_shares_a_bucket():
    bias = RelativeBias(H, num_buckets=8, max_distance=13)
    out = bias(line(0), line(13, 14, 10**9, -13, -14, -(10**9), 0))[:, 0]
    assert torch.equal(out[:, :3], out[:, :1].expand(H, 3))
    assert torch.equal(out[:, 3:6], out[:, 3:4].expand(H, 3))
    assert len(out[0].unique()) == 3
    one_way = RelativeBias(H, num_buckets=8, max_distance=13, bidirectional=False)
    ahead = one_way(line(0), line(0, 1, 2, 99, -1))[0, 0]
    assert len(ahead[:4].unique()) == 1
    assert ahead[4] != ahead[0]


def test_fractions_are_rounded_to_the_nearest_step():
    bias = RelativeBias(H, num_buckets=32, max_distance=128)
    given = bias(line(0.0), line(2.4, 2.6, -2.4, -2.6, 2.5, 3.5, -2.5, -3.5))
    assert torch.equal(given, bias(line(0), line(2, 3, -2, -3, 2, 4, -2, -4)))
    # the difference is rounded, not each coordinate
    assert torch.equal(bias(line(0.4), line(2.6)), bias(line(0), line(2)))


def grid(h: int, w: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(h), torch.arange(w))


def test_table_of_timms_swin():
    swin = pytest.importorskip("timm.models.swin_transformer")
    h, w = 3, 5
    theirs = swin.WindowAttention(dim=6, num_heads=H, window_size=(h, w))
    ours = GridBias(H, (h, w))
    ours.load_state_dict({"table": theirs.relative_position_bias_table})
    assert torch.equal(ours(grid(h, w), grid(h, w)), theirs._get_rel_pos_bias()[0])


def test_table_of_torchvisions_swin():
    swin = pytest.importorskip("torchvision.models.swin_transformer")
    h, w = 3, 5
    theirs = swin.ShiftedWindowAttention(6, window_size=[h, w], shift_size=[0, 0], num_heads=H)
    ours = GridBias(H, (h, w))
    ours.load_state_dict({"table": theirs.relative_position_bias_table})
    assert torch.equal(ours(grid(h, w), grid(h, w)), theirs.get_relative_position_bias()[0])


@pytest.mark.parametrize("shape", [(5,), (2, 3, 5)])
def test_any_number_of_axes_by_a_plain_loop(shape):
    bias = GridBias(H, shape)
    at = torch.stack([torch.randint(0, size, (7,)) for size in shape], dim=-1)
    out = bias(at, at[:4])
    table = bias.table.view(*(2 * size - 1 for size in shape), H)
    for n in range(7):
        for m in range(4):
            place = tuple(int(at[n, a] - at[m, a]) + size - 1 for a, size in enumerate(shape))
            assert torch.equal(out[:, n, m], table[place])


def test_fractional_offsets_are_rounded():
    bias = GridBias(H, (3, 5))
    q, k = torch.tensor([[0.4, 2.0]]), torch.tensor([[1.8, 0.4]])
    assert torch.equal(bias(q, k), bias(torch.tensor([[0, 2]]), torch.tensor([[1, 0]])))


@pytest.mark.parametrize(
    ("q", "k", "text"),
    [
        ([[3, 0]], [[0, 0]], r"^offsets along axis 0 must lie between -2 and 2: got 3 to 3$"),
        (
            [[0, 0], [0, 4]],
            [[0, 5], [0, 0]],
            r"^offsets along axis 1 must lie between -4 and 4: got -5 to 4$",
        ),
    ],
)
def test_offsets_outside_the_table(q, k, text):
    bias, q, k = GridBias(H, (3, 5)), torch.tensor(q), torch.tensor(k)
    with pytest.raises(ValueError, match=text):
        bias(q, k)
    nearest = (q[:, None] - k[None]).clamp(torch.tensor([-2, -4]), torch.tensor([2, 4]))
    compiled = torch.compile(bias, backend="aot_eager", fullgraph=True)(q, k)
    for n in range(len(q)):
        for m in range(len(k)):
            assert torch.equal(
                compiled[:, n, m], bias(nearest[n, m][None], torch.zeros(1, 2).long())[:, 0, 0]
            )


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (
            r"^num_buckets must be even and at least 4 when bidirectional: got 7$",
            lambda: RelativeBias(H, num_buckets=7),
        ),
        (
            r"^num_buckets must be even and at least 4 when bidirectional: got 2$",
            lambda: RelativeBias(H, num_buckets=2),
        ),
        (
            r"^num_buckets must be at least 2: got 1$",
            lambda: RelativeBias(H, num_buckets=1, bidirectional=False),
        ),
        (
            r"^max_distance must exceed the 8 distances with a bucket each: got 8$",
            lambda: RelativeBias(H, num_buckets=32, max_distance=8),
        ),
        (r"^shape must have at least one axis and sizes of at least 1: got \(\)$", lambda: GridBias(H, ())),
        (r"sizes of at least 1: got \(3, 0\)$", lambda: GridBias(H, (3, 0))),
    ],
)
def test_errors(text, make):
    with pytest.raises(ValueError, match=text):
        make()
