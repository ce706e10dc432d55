"""Heads masked, compared and pruned, against the same done by hand."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from tasks.compare.measuring.effort import Effort
from tasks.compare.measuring.findings import Findings
from tasks.compare.measuring.heads import add_trials, mask
from tasks.compare.measuring.pruning import add_pruning, importances, pruning_curve
from tasks.compare.measuring.redundancy import add_distances, add_likeness, js_distance, linear_cka
from tasks.compare.measuring.trunk import POOL, Trials, attentions, logits
from tests.tasks.compare.small import model
from tests.tasks.compare.test_measuring_focus import scenes_of

FIRST, SECOND = "encoder.blocks.0.attention", "encoder.blocks.1.attention"


class Planted:
    """In the place of trials: an accuracy that is a function of the heads that are left of each layer."""

    def __init__(self, heads, accuracy):
        self.heads, self._accuracy, self.asked = heads, accuracy, []

    def accuracy(self, kept):
        whole = {layer: set(range(count)) for layer, count in self.heads.items()}
        left = {layer: set(mask.nonzero()[:, 0].tolist()) for layer, mask in kept.items()}
        self.asked.append(left)
        return self._accuracy(whole | left)


def zeroed(task, gone):
    """A copy of the model in which the columns of some heads' results are zero."""
    twin = copy.deepcopy(task)
    for layer, head in gone:
        module = attentions(twin)[layer]
        module.out_proj.weight.data.unflatten(1, (module.num_heads, -1))[:, head] = 0
    return twin


@torch.no_grad()
@pytest.mark.parametrize(
    "gone",
    [
        [],
        *([(layer, head)] for layer, head in [(FIRST, 2), (SECOND, 0), (POOL, 1)]),
        [(FIRST, 0), (FIRST, 1), (FIRST, 2)],
        [(SECOND, 1), (POOL, 0)],
        [(FIRST, 0), (FIRST, 1), (FIRST, 2), (SECOND, 1)],
        [(FIRST, 0), (FIRST, 2), (POOL, 1)],
        [(FIRST, 1), (SECOND, 2), (POOL, 0), (POOL, 1)],
    ],
)
def test_a_masked_head_is_one_of_zero_weights(gone):
    task = model(3)
    scenes = scenes_of(task)
    trials = Trials(task, scenes)
    plain = logits(task, scenes.tokens)
    kept = {
        layer: mask(count, set(range(count)) - {head for name, head in gone if name == layer})
        for layer, count in trials.heads.items()
        if any(name == layer for name, _ in gone)
    }
    expected = (logits(zeroed(task, gone), scenes.tokens).argmax(-1) == scenes.labels).double().mean()
    assert trials.accuracy(kept) == pytest.approx(float(expected))
    assert torch.equal(logits(task, scenes.tokens), plain)


@torch.no_grad()
def test_trials_tell_the_difference_that_a_head_makes():
    """The comparison above would hold of a model that no head matters to."""
    task = model(3)
    trials = Trials(task, scenes_of(task))
    heights = {trials.accuracy({FIRST: mask(3, kept)}) for kept in [(), (0,), (1,), (2,), (0, 1, 2)]}
    assert len(heights) > 2


def test_heads_that_add_up_have_no_gain_and_those_that_need_each_other_have():
    importances = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([1.0, 2.0])}
    found = Findings()
    add_trials(found, Planted({"a": 3, "b": 2}, lambda left: 0.1 + 0.1 * len(left["a"])), importances)
    assert found.values["heads/all"] == pytest.approx(0.4)
    assert found.values["heads/none"] == pytest.approx((0.1 + 0.4) / 2)
    assert found.values["heads/mean_alone"] == pytest.approx((0.2 + 0.4) / 2)
    assert found.values["heads/pair_gain"] == pytest.approx(0.0)
    assert [(h.layer, h.head, h.importance) for h in found.heads][:3] == [
        ("a", 0, 3),
        ("a", 1, 1),
        ("a", 2, 2),
    ]
    assert [h.removed for h in found.heads] == pytest.approx([0.3, 0.3, 0.3, 0.4, 0.4])
    assert [h.alone for h in found.heads] == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.4])

    def both(left):  # of layer a, heads 0 and 2 together
        return 0.9 if {0, 2} <= left["a"] else 0.3

    found = Findings()
    add_trials(found, Planted({"a": 3}, both), importances)
    assert found.values["heads/pair_gain"] == pytest.approx((0 + 0.6 + 0) / 3)
    assert found.values["heads/best_alone"] == pytest.approx(0.3)

    found = Findings()  # either can stand in for the other
    add_trials(found, Planted({"b": 2}, lambda left: 0.9 if left["b"] else 0.3), importances)
    assert found.values["heads/pair_gain"] == pytest.approx(-0.6)
    assert found.values["heads/best_alone"] == pytest.approx(0.9)


