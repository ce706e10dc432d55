"""Where attention lies and what is deleted by it, against the same computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import TokenBatch, relevance
from tasks.compare.measuring.deletion import (
    add_deletion,
    deletion_curve,
    gradient_times_input,
    without,
)
from tasks.compare.measuring.effort import Effort
from tasks.compare.measuring.findings import Findings, mean_height
from tasks.compare.measuring.focus import add_focus, pooling_weights, rollout
from tasks.compare.measuring.scenes import Scenes, Source, relevant_tokens
from tests.tasks.compare.small import Bright, model


@torch.no_grad()
def scenes_of(task, level=2, most=None):
    data = Bright(level=level)
    return Scenes.of(task, data, Source(data).examples("test", level, most))


def weights_by_hand(task, tokens):
    """The weights of the pooling heads ``[H, n]`` on one scene, from the parameters."""
    attention = task.head.pool.attention
    x = task.encoder(tokens).values
    q = attention.qkv_proj(task.head.pool.query)[:, :12].view(attention.num_heads, -1)
    k = attention.qkv_proj(x)[:, 12:24].view(len(x), attention.num_heads, -1)
    return (torch.einsum("hk,nhk->hn", q, k) / math.sqrt(q.shape[1])).softmax(-1)


def test_tokens_half_inside_the_relevant_region_matter():
    spans = torch.tensor([[0, 10], [10, 20], [20, 30], [30, 40]])
    assert relevant_tokens(spans, (15, 34)).tolist() == [False, True, True, False]
    boxes = torch.tensor([[0, 0, 4, 4], [0, 4, 4, 8], [4, 0, 8, 4], [4, 4, 8, 8]])
    assert relevant_tokens(boxes, (0, 0, 4, 6)).tolist() == [True, True, False, False]


@torch.no_grad()
def test_the_mass_is_that_computed_by_hand():
    task = model()
    scenes = scenes_of(task)
    found = Findings()
    add_focus(found, "focus", task, scenes)
    masses = []
    for tokens, example in zip(scenes.tokens.split(), scenes.examples, strict=True):
        left = example.relevant[1] // 4
        marks = [row * 6 + column for row in (0, 1) for column in (left, left + 1)]
        masses.append(float(weights_by_hand(task, tokens)[:, marks].sum(-1).mean()))
    mass = sum(masses) / len(masses)
    assert found.values["focus/mass"] == pytest.approx(mass, rel=1e-5)
    assert found.values["focus/share"] == pytest.approx(1 / 3)
    assert found.values["focus/log_ratio"] == pytest.approx(math.log2(3 * mass), rel=1e-4)
    assert abs(found.values["focus/log_ratio"]) > 0.01


@torch.no_grad()
def test_uniform_attention_has_no_focus():
    found = Findings()
    task = model(pool_attention="uniform")
    add_focus(found, "focus", task, scenes_of(task))
    assert found.values["focus/log_ratio"] == pytest.approx(0.0, abs=1e-5)


@torch.no_grad()
def test_orders_by_attention_are_those_of_the_weights_and_of_the_library():
    task = model()
    tokens = scenes_of(task, most=3).tokens
    by_hand = torch.cat([weights_by_hand(task, one).mean(0) for one in tokens.split()])
    torch.testing.assert_close(pooling_weights(task, tokens), by_hand, rtol=1e-4, atol=1e-6)
    trunk = torch.nn.ModuleDict({"encoder": task.encoder, "head": task.head}).eval()
    trunk.forward = lambda x: trunk.head(trunk.encoder(x))
    expected = relevance(trunk, tokens, method="rollout").scores.flatten()
    torch.testing.assert_close(rollout(task, tokens), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(rollout(task, tokens), pooling_weights(task, tokens), rtol=1e-2)


def test_the_gradient_order_is_that_of_each_scene_alone():
    task = model()
    tokens = scenes_of(task, most=5).tokens
    expected = []
    for one in tokens.split():
        values = one.values.clone().requires_grad_()
        scores = task.head(task.encoder(one.replace(values)))[0]
        scores[int(scores.argmax())].backward()
        expected.append((values.grad * values.detach()).abs().sum(1))
    torch.testing.assert_close(gradient_times_input(task, tokens), torch.cat(expected), rtol=1e-4, atol=1e-6)
    task.zero_grad()


def test_deletion_takes_the_highest_scores_and_keeps_places():
    tokens = TokenBatch(torch.arange(8.0)[:, None], [5, 3])
    scores = torch.tensor([0.1, 0.9, 0.3, 0.9, 0.2, 5.0, 7.0, 6.0])
    left = without(tokens, scores, 0.4)  # 2 of 5, 1 of 3
    assert left.values[:, 0].tolist() == [0, 2, 4, 5, 7]
    assert left.coords[:, 0].tolist() == [0, 2, 4, 0, 2]
    assert left.sizes == (3, 2)
    assert without(tokens, scores, 0.2).values[:, 0].tolist() == [0, 2, 3, 4, 5, 7]  # of equals, the first
    assert without(tokens, scores, 1.0).sizes == (0, 0)
    assert torch.equal(without(tokens, scores, 0.0).values, tokens.values)


@torch.no_grad()
def test_the_deletion_curve_is_that_of_scenes_cut_by_hand():
    task = model()
    scenes = scenes_of(task)
    scores = torch.rand(len(scenes.tokens.values), generator=torch.Generator().manual_seed(3))
    curve = deletion_curve(task, scenes, scores, 4)
    assert [x for x, _ in curve] == [0, 0.25, 0.5, 0.75, 1]
    for share, height in curve[:4]:
        right = 0
        parts = zip(scenes.tokens.split(), scores.split(12), scenes.examples, strict=True)
        for tokens, own, example in parts:
            kept = sorted(own.argsort(descending=True)[round(12 * share) :].tolist())
            cut = TokenBatch(tokens.values[kept], [len(kept)], tokens.coords[kept])
            right += int(task.head(task.encoder(cut)).argmax()) == example.label
        assert height == pytest.approx(right / 31)
    # without any token each model gives the same answer always
    assert curve[4][1] in {sum(e.label == c for e in scenes.examples) / 31 for c in range(3)}


@torch.no_grad()
def test_deleting_what_matters_first_costs_a_model_that_sees_it_more_than_chance():
    class Brightest(torch.nn.Module):
        """Answers by the brightest token, whose value is the class."""

        def forward(self, tokens):
            rows = [
                one.values[:, 0].max() if len(one.values) else torch.tensor(0.0) for one in tokens.split()
            ]
            return torch.nn.functional.one_hot(torch.stack(rows).long(), 8) * torch.stack(rows)[:, None]

    task = model()
    task.encoder, task.head = torch.nn.Identity(), Brightest()
    scenes = scenes_of(task, most=20)
    values = torch.zeros(len(scenes.tokens.values), 1)
    answer = torch.arange(20) * 12 + 5
    values[answer, 0] = scenes.labels + 1.0
    scenes = Scenes(
        task, [e._replace(label=e.label + 1) for e in scenes.examples], scenes.tokens.replace(values)
    )
    found = Findings()
    add_deletion(found, task, scenes, False, Effort(deletion_steps=6, deletion_orders=7))
    first = deletion_curve(task, scenes, values[:, 0], 6)
    assert found.curves["deletion/random"][0] == first[0] == [0.0, 1.0]
    assert [y for _, y in first[1:]] == [0.0] * 6
    # by chance the answer is gone with the share of what is deleted
    assert found.values["deletion/random"] == pytest.approx(0.5, abs=0.06)
    assert mean_height(first) == pytest.approx(1 / 12)
    assert found.curves["deletion/gradient"] == first
    assert set(found.values) == {"deletion/gradient", "deletion/random"}
