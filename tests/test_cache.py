"""Cached attention gives what attention over all tokens gives, however the tokens are cut into steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmattn import (
    ALiBi,
    Causal,
    HeadGate,
    KVCache,
    MultiHeadAttention,
    RelativeBias,
    RotaryPositions,
    TokenBatch,
    Window,
)

B, N, H, H_KV, K, D = 3, 23, 6, 3, 10, 30

VARIANTS = {
    "plain": {},
    "grouped": {"num_kv_heads": H_KV},
    "multi-query": {"num_kv_heads": 1},
    "rotary": {"positions": RotaryPositions()},
    "rotary, grouped": {"positions": RotaryPositions(), "num_kv_heads": H_KV},
    "ALiBi": {"position_bias": ALiBi(H)},
    "relative, grouped": {"position_bias": RelativeBias(H, 8, 20), "num_kv_heads": H_KV},
    "normed, rotary": {"qk_norm": nn.RMSNorm(K), "positions": RotaryPositions()},
    "sinks, grouped": {"sinks": True, "num_kv_heads": H_KV},
    "gate": {"gate": HeadGate(D, H)},
    "soft cap": {"soft_cap": 0.7},
    "math": {"backend": "math", "num_kv_heads": H_KV},
    "sdpa": {"backend": "sdpa", "num_kv_heads": H_KV},
}
CACHES = {"growing": {}, "static": {"capacity": N}}
cuts = st.lists(st.integers(1, 9), min_size=1, max_size=N)


def make(**options) -> MultiHeadAttention:
    torch.manual_seed(1)
    attention = MultiHeadAttention(D, H, **({"head_dim": K} | options))
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.2)
    return attention.requires_grad_(False)


def decode(attention: MultiHeadAttention, x: torch.Tensor, cache: KVCache, steps, mask) -> torch.Tensor:
    """What attention gives for ``x [B, N, D]`` in steps of so many tokens, over and over until all are through."""
    outs, begin = [], 0
    while begin < x.shape[1]:
        for step in steps:
            chunk = x[:, begin : begin + step]
            if chunk.shape[1]:
                outs.append(attention(chunk, mask=mask, cache=cache))
            begin += step
    return torch.cat(outs, 1)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [[1], [4], [N], [7, 1, 1, 5]], ids=str)
@pytest.mark.parametrize("limits", CACHES.values(), ids=CACHES.keys())
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_steps_are_the_whole(options, limits, steps):
    attention, x, cache = make(**options), torch.randn(B, N, D), KVCache(**limits)
    assert_close(decode(attention, x, cache, steps, Causal()), attention(x, mask=Causal()))
    assert cache.length == N


@pytest.mark.parametrize("steps", [[1], [4], [N], [7, 1, 1, 5]], ids=str)
@pytest.mark.parametrize("window", [1, 5, N + 1])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_windowed_cache_is_a_sliding_window(options, window, steps):
    attention, x = make(**options), torch.randn(B, N, D)
    mask = Causal() & Window(window - 1, 0)
    assert_close(decode(attention, x, KVCache(window=window), steps, mask), attention(x, mask=mask))


@given(cuts=cuts, window=st.none() | st.integers(1, N), grouped=st.booleans())
def test_any_cut_is_the_whole(cuts, window, grouped):
    attention = make(positions=RotaryPositions(), position_bias=ALiBi(H), num_kv_heads=H_KV if grouped else H)
    x = torch.randn(B, N, D)
    mask = Causal() if window is None else Causal() & Window(window - 1, 0)
    assert_close(decode(attention, x, KVCache(window=window), cuts, mask), attention(x, mask=mask))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_single_token_needs_no_mask(options):
    attention, x = make(**options), torch.randn(B, N, D)
    assert_close(decode(attention, x, KVCache(), [1], None), attention(x, mask=Causal()))
    mask = Causal() & Window(4, 0)
    assert_close(decode(attention, x, KVCache(window=5), [1], None), attention(x, mask=mask))


def test_several_tokens_without_a_mask_see_each_other():
    attention, x, cache = make(), torch.randn(B, N, D), KVCache()
    found = decode(attention, x, cache, [7, N - 7], None)
    assert_close(found[:, :7], attention(x[:, :7]))
    assert_close(found[:, 7:], attention(x[:, 7:], x))


def numbered(begin: int, count: int) -> torch.Tensor:
    """Keys ``[2, count, 3, 5]`` that hold their place, and the number of their sequence and head."""
    places = torch.arange(begin, begin + count).float()[None, :, None, None]
    rows, heads = torch.arange(2)[:, None, None, None] * 1000, torch.arange(3)[:, None] * 100
    return (places + rows + heads).expand(2, count, 3, 5)


@given(cuts=cuts, window=st.none() | st.integers(1, 11))
def test_what_is_kept(cuts, window):
    cache, begin = KVCache(window=window), 0
    for count in cuts:
        k, v = cache.append(numbered(begin, count), -numbered(begin, count))
        first = 0 if window is None else max(0, begin - window + 1)
        begin += count
        assert torch.equal(k, numbered(first, begin - first))
        assert torch.equal(v, -k)
    assert cache.length == begin


def room(cache: KVCache) -> int:
    """Tokens that the memory behind a cache has room for, each of 2 sequences, 3 heads and width 5."""
    k, _ = cache.append(numbered(0, 1), numbered(0, 1))
    return k.untyped_storage().nbytes() // (2 * 3 * 5 * 4)


def moves(cache: KVCache, steps: int, size: int) -> tuple[int, int]:
    """How often the keys moved to other memory in so many steps, and how many tokens were copied then."""
    where, times, copied = None, 0, 0
    for step in range(steps):
        k, _ = cache.append(numbered(step * size, size), numbered(step * size, size))
        now = k.untyped_storage().data_ptr()
        if where is not None and now != where[0]:
            times, copied = times + 1, copied + k.shape[1] - size
        where = now, k  # holds the memory, so that its address is not given out again
    return times, copied


def test_growing_copies_each_token_less_than_twice():
    times, copied = moves(KVCache(), 2000, 1)
    assert 1 <= times <= 6  # 64, 130, 262, 526, 1054, 2110
    assert copied <= 2 * 2000


def test_a_window_copies_less_than_a_token_a_step():
    times, copied = moves(KVCache(window=101), 2000, 1)
    assert 10 < times < 25
    assert copied <= 2000


def test_a_window_bounds_the_memory():
    cache = KVCache(window=101)
    cache.append(numbered(0, 1999), numbered(0, 1999))
    assert room(cache) >= 2000
    moves(cache, 2500, 1)
    assert room(cache) <= 2 * 101


def test_a_static_cache_takes_its_room_once():
    cache = KVCache(capacity=2000)
    assert moves(cache, 1999, 1) == (0, 0)
    assert room(cache) == 2000


def test_what_was_returned_stays():
    for cache in (KVCache(), KVCache(capacity=200), KVCache(window=3)):
        before = [cache.append(numbered(step, 1), numbered(step, 1)) for step in range(100)]
        copies = [(k.clone(), v.clone()) for k, v in before]
        cache.select([1, 1])
        for step in range(100, 200):
            cache.append(numbered(step, 1), numbered(step, 1))
        for kept, copy in zip(before, copies, strict=True):
            assert torch.equal(kept[0], copy[0])
            assert torch.equal(kept[1], copy[1])


@pytest.mark.parametrize("limits", [{}, {"capacity": N}, {"window": 5}], ids=str)
@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0, 2, 2], [2]], ids=str)
def test_select_goes_on_with_other_sequences(rows, limits):
    attention, x, cache = (
        make(positions=RotaryPositions(), num_kv_heads=H_KV),
        torch.randn(B, N, D),
        KVCache(**limits),
    )
    mask = Causal() & Window(limits.get("window", N) - 1, 0)
    decode(attention, x[:, :13], cache, [6, 7], mask)
    cache.select(rows)
    new = torch.randn(len(rows), N - 13, D)
    found = decode(attention, new, cache, [1, 3], mask)
    wanted = attention(torch.cat([x[rows, :13], new], 1), mask=mask)[:, 13:]
    assert_close(found, wanted)


def test_selecting_from_an_empty_cache_does_nothing():
    cache = KVCache()
    cache.select([4, 4])
    assert cache.append(torch.zeros(5, 1, 3, 7), torch.zeros(5, 1, 3, 7))[0].shape == (5, 1, 3, 7)


@pytest.mark.parametrize("lengths", [(7, 0, 11), None], ids=["packed", "dense"])
@pytest.mark.parametrize(
    "options", [{}, {"num_kv_heads": H_KV, "context_dim": 13}], ids=["fused", "context_dim"]
)
def test_memory_is_the_context(lengths, options):
    attention, x = make(positions=RotaryPositions(), **options), torch.randn(B, 5, D)
    values = torch.randn(B, 11, options.get("context_dim", D))
    context = values if lengths is None else TokenBatch.from_padded(values, lengths)
    query = x if lengths is None else TokenBatch.from_padded(x)
    memory, wanted = attention.remember(context), attention(query, context)
    wanted = wanted if lengths is None else wanted.values.view(B, 5, D)
    assert_close(attention(x, memory), wanted)
    rows = [2, 2, 0, 1, 1]
    chosen = memory.select(torch.tensor(rows))
    assert chosen.batch_size == 5
    assert_close(attention(x[rows], chosen), wanted[rows])


def test_keys_that_want_gradients_are_refused():
    attention = make().requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"without gradients, in torch.no_grad\(\) or torch.inference_mode\(\): got"
    ):
        attention(torch.randn(B, 1, D), cache=KVCache())
    with torch.no_grad():
        assert attention(torch.randn(B, 1, D), cache=KVCache()).shape == (B, 1, D)


@pytest.mark.parametrize(
    ("text", "make_it"),
    [
        (r"^capacity must be at least 1: got 0$", lambda: KVCache(0)),
        (r"^window must be at least 1: got -1$", lambda: KVCache(window=-1)),
        (r"^give capacity or window, not both: got capacity=5, window=3$", lambda: KVCache(5, 3)),
    ],
)
def test_impossible_caches(text, make_it):
    with pytest.raises(ValueError, match=text):
        make_it()


@pytest.mark.parametrize(
    ("text", "k", "v"),
    [
        (r"\[B, N, H_kv, K\]: got \[2, 1, 3, 5\] and \[2, 1, 3, 7\]", (2, 1, 3, 5), (2, 1, 3, 7)),
        (r"\[B, N, H_kv, K\]: got \[2, 1, 15\] and \[2, 1, 15\]", (2, 1, 15), (2, 1, 15)),
        (r"^a cache of capacity 7 is full: got 4 \+ 5 tokens$", (2, 5, 3, 5), (2, 5, 3, 5)),
        (r"must fit those kept, \[2, N, 3, 5\]: got \[1, 1, 3, 5\]", (1, 1, 3, 5), (1, 1, 3, 5)),
        (r"must fit those kept, \[2, N, 3, 5\]: got \[2, 1, 5, 3\]", (2, 1, 5, 3), (2, 1, 5, 3)),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_cache_alone(text, k, v):
    cache = KVCache(capacity=7)
    cache.append(numbered(0, 4), numbered(0, 4))
    with pytest.raises(ValueError, match=text):
        cache.append(torch.zeros(k), torch.zeros(v))
    assert torch.equal(cache.append(numbered(4, 1), numbered(4, 1))[0], numbered(0, 5))
    assert repr(cache) == "KVCache(length=5, capacity=7)"


def test_another_dtype_is_refused():
    cache = KVCache(window=3)
    cache.append(numbered(0, 4), numbered(0, 4))
    with pytest.raises(ValueError, match=r"torch.float32 on cpu: got torch.float64 on cpu"):
        cache.append(numbered(0, 1).double(), numbered(0, 1).double())
    assert repr(cache) == "KVCache(length=4, window=3)"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (r"rows must lie between 0 and 1: got 0 to 2", [0, 2]),
        (r"rows must lie between 0 and 1: got -1 to 0", [0, -1]),
        (r"rows must be indices \[B\]: got torch.bool \[2\]", [True, False]),
        (r"rows must be indices \[B\]: got torch.int64 \[1, 2\]", [[0, 1]]),
    ],
)
def test_rows_that_are_none(text, rows):
    cache = KVCache()
    cache.append(numbered(0, 4), numbered(0, 4))
    memory = MultiHeadAttention(D, H).remember(TokenBatch(torch.zeros(5, D), [3, 2]))
    for holder in (cache, memory):
        with pytest.raises(ValueError, match=text):
            holder.select(torch.tensor(rows))


def test_a_cache_goes_with_dense_queries_alone():
    attention, x = make(), torch.randn(B, 5, D)
    for args in ([x, x], [TokenBatch.from_padded(x)]):
        with pytest.raises(ValueError, match=r"a cache goes with a dense query and no context"):
            attention(*args, cache=KVCache())


def test_coordinates_of_cached_keys_are_not_known():
    attention, coords = make(position_bias=ALiBi(H)), torch.tensor([[4]])
    with pytest.raises(
        ValueError, match=r"a cache keeps no coordinates, which a bias or mask asks for: got coords"
    ):
        attention(torch.randn(B, 1, D), cache=KVCache(), coords=coords)
    turned, x = make(positions=RotaryPositions()), torch.randn(B, 2, D)
    cache, places = KVCache(), torch.tensor([[3], [17]])
    found = [turned(x[:, i : i + 1], cache=cache, coords=places[i : i + 1]) for i in range(2)]
    assert_close(torch.cat(found, 1), turned(x, coords=places, mask=Causal()))