def test_the_least_important_head_goes_first():
    planted = Planted({"a": 2, "b": 2}, lambda left: 0.2 * sum(map(len, left.values())))
    known = {"a": torch.tensor([0.5, 0.1]), "b": torch.tensor([0.3, 0.9])}
    found = Findings()
    add_pruning(found, planted, known, Effort(pruning_steps=99, pruning_orders=3))
    whole, *rest = planted.asked[:5]
    assert whole == {}
    assert rest == [{"a": {0}}, {"a": {0}, "b": {1}}, {"a": set(), "b": {1}}, {"a": set(), "b": set()}]
    assert found.curves["pruning/importance"] == [
        [share, pytest.approx(0.8 - 0.8 * share)] for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    # by chance, only how many are left counts
    assert found.values["pruning/random"] == pytest.approx(found.values["pruning/importance"])


def test_importance_keeps_longer_what_the_answer_needs():
    planted = Planted({"a": 4}, lambda left: 1.0 if 2 in left["a"] else 0.0)
    known = {"a": torch.tensor([0.1, 0.2, 0.9, 0.3])}
    found = Findings()
    add_pruning(found, planted, known, Effort(pruning_orders=9))
    assert found.values["pruning/importance"] == pytest.approx(0.875)
    assert found.values["pruning/random"] < 0.8
    assert pruning_curve(planted, [("a", 2), ("a", 0), ("a", 1), ("a", 3)], 2) == [
        [0, 1.0],
        [0.5, 0.0],
        [1, 0.0],
    ]


def test_importances_are_the_slopes_of_single_scenes():
    task = model(3)
    scenes = scenes_of(task, most=3)
    known = importances(task, scenes)
    module = attentions(task)[SECOND]
    weight = module.out_proj.weight.data
    slopes = torch.zeros(3)
    for tokens, label in zip(scenes.tokens.split(), scenes.labels.split(1), strict=True):
        for head in range(3):
            losses = []
            for factor in (1.01, 0.99):
                twin = copy.deepcopy(task)
                columns = attentions(twin)[SECOND].out_proj.weight.data.unflatten(1, (3, -1))
                columns[:, head] *= factor
                with torch.no_grad():
                    losses.append(float(F.cross_entropy(logits(twin, tokens), label).double()))
            slopes[head] += abs(losses[0] - losses[1]) / 0.02 / 3
    torch.testing.assert_close(known[SECOND], slopes, rtol=2e-2, atol=1e-3)
    assert torch.equal(module.out_proj.weight.data, weight)
    assert set(known) == {FIRST, SECOND, POOL}


def test_js_distance_is_scipys():
    distance = pytest.importorskip("scipy.spatial.distance")
    p, q = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    p[0] = torch.tensor([1.0, 0, 0, 0, 0])
    expected = sum(distance.jensenshannon(a, b, base=2) for a, b in zip(p, q, strict=True)) / 7
    assert js_distance(p, q) == pytest.approx(expected, rel=1e-5)
    assert js_distance(torch.eye(2), torch.eye(2).flip(0)) == pytest.approx(1.0)
    assert js_distance(p, p) == 0.0


def test_cka_is_that_of_the_unbiased_criterion():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(19, 5, generator=draw, dtype=torch.float64)
    y = x[:, :3] + torch.randn(19, 3, generator=draw, dtype=torch.float64)

    def criterion(k, m):  # Song et al. 2012, equation 5
        n, k, m = len(k), k - k.diag().diag(), m - m.diag().diag()
        total = (k * m.T).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
        return float(total / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    expected = criterion(k, m) / (criterion(k, k) * criterion(m, m)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-6)
    turned = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ turned + 1) == pytest.approx(1.0)
    assert linear_cka(x, torch.ones(19, 2, dtype=torch.float64)) == 0.0


def test_few_tokens_do_not_make_strangers_alike():
    draw = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 11, 8, generator=draw, dtype=torch.float64) for _ in range(200)]
    mean = sum(linear_cka(x, y) for x, y in pairs) / len(pairs)
    assert abs(mean) < 0.05  # without the correction it is 0.6


@torch.no_grad()
def test_tables_of_likeness_hold_all_pairs():
    task = model(3)
    scenes = scenes_of(task, most=7)
    found = Findings()
    add_distances(found, "heads", task, scenes)
    add_likeness(found, "heads", task, scenes)
    for what, own in (("js", 0.0), ("cka", 1.0)):
        means = []
        for layer, module in attentions(task).items():
            table = torch.tensor(found.matrices[f"heads/{what}/{layer}"])
            assert table.shape == (module.num_heads,) * 2
            assert torch.equal(table, table.T)
            assert table.diag().tolist() == [own] * module.num_heads
            pairs = list(combinations(range(module.num_heads), 2))
            means.append(sum(float(table[i, j]) for i, j in pairs) / len(pairs))
        assert found.values[f"heads/{what}"] == pytest.approx(sum(means) / 3)
    assert 0.01 < found.values["heads/js"] < 1


@torch.no_grad()
def test_heads_of_equal_parameters_are_alike():
    task = model(3)
    for module in attentions(task).values():
        for name in ("qkv_proj", "q_proj", "kv_proj"):
            part = getattr(module, name, None)
            if part is not None:
                for values in (part.weight.data, part.bias.data):
                    heads = values.unflatten(0, (-1, module.num_heads, module.head_dim))
                    heads[:] = heads[:, :1].clone()
    found = Findings()
    scenes = scenes_of(task, most=7)
    add_distances(found, "heads", task, scenes)
    add_likeness(found, "heads", task, scenes)
    assert found.values["heads/js"] == pytest.approx(0.0, abs=1e-3)
    assert found.values["heads/cka"] == pytest.approx(1.0)
