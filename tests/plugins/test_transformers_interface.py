"""The attention function given to transformers, against transformers' own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmattn.plugins.interface import HARMLESS, core_attention

pytest.importorskip("transformers")
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss

B, H, K = 2, 6, 5


class Host(nn.Module):
    """What an attention function may ask a module for."""

    def __init__(self, groups: int = 1, **says: object) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        for name, value in says.items():
            setattr(self, name, value)


def inputs(n: int = 7, m: int = 7, groups: int = 1, width: int = K) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(B, H, n, K) * 2,
        torch.randn(B, H // groups, m, K),
        torch.randn(B, H // groups, m, width),
    )


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("n", "m"), [(7, 7), (1, 7), (3, 7)])
@pytest.mark.parametrize("kind", ["none", "boolean", "per head", "numbers"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("argument", [None, True, False])
@pytest.mark.parametrize("says", [{}, {"is_causal": True}, {"is_causal": False}])
def test_computes_what_transformers_computes_by_sdpa(close, groups, n, m, kind, biased, argument, says):
    host = Host(groups, **says)
    q, k, v = inputs(n, m, groups)
    mask = {
        "none": None,
        "boolean": torch.rand(B, 1, n, m) > 0.4,
        "per head": torch.rand(B, H, n, m) > 0.4,
        "numbers": torch.randn(B, 1, n, m),
    }[kind]
    if mask is not None and mask.dtype == torch.bool:
        mask[..., 0] = True  # rows without keys are tested apart
    more = {"position_bias": torch.randn(1, H, n, m)} if biased else {}
    wanted, _ = sdpa_attention_forward(host, q, k, v, mask, scaling=0.7, is_causal=argument, **more)
    got, weights = core_attention(host, q, k, v, mask, scaling=0.7, is_causal=argument, **more)
    close(got, wanted)
    assert got.is_contiguous()
    assert weights is None


def test_scales_by_the_width_of_the_heads_if_nothing_is_said(close):
    q, k, v = inputs()
    close(core_attention(Host(), q, k, v, None)[0], sdpa_attention_forward(Host(), q, k, v, None)[0])


def test_takes_values_of_another_width(close):
    q, k, v = inputs(width=9)
    close(core_attention(Host(), q, k, v, None)[0], sdpa_attention_forward(Host(), q, k, v, None)[0])


def test_takes_queries_that_the_batch_shares(close):
    q, k, v = inputs()
    host = Host(is_causal=False)
    close(core_attention(host, q[:1], k, v, None)[0], sdpa_attention_forward(host, q[:1], k, v, None)[0])


def test_soft_cap_like_gemma(close):
    q, k, v = inputs(groups=2)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    add = torch.zeros(7, 7).masked_fill(~mask, torch.finfo(torch.float).min)
    host = Host(2).eval()
    wanted, weights = modeling_gemma2.eager_attention_forward(host, q, k, v, add, scaling=0.9, softcap=1.5)
    got, shown = core_attention(
        host, q, k, v, mask[None, None], scaling=0.9, softcap=1.5, output_attentions=True
    )
    close(got, wanted)
    close(shown, weights)
    assert (core_attention(host, q, k, v, mask[None, None], scaling=0.9)[0] - wanted).abs().max() > 0.01


def test_sinks_like_gpt_oss(close):
    q, k, v = inputs(groups=2)
    host = Host(2, sinks=nn.Parameter(torch.randn(H))).eval()
    wanted, weights = modeling_gpt_oss.eager_attention_forward(host, q, k, v, None, scaling=0.9)
    got, shown = core_attention(
        host, q, k, v, None, scaling=0.9, s_aux=host.sinks, is_causal=False, output_attentions=True
    )
    close(got, wanted)
    close(shown, weights)
    assert (shown.sum(-1) < 0.99).any()


@pytest.mark.parametrize(("n", "m"), [(7, 7), (1, 7)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_sliding_window_without_a_mask_hides_keys_three_and_more_tokens_away(close, n, m, causal):
    q, k, v = inputs(n, m)
    distance = torch.arange(m - n, m)[:, None] - torch.arange(m)
    mask = (distance < 3) & (distance > (-1 if causal else -3))
    host = Host(is_causal=causal)
    close(
        core_attention(host, q, k, v, None, sliding_window=3)[0],
        sdpa_attention_forward(host, q, k, v, mask[None, None])[0],
    )


def test_a_sliding_window_beside_a_mask_is_that_of_the_mask(close):
    q, k, v = inputs()
    mask = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    close(
        core_attention(Host(), q, k, v, mask, sliding_window=3)[0],
        core_attention(Host(), q, k, v, mask)[0],
        0.0,
    )


def test_drops_weights(close):
    q, k, _ = inputs(40, 40)
    v = torch.eye(40).expand(B, H, 40, 40)  # so that results are weights
    host = Host(is_causal=False)
    out = core_attention(host, q, k, v, None, dropout=0.25)[0].transpose(1, 2)
    kept = core_attention(host, q, k, v, None)[0].transpose(1, 2) / 0.75
    zero = out == 0
    close(torch.where(zero, kept, out), kept)
    assert 0.23 < zero.float().mean() < 0.27


def test_follows_autocast(close):
    q, k, v = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        got = core_attention(Host(), q, k, v.bfloat16(), None)[0]
        wanted = sdpa_attention_forward(Host(), q, k, v.bfloat16(), None)[0]
    assert got.dtype == wanted.dtype == torch.bfloat16
    close(got.float(), wanted.float(), 1e-2)


def test_a_paged_cache_is_filled_first(close):
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    class Paged(PagedAttentionCache):
        def __init__(self, k: Tensor, v: Tensor) -> None:
            self.before = k, v

        def update(self, key_states, value_states, layer_idx, kwargs):
            assert layer_idx == 3
            pairs = zip(self.before, (key_states, value_states), strict=True)
            return tuple(torch.cat(pair, dim=2) for pair in pairs)

    host = Host(layer_idx=3)
    q, k, v = inputs(2, 7)
    mask = torch.ones(2, 7, dtype=torch.bool).tril(5)[None, None]
    wanted = core_attention(host, q, k, v, mask)[0]
    old, new = (k[:, :, :5], v[:, :, :5]), (k[:, :, 5:], v[:, :, 5:])
    close(
        core_attention(host, q, *new, mask, cache=Paged(*old), cu_seq_lens_k=torch.tensor([0, 7]))[0], wanted
    )
    assert core_attention(host, q, k, v, mask, cache="of another kind")[0].equal(wanted)


def test_a_mask_of_lowest_numbers_hides_keys_in_half_precision(close):
    q, k, v = (x.bfloat16() for x in inputs())
    seen = torch.ones(7, 7, dtype=torch.bool).tril(-1)  # nothing for the first query
    lowest = torch.zeros(1, 1, 7, 7).masked_fill(~seen, torch.finfo(torch.float32).min)
    got = core_attention(Host(), q, k, v, lowest)[0].float()
    wanted = core_attention(Host(), *(x.float() for x in (q, k, v)), seen[None, None])[0]
    close(got[:, 1:], wanted[:, 1:], 0.02)
    close(got[:, 0], v.float().mean(2), 0.02)  # as in the host: hidden alike is seen alike


def test_unknown_arguments_are_refused_by_name():
    q, k, v = inputs()
    known = dict.fromkeys(HARMLESS - {"output_attentions"}, True)
    core_attention(Host(), q, k, v, None, **known, indices=None, sinks=None)
    with pytest.raises(
        ValueError,
        match=r"^attention by mmattn must know each keyword argument that it is given: got 'sinks' from Host$",
    ):
        core_attention(Host(), q, k, v, None, sinks=torch.ones(B, H, 7, 1))


def test_packed_sequences_need_a_mask():
    q, k, v = inputs()
    where = torch.tensor([0, 3, 7])
    core_attention(Host(), q, k, v, torch.ones(1, 1, 7, 7, dtype=torch.bool), cu_seq_lens_q=where)
    core_attention(Host(), q, k, v, None, cu_seq_lens_q=torch.tensor([0, 7]))
    with pytest.raises(ValueError, match=r"got cu_seq_lens_q of 2 sequences without one in Host$"):
        core_attention(Host(), q, k, v, None, cu_seq_lens_q=where)


def test_masks_of_other_types_are_refused():
    q, k, v = inputs()
    with pytest.raises(
        ValueError, match=r"^an attention mask must be boolean or floating-point: got torch.int64$"
    ):
        core_attention(Host(), q, k, v, torch.ones(1, 1, 7, 7, dtype=torch.long))


def test_sinks_must_be_one_for_each_head():
    q, k, v = inputs()
    with pytest.raises(ValueError, match=r"^s_aux must be one for each of 6 heads: got shape \[4\]$"):
        core_attention(Host(), q, k, v, None, s_aux=torch.zeros(4))
