"""Compiled FlexAttention on a CPU, forward, and what a mask of it is made of."""

from __future__ import annotations

import pytest
import torch

from mmattn import ALiBi, Causal, KeyLengths, Neighbourhood, Prefix, Window, attend
from mmattn.backends import FlexBackend, flex

B, H, H_KV, N, M, K = 2, 4, 2, 37, 53, 16
COORDS = {"q_coords": torch.arange(N)[:, None] // 2, "k_coords": torch.arange(M)[:, None] // 3}
CALLS = {
    "plain": {},
    "causal": {"mask": Causal()},
    "window": {"mask": Window(5, 2)},
    "lengths": {"mask": Causal() & KeyLengths((9, 0))},
    "tensor": {"mask": torch.arange(M) % 3 > 0},
    "neighbours": {"mask": Neighbourhood((2,)), **COORDS},
    "bias": {"bias": torch.linspace(-1, 1, M).expand(H, N, M)},
    "ALiBi, soft cap": {"bias": ALiBi(H), "soft_cap": 3.0, "mask": Prefix(7)},
}


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()
    flex._of_pattern.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    flex._of_pattern.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("options", CALLS.values(), ids=CALLS.keys())
def test_compiled(options):
    q, k, v = torch.randn(B, H, N, K), torch.randn(B, H_KV, M, K), torch.randn(B, H_KV, M, K)
    mask = options.get("mask")
    options = options | ({"mask": mask[None, None, None]} if isinstance(mask, torch.Tensor) else {})
    with torch.no_grad():
        out = attend(q, k, v, **options, backend="flex")
        torch.testing.assert_close(out, attend(q, k, v, **options, backend="math"), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_for_several_lengths_and_packed():
    with torch.no_grad():
        for n in (17, 33, 150):
            q = torch.randn(1, 2, n, K)
            out = attend(q, q, q, mask=Causal(), backend="flex")
            torch.testing.assert_close(
                out, attend(q, q, q, mask=Causal(), backend="math"), rtol=1e-4, atol=1e-5
            )
        x, lengths = torch.randn(50, 2, K), [20, 0, 30]
        out = attend(x, x, x, mask=Window(3, 0), q_lengths=lengths, backend="flex")
        want = attend(x, x, x, mask=Window(3, 0), q_lengths=lengths, backend="math")
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


def test_sinks_are_refused_when_compiled_on_a_cpu():
    q = torch.randn(1, 2, N, K)
    with torch.no_grad(), pytest.raises(ValueError, match=r"backend 'flex' cannot run this call: "):
        attend(q, q, q, sinks=torch.zeros(2), backend="flex")


def test_several_threads_are_refused_on_a_cpu():
    q = torch.randn(1, 2, N, K)
    torch.set_num_threads(2)
    with torch.no_grad(), pytest.raises(ValueError, match="corrupts memory with 2 threads"):
        attend(q, q, q, backend="flex")


def test_the_blocks_of_a_pattern_are_made_once():
    q = torch.randn(1, 2, 300, K)
    pattern = Window(5, 0)
    block_mask, drawn = flex._of_pattern(pattern, 300, 300, q.device)
    assert flex._of_pattern(Window(5, 0), 300, 300, q.device)[0] is block_mask
    assert torch.equal(drawn, pattern.dense(300, 300))
    seen = block_mask.kv_num_blocks + block_mask.full_kv_num_blocks
    assert seen.flatten().tolist() == [1, 2, 2]  # a block and the one before it, of three


def test_no_queries_or_no_keys():
    q, none = torch.randn(2, 3, 5, K), torch.randn(2, 3, 0, K)
    plain = FlexBackend(compiled=False)
    with torch.no_grad():
        assert torch.equal(attend(q, none, none, backend=plain), torch.zeros(2, 3, 5, K))
        assert attend(none, q, q, backend=plain).shape == (2, 3, 0, K)
