"""Pools and the classifier, sequence by sequence."""

from __future__ import annotations

import pytest
import torch

from mmattn import AttentionPool, Classifier, MeanPool, MultiHeadAttention, TokenBatch, build_classifier

D, H, C = 15, 3, 7
LENGTHS = [5, 0, 2, 11]


@pytest.fixture
def tokens() -> TokenBatch:
    return TokenBatch(torch.randn(18, D), LENGTHS)


def test_mean_pool(tokens):
    pooled = MeanPool()(tokens)
    assert pooled.shape == (4, D)
    for part, row in zip(tokens.split(), pooled, strict=True):
        want = part.values.mean(0) if len(part.values) else torch.zeros(D)
        torch.testing.assert_close(row, want)


def test_mean_pool_gradient_of_an_empty_sequence_is_finite(tokens):
    values = tokens.values.requires_grad_()
    MeanPool()(tokens.replace(values)).sum().backward()
    assert values.grad[:, 0].tolist() == pytest.approx([1 / 5] * 5 + [1 / 2] * 2 + [1 / 11] * 11)


def test_attention_pool_is_one_query_for_each_sequence(tokens):
    attention = MultiHeadAttention(D, H)
    pool = AttentionPool(attention)
    torch.nn.init.normal_(pool.query)
    torch.nn.init.normal_(attention.out_proj.bias)
    pooled = pool(tokens)
    for part, row in zip(tokens.split(), pooled, strict=True):
        if len(part.values):
            torch.testing.assert_close(row, attention(pool.query[None], part.values[None])[0, 0])
        else:
            torch.testing.assert_close(row, attention.out_proj.bias)


def test_uniform_attention_pool_does_not_look():
    head = build_classifier(D, C, num_heads=H, attention="uniform")
    torch.nn.init.normal_(head.pool.query)
    tokens = TokenBatch(torch.randn(5, D), [5])
    before = head.pool(tokens)
    torch.nn.init.normal_(head.pool.query)
    torch.testing.assert_close(head.pool(tokens), before)
    assert build_classifier(D, C, num_heads=H).pool.attention.scale is None


@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_classifier(tokens, pool):
    head = build_classifier(D, C, pool=pool, num_heads=H, dropout=0.5)
    logits = head.eval()(tokens)
    assert logits.shape == (4, C)
    torch.testing.assert_close(logits, head.linear(head.pool(tokens)))
    torch.testing.assert_close(logits[3:], head(tokens.split()[3]), rtol=1e-5, atol=1e-5)
    head.train()
    assert not torch.equal(head(tokens), head(tokens))


def test_build_classifier_takes_the_pool_asked_for():
    assert isinstance(build_classifier(D, C, pool="mean").pool, MeanPool)
    assert isinstance(build_classifier(D, C, num_heads=H).pool, AttentionPool)


def test_errors():
    with pytest.raises(ValueError, match=r"num_classes must be at least 2: got 1"):
        Classifier(MeanPool(), D, 1)
    with pytest.raises(ValueError, match=r"pool must be 'attention' or 'mean': got 'max'"):
        build_classifier(D, C, pool="max")
    with pytest.raises(ValueError, match=r"attention must be 'softmax' or 'uniform': got 'off'"):
        build_classifier(D, C, num_heads=H, attention="off")
