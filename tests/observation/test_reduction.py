"""Many batches in the memory of one example."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, MultiHeadAttention, TokenBatch
from mmattn.observation import observe

FIELDS = ("entropy", "received", "distance", "sink_mass", "max_logit")
H = 3


@pytest.fixture
def attention() -> MultiHeadAttention:
    return MultiHeadAttention(12, H)


def batches() -> list[torch.Tensor]:
    return [torch.randn(b, 7, 12) for b in (4, 1, 5)]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_reduced_is_what_one_batch_of_all_gives(attention, reduce, weights):
    data = batches()
    with observe(attention, reduce=reduce, weights=weights) as record:
        for x in data:
            attention(x, mask=Causal())
    with observe(attention, weights=True) as together:
        attention(torch.cat(data), mask=Causal())
    seen, whole = record[""], together[""]
    assert (seen.reduced.num_calls, seen.reduced.examples) == (3, 10)
    assert seen.heads == (0, 1, 2)
    for field in FIELDS:
        expected = getattr(getattr(whole, field).double(), reduce)(0).float()
        assert getattr(seen, field).shape == (H, 7)
        torch.testing.assert_close(getattr(seen, field), expected)
        of_head = getattr(getattr(whole, field).double(), reduce)((0, 2)).float()
        torch.testing.assert_close(getattr(seen.per_head, field), of_head)
    if weights:
        torch.testing.assert_close(seen.weights, getattr(whole.weights, reduce)(0))
    else:
        with pytest.raises(AttributeError, match=r"^weights must be asked for by"):
            _ = seen.weights


def test_queries_that_see_nothing_do_not_count(attention):
    mask = torch.rand(4, 1, 7, 7) > 0.3
    mask[0, :, 2] = mask[3, :, 2] = mask[:, :, 5] = False
    x = torch.randn(4, 7, 12)
    with observe(attention, reduce="mean") as record:
        attention(x, mask=mask)
    with observe(attention) as whole:
        attention(x, mask=mask)
    for field in ("entropy", "distance", "sink_mass", "max_logit"):
        every, found = getattr(whole[""], field), getattr(record[""], field)
        torch.testing.assert_close(found[:, 2], every[[1, 2], :, 2].mean(0))
        assert not found[:, 5].any()
        live = mask.any(-1).expand(4, H, 7)
        expected = torch.stack([every[:, h][live[:, h]].mean() for h in range(H)])
        torch.testing.assert_close(getattr(record[""].per_head, field), expected)


def test_changing_lengths_are_reduced_per_head(attention):
    data = [torch.randn(n, 12) for n in (7, 0, 3, 5, 7)]
    with observe(attention, reduce="mean", weights=True) as record:
        attention(TokenBatch.from_sequences(data[:3]))
        attention(TokenBatch.from_sequences(data[3:]))
    entropies, received = [], []
    for x in data:
        with observe(attention) as alone:
            attention(x[None])
        entropies.append(alone[""].entropy[0])
        received.append(alone[""].received[0])
    torch.testing.assert_close(record[""].per_head.entropy, torch.cat(entropies, 1).mean(1))
    torch.testing.assert_close(record[""].per_head.received, torch.cat(received, 1).mean(1))
    for field in (*FIELDS, "weights"):
        with pytest.raises(
            AttributeError,
            match=rf"^{field} of several sequences needs equal lengths \[N, M\], take per_head: "
            r"got \[3, 3\] after \[7, 7\] in ''$",
        ):
            getattr(record[""], field)
    assert set(record[""].numpy()) == {f"per_head.{field}" for field in FIELDS}


def test_what_is_of_one_call_is_refused(attention):
    with observe(attention, reduce="mean") as record:
        attention(torch.randn(2, 5, 12))
    for field in ("q_lengths", "k_lengths", "explanation"):
        with pytest.raises(
            AttributeError, match=f"^{field} is that of one call, observe without reduce: got ''$"
        ):
            getattr(record[""], field)
    with pytest.raises(AttributeError, match="'Reduced' object has no attribute 'wrong'"):
        _ = record[""].reduced.wrong


def test_memory_does_not_grow_with_the_data(attention):
    room = 8 * H * (5 * 7 + 7 + 8 + 7 * 7)
    with observe(attention, reduce="mean", weights=True, max_bytes=room) as record:
        for _ in range(5):
            attention(torch.randn(11, 7, 12))
    assert record[""].weights.shape == (H, 7, 7)
    held = [*record[""].reduced._tokens.values(), *record[""].reduced._heads.values()]
    held.append(record[""].reduced._weights)
    assert sum(x.numel() * x.element_size() for x in held) <= room
    with pytest.raises(MemoryError), observe(attention, reduce="mean", weights=True, max_bytes=room - 1):
        attention(torch.randn(11, 7, 12))


def test_long_sums_keep_their_digits(attention):
    x = torch.randn(1, 7, 12)
    with observe(attention, weights=True) as one:
        attention(x)
    with observe(attention, reduce="mean", weights=True) as record:
        for _ in range(300):
            attention(x)
    torch.testing.assert_close(record[""].weights, one[""].weights[0], rtol=0, atol=2e-7)
    torch.testing.assert_close(record[""].entropy, one[""].entropy[0], rtol=0, atol=1e-6)
