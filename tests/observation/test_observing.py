"""Observation of other people's models: the same outputs, the right numbers, and no trace."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmattn import attention_weights
from mmattn.backends import Explanation
from mmattn.observation import observe
from mmattn.plugins.site import KEY, sites
from mmattn.plugins.swap import plug_in, unplug


class Attention(nn.Module):
    """By the fused function, as most hosts."""

    def __init__(self, dim: int = 12, num_heads: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def heads(self, x):
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        q, k, v = self.heads(x)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.proj(out.transpose(1, 2).flatten(2))


class Explicit(Attention):
    """By a softmax of its own."""

    def forward(self, x):
        q, k, v = self.heads(x)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Stack(nn.Module):
    def __init__(self, kind: type[nn.Module] = Attention, **options) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind(**options) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def vit(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, img_size=32, patch_size=8, depth=2, attn_drop_rate=0.2)


def swin() -> nn.Module:
    import timm

    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(2, 2), embed_dim=24,
        num_heads=(2, 4), attn_drop_rate=0.2,
    )  # fmt: skip


HOSTS = {
    "fused": lambda: (Stack(dropout=0.2), torch.randn(2, 5, 12)),
    "explicit": lambda: (Stack(Explicit, dropout=0.2), torch.randn(2, 5, 12)),
    "torch.nn": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 16, batch_first=True), 2), torch.randn(2, 5, 12)
    ),
    "timm vit": lambda: (vit("vit_tiny_patch16_224"), torch.randn(2, 3, 32, 32)),
    "timm swin": lambda: (swin(), torch.randn(2, 3, 32, 32)),
}  # fmt: skip


def result(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(7)
    return model(x)


def has_no_trace(model: nn.Module, kinds: list[type]) -> bool:
    parts = list(model.modules())
    return kinds == [type(part) for part in parts] and not any(KEY in part.__dict__ for part in parts)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference", "autocast"])
@pytest.mark.parametrize("weights", [False, True], ids=["statistics", "weights"])
@pytest.mark.parametrize("host", HOSTS)
def test_outputs_are_equal_bit_for_bit_and_nothing_remains(host, weights, mode):
    model, x = HOSTS[host]()
    model.train(mode == "train")
    kinds = [type(part) for part in model.modules()]
    with (
        torch.set_grad_enabled(mode in ("train", "eval")),
        torch.inference_mode(mode == "inference"),
        torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"),
    ):
        before = result(model, x)
        with observe(model, weights=weights) as record:
            during = result(model, x)
        after = result(model, x)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert has_no_trace(model, kinds)
    assert len(record) >= 2
    assert not record.unobserved
    for seen in record.values():
        assert not seen.entropy.requires_grad
        assert not seen.entropy.is_inference()
        assert seen.entropy.dtype == torch.float32
        if weights:
            assert seen.weights.dtype == torch.float32
            # what a library makes itself under autocast has eight binary digits
            off = 2**-8 if mode == "autocast" and "max_logit" in seen.calls[0].missing else 1e-5
            torch.testing.assert_close(seen.weights.sum(-1), torch.ones_like(seen.entropy), rtol=0, atol=off)


@pytest.mark.parametrize("kind", [Attention, Explicit])
@pytest.mark.parametrize("routed", [False, True], ids=["host", "plugged"])
def test_weights_and_statistics_are_those_of_the_module(kind, routed):
    model, x = kind(), torch.randn(2, 5, 12)
    if routed:
        plug_in(model)
    with observe(model, weights=True) as kept:
        model(x)
    with observe(model) as record:
        model(x)
    q, k, _ = model.heads(x).detach()
    expected = attention_weights(q, k)
    torch.testing.assert_close(kept[""].weights, expected)
    for seen in (kept[""], record[""]):
        torch.testing.assert_close(seen.entropy, torch.special.entr(expected).sum(-1))
        torch.testing.assert_close(seen.received, expected.sum(-2))
        torch.testing.assert_close(seen.sink_mass, expected[..., 0])
        apart = (torch.arange(5.0)[:, None] - torch.arange(5.0)).abs()
        torch.testing.assert_close(seen.distance, (expected * apart).sum(-1))
        if kind is Attention or routed:
            torch.testing.assert_close(seen.max_logit, (q @ k.mT / 2).amax(-1))
    assert torch.equal(record[""].q_lengths, torch.tensor([5, 5]))


def test_what_the_library_computes_itself_has_no_logits():
    model = Explicit()
    with observe(model) as record:
        model(torch.randn(2, 5, 12))
    with pytest.raises(
        AttributeError, match=r"^max_logit needs queries and keys: got '', whose library makes the weights"
    ):
        _ = record[""].max_logit


def test_gradients_are_equal_bit_for_bit():
    model, x = Stack(dropout=0.2), torch.randn(2, 5, 12)
    result(model, x).square().sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with observe(model, weights=True):
        result(model, x).square().sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, model.parameters(), strict=True))


def test_nothing_remains_after_an_error():
    model = Stack()
    kinds = [type(part) for part in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), observe(model):
        raise RuntimeError("stop")
    assert has_no_trace(model, kinds)


def test_a_plugged_model_stays_plugged():
    model = Stack()
    plug_in(model)
    before = [(type(part), site) for part, site in sites(model)]
    with observe(model) as record:
        model(torch.randn(2, 5, 12))
    assert list(record) == ["layers.0", "layers.1"]
    assert [(type(part), site) for part, site in sites(model)] == before
    assert not any(site.watchers for _, site in sites(model))


def test_a_model_may_be_plugged_in_and_out_while_it_is_observed():
    model, x = Stack(), torch.randn(2, 5, 12)
    with observe(model) as record:
        plug_in(model)
        model(x)
    assert [site.routed for _, site in sites(model)] == [True, True]
    assert len(record) == 2
    with observe(model):
        unplug(model)
    assert not list(sites(model))


def test_modules_inside_a_plugged_model_can_be_observed_alone():
    model = Stack()
    plug_in(model)
    with observe(model.layers) as record:
        model(torch.randn(2, 5, 12))
    assert list(record) == ["0", "1"]


def test_observers_may_overlap():
    model, x = Stack(), torch.randn(2, 5, 12)
    kinds = [type(part) for part in model.modules()]
    first, second = observe(model), observe(model, weights=True)
    one, two = first.__enter__(), second.__enter__()
    model(x)
    first.__exit__(None, None, None)
    model(x)
    second.__exit__(None, None, None)
    model(x)
    assert [len(record["layers.0"].calls) for record in (one, two)] == [1, 2]
    assert has_no_trace(model, kinds)


def test_calls_from_several_threads_are_all_there():
    model, x = Stack(), torch.randn(2, 5, 12)

    def run(i: int) -> None:
        torch.set_num_threads(1)  # a new thread has a number of its own, and with it another rounding
        model((i + 1) * x)

    with observe(model, weights=True) as record:
        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(seen.calls) for seen in record.values()] == [6, 6]
    for i in range(6):
        with observe(model, weights=True) as alone:
            model((i + 1) * x)
        expected = alone["layers.1"].weights
        assert any(torch.equal(call.weights, expected) for call in record["layers.1"].calls)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_seen_once(reentrant):
    model, x = Stack(), torch.randn(2, 5, 12, requires_grad=True)
    with observe(model) as record:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    assert [len(seen.calls) for seen in record.values()] == [1, 1]


@pytest.mark.parametrize("routed", [False, True], ids=["host", "plugged"])
@pytest.mark.parametrize("before", [False, True], ids=["compiled while observed", "compiled before"])
def test_compiled_models_are_observed(before, routed):
    torch._dynamo.reset()
    model, x = Stack().eval(), torch.randn(2, 5, 12)
    if routed:
        plug_in(model)
    with observe(model, weights=True) as eager:
        expected = model(x)
    compiled = torch.compile(model, backend="eager")
    if before:
        compiled(x)
    for _ in range(2):
        with observe(compiled, weights=True) as record:
            out = compiled(x)
        assert torch.equal(out, expected)
        assert torch.equal(compiled(x), expected)
        for name, seen in eager.items():
            assert torch.equal(record[name].weights, seen.weights)


def test_it_says_what_computes_a_call_and_why():
    model, x = Attention(), torch.randn(2, 5, 12)
    with observe(model, explain=True) as record:
        model(x)
    found = record[""].explanation
    assert (found.chosen, found.reason) == ("host", "the module is not plugged in")
    assert found.others["cpu"].startswith("the module is not plugged in, else it would: ")
    plug_in(model, backend="math")
    with observe(model, explain=True) as record:
        model(x)
    assert record[""].explanation.chosen == "math"
    assert record[""].explanation.reason == "it was asked for"
    with observe(Explicit(), explain=True) as record:
        pass
    made = Explicit()
    with observe(made, explain=True) as record:
        made(x)
    assert record[""].explanation == Explanation("host", "its library makes the weights by itself", {})


def test_explanations_know_whether_gradients_are_wanted():
    model, x = Attention(), torch.randn(2, 5, 12)
    plug_in(model)
    with observe(model, explain=True) as record:
        model(x)
        with torch.no_grad():
            model(x)
    with_grad, without = (call.explanation for call in record[""].calls)
    assert "backward" in with_grad.others["flex"]
    assert "backward" not in without.others["flex"]
