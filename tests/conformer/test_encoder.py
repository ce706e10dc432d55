"""The stack of Conformer blocks, at once and over a stream."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn import Causal, Encoder, TokenBatch, Window, observe
from mmattn.conformer import Conformer, build_conformer

D, H, DEPTH, KERNEL = 12, 3, 3, 5


def make(**options) -> Conformer:
    torch.manual_seed(3)
    return build_conformer(D, DEPTH, H, kernel_size=KERNEL, **options).eval()


def stream_bytes(state) -> int:
    """What a stream keeps between chunks."""
    kept = [past.rows for past in state.pasts]
    kept += [tensor for cache in state.caches for tensor in cache._kept or ()]
    return sum(tensor.untyped_storage().nbytes() for tensor in kept if tensor is not None)


def test_it_is_an_encoder_with_the_papers_parameters():
    encoder = make()
    assert isinstance(encoder, Encoder)
    assert encoder.embed_dim == D
    norms, halves = 6 * 2 * D, 2 * (2 * 4 * D * D + 5 * D)
    attention = 4 * D * D + 4 * D
    convolution = (2 * D * D + 2 * D) + (KERNEL * D + D) + (D * D + D)
    wanted = DEPTH * (norms + halves + attention + convolution)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == wanted


@pytest.mark.parametrize(
    "options",
    [{}, {"window": 3}, {"causal": True}, {"window": 3, "causal": True}, {"window": 0, "causal": True}],
)
def test_batch_mates_do_not_matter(tokens, options):
    encoder = make(**options)
    for part, clip in zip(encoder(tokens).split(), tokens.split(), strict=True):
        torch.testing.assert_close(part.values, encoder(clip).values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({"window": 3}, Window(3, 3)),
        ({"causal": True}, Causal()),
        ({"window": 3, "causal": True}, Causal() & Window(3, 3)),
    ],
)
def test_the_window_is_a_mask(tokens, options, mask):
    encoder = make(**options)
    want = encoder(tokens).values
    encoder.window, encoder.causal = None, False
    assert not torch.allclose(encoder(tokens).values, want, atol=1e-3)
    torch.testing.assert_close(encoder(tokens, mask=mask).values, want, rtol=1e-5, atol=1e-5)


def test_a_mask_narrows_the_window(tokens):
    encoder, both = make(window=3), make()
    both.load_state_dict(encoder.state_dict())
    want = both(tokens, mask=Window(3, 3) & Causal()).values
    torch.testing.assert_close(encoder(tokens, mask=Causal()).values, want, rtol=1e-5, atol=1e-5)
    x = torch.randn(2, 9, D)
    drawn = Causal().dense(9, 9)
    want = both(x, mask=Window(3, 3) & Causal())
    torch.testing.assert_close(encoder(x, mask=drawn), want, rtol=1e-5, atol=1e-5)


def test_how_far_it_sees():
    encoder = make(window=3, causal=True)
    x = torch.randn(1, 60, D)
    changed = x.clone()
    changed[:, 20] = torch.randn(D)
    moved = ((encoder(changed) - encoder(x)).abs().amax((0, 2)) > 1e-6).nonzero().flatten()
    assert moved[0] == 20
    assert moved[-1] == 20 + DEPTH * (3 + KERNEL - 1)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 6))
def test_any_chunks_of_a_stream_are_the_whole(sizes, window):
    encoder = make(window=window, causal=True)
    x = torch.randn(2, sum(sizes), D)
    state = encoder.start()
    with torch.inference_mode():
        parts = [encoder.step(chunk, state) for chunk in x.split(sizes, dim=1)]
        want = encoder(x) if x.shape[1] else x
    torch.testing.assert_close(torch.cat(parts, dim=1), want, rtol=1e-4, atol=1e-4)
    assert state.length == sum(sizes)


@torch.inference_mode()
def test_a_stream_keeps_no_more_the_longer_it_goes_on():
    encoder = make(window=6, causal=True)
    state, sizes = encoder.start(), []
    for _ in range(120):
        encoder.step(torch.randn(1, 7, D), state)
        sizes.append(stream_bytes(state))
    assert state.length == 840
    assert 0 < max(sizes[40:]) <= max(sizes[:40])


@torch.inference_mode()
def test_a_long_stream_stays_exact():
    encoder = make(window=4, causal=True)
    x = torch.randn(1, 3001, D)
    state = encoder.start()
    parts = [encoder.step(chunk, state) for chunk in x.split(500, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), encoder(x), rtol=1e-4, atol=1e-4)


def test_it_can_be_observed(tokens):
    encoder = make(window=2, causal=True)
    with observe(encoder, weights=True) as record:
        encoder(tokens)
    assert list(record) == [f"blocks.{index}.attention" for index in range(DEPTH)]
    seen = record["blocks.1.attention"].weights[5, 0] > 0
    assert torch.equal(seen, (Causal() & Window(2, 0)).dense(31, 31))


def test_drop_path_grows_with_depth():
    encoder = make(drop_path=0.2, dropout=0.1, attention_dropout=0.3)
    assert [block.drop_path.p for block in encoder.blocks] == pytest.approx([0, 0.1, 0.2])
    assert {block.attention.dropout for block in encoder.blocks} == {0.3}
    assert {block.feed_forward_in[2].p for block in encoder.blocks} == {0.1}


def test_it_trains_on_clips(tokens):
    encoder = make(dropout=0.1, attention_dropout=0.1, drop_path=0.1, window=4).train()
    encoder(tokens).values.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("depth must be at least 1: got 0", lambda: build_conformer(D, 0, H)),
        ("num_heads must divide embed_dim", lambda: build_conformer(D, 1, 5)),
        ("odd unless causal: got kernel_size=4", lambda: build_conformer(D, 1, H, kernel_size=4)),
        ("window must not be negative: got -1", lambda: make(window=-1)),
        ("causal=True and a window: got causal=False, window=3", lambda: make(window=3).start()),
        ("causal=True and a window: got causal=True, window=None", lambda: make(causal=True).start()),
        (
            "must be causal: got one that looks ahead",
            lambda: Conformer(list(make().blocks), window=2, causal=True),
        ),
    ],
)
def test_errors(text, call):
    with pytest.raises(ValueError, match=text):
        call()


def test_the_offline_encoder_takes_a_token_batch_of_one():
    assert make()(TokenBatch(torch.randn(1, D), [1])).values.shape == (1, D)


@pytest.mark.parametrize("options", [{}, {"window": 3, "causal": True}])
def test_torch_compile_takes_the_dense_path(options):
    encoder, x = make(**options), torch.randn(2, 9, D)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), encoder(x), rtol=1e-4, atol=1e-5)
