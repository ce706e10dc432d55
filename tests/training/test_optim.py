"""Which parameters decay, and the learning rate step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")

from mmattn import ImagePatches, LearnedPositions, TextTokens, build_classifier, build_encoder
from mmattn.training.optim import AdamWCosine, split_decay


def names_without_decay(module: nn.Module) -> set[str]:
    decay, no_decay = split_decay(module)
    found = {id(p): name for name, p in module.named_parameters()}
    assert len(decay) + len(no_decay) == len(found)
    assert {id(p) for p in decay}.isdisjoint({id(p) for p in no_decay})
    return {found[id(p)] for p in no_decay}


def test_no_decay_is_exactly_biases_norms_embeddings_positions_and_queries():
    model = nn.ModuleDict(
        {
            "text": TextTokens(12),
            "image": ImagePatches(12, 4, stem="conv"),
            "places": LearnedPositions([5], 12),
            "encoder": build_encoder(12, 1, 3, qk_norm=True),
            "head": build_classifier(12, 7, num_heads=3),
        }
    )
    block = "encoder.blocks.0."
    assert names_without_decay(model) == {
        "text.embedding.weight",
        "image.embed.0.bias",
        "image.embed.2.bias",
        "image.embed.4.bias",
        "image.embed.6.bias",
        "places.table",
        block + "attention_norm.weight",
        block + "attention_norm.bias",
        block + "attention.qkv_proj.bias",
        block + "attention.out_proj.bias",
        block + "attention.q_norm.weight",
        block + "attention.k_norm.weight",
        block + "feed_forward_norm.weight",
        block + "feed_forward_norm.bias",
        block + "feed_forward.0.bias",
        block + "feed_forward.3.bias",
        "encoder.norm.weight",
        "encoder.norm.bias",
        "head.pool.query",
        "head.pool.attention.qkv_proj.bias",
        "head.pool.attention.out_proj.bias",
        "head.linear.bias",
    }


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))
    model[0].requires_grad_(False)
    decay, no_decay = split_decay(model)
    assert decay == [model[1].weight]
    assert no_decay == [model[1].bias]


def test_groups_of_the_optimiser():
    model = nn.Linear(3, 5)
    optimizer, _ = AdamWCosine(lr=0.3, weight_decay=0.7, beta2=0.9).configure(model, 10)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [
        (1, 0.7),
        (1, 0.0),
    ]
    assert all(group["betas"] == (0.9, 0.9) for group in optimizer.param_groups)


def test_only_weights_shrink_without_a_gradient():
    model = nn.Linear(3, 5)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer, _ = AdamWCosine(lr=0.1, weight_decay=0.5, warmup=0.0).configure(model, 10)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight, before["weight"] * 0.95)
    assert torch.equal(model.bias, before["bias"])


def test_warm_up_and_cosine():
    plan = AdamWCosine(lr=0.5, warmup=0.2, final=0.1)
    factors = [plan.factor(step, 50) for step in range(51)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    want = [0.1 + 0.9 * (1 + math.cos(math.pi * (i - 10) / 40)) / 2 for i in range(10, 51)]
    assert factors[10:] == pytest.approx(want)
    assert factors[30] == pytest.approx(0.55)
    assert factors[50] == pytest.approx(0.1)
    assert plan.factor(99, 50) == pytest.approx(0.1)
    assert AdamWCosine(warmup=0.0).factor(0, 50) == 1.0


def test_the_schedule_drives_the_optimiser():
    plan = AdamWCosine(lr=0.5, warmup=0.2)
    optimizer, schedule = plan.configure(nn.Linear(3, 5), 11)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * plan.factor(step, 11) for step in range(11)])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (r"lr must be above 0: got 0", {"lr": 0}),
        (r"warmup must lie in \[0, 1\), a share of all steps: got 500", {"warmup": 500}),
    ],
)
def test_errors(text, options):
    with pytest.raises(ValueError, match=text):
        AdamWCosine(**options)
