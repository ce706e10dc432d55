"""plug_in as users call it: what it reports, verifies, refuses, and puts back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import Window, plug_in, unplug
from mmattn.plugins import VerificationError
from mmattn.plugins.site import sites
from mmattn.plugins.verify import check, difference, take

X = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Self-attention of somebody's."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Stateful(Attention):
    """Gives something else at each call, so that no two runs agree."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) * self.calls + F.scaled_dot_product_attention(x, x, x)


def model(kind=Attention):
    torch.manual_seed(1)
    return nn.Sequential(nn.LayerNorm(12), kind(), nn.Linear(12, 2))


def test_what_agrees_is_plugged_in_and_said_so():
    host = model()
    report = plug_in(host, verify=X)
    assert report.swapped == ["1"]
    assert report.verified
    assert str(report).splitlines() == [
        "module  attention",
        "1       core",
        "outputs and gradients agree with the host's",
    ]
    assert [site.routed for _, site in sites(host)] == [True]


def test_what_does_not_agree_is_refused_and_everything_is_as_it_was():
    host = model(Stateful)
    host.train()
    host[1].eval()
    with pytest.raises(
        VerificationError,
        match=r"must keep the outputs to 1e-05 of their scale: got \d\.\de[+-]\d+ in output 0",
    ):
        plug_in(host, verify=X)
    assert type(host[1]) is Stateful
    assert not list(sites(host))
    assert [part.training for part in host] == [True, False, True]
    assert all(p.grad is None for p in host.parameters())


def test_verifying_leaves_random_numbers_and_gradients_alone():
    host = model()
    host[0].weight.grad = torch.ones(12)
    before = torch.get_rng_state()
    plug_in(host, verify={"input": X})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(host[0].weight.grad, torch.ones(12))
    assert host[2].weight.grad is None


@pytest.mark.parametrize("sample", [X, (X,), {"input": X}, lambda network: network(X)])
def test_samples_of_any_form(sample):
    assert plug_in(model(), verify=sample).verified


def test_verify_needs_a_host_to_compare_with():
    host = model()
    plug_in(host)
    with pytest.raises(ValueError, match="got a model that is plugged in already, unplug it first"):
        plug_in(host, verify=X)
    with pytest.raises(ValueError, match=r"so verify cannot hold: got Window\(left=2, right=2\)"):
        plug_in(model(), window=2, verify=X)


def test_differences_are_relative_and_see_what_is_missing():
    old = torch.tensor([4.0, -8.0, float("inf"), float("nan")])
    assert difference(old[:2], torch.tensor([4.0, -7.0])) == 1 / 8
    assert difference(old[:3], old[:3].clone()) == 0
    assert difference(old, torch.tensor([4.0, -8.0, float("inf"), 5.0])) == 0  # what was NaN may be anything
    assert difference(old[:2], torch.tensor([4.0, float("nan")])) == float("inf")
    assert difference(old[:2], old[:2].double()) == float("inf")
    assert difference(old[:2], old[:1]) == float("inf")


def test_gradients_are_compared_as_well():
    class Cut(Attention):
        def forward(self, x):
            bias = self.proj.bias
            return super().forward(x).detach() + bias - bias.detach()

    whole, cut = model(), model(Cut)
    with pytest.raises(VerificationError, match=r"must keep the gradients: got \['0.bias'"):
        check(take(whole, X), take(cut, X))


def test_a_window_changes_the_result_and_is_reported():
    host = model()
    report = plug_in(host, window=2)
    assert report.changes == ["on top of its own masks, every attention sees through Window(left=2, right=2)"]
    windowed = host(X)
    unplug(host)
    part = host[1]
    q, k, v = part.qkv(host[0](X)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    mask = Window(2, 2).dense(7, 7)
    wanted = part.proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
    torch.testing.assert_close(windowed, host[2](wanted))
    assert not torch.allclose(windowed, host(X), atol=1e-3)


def test_some_modules_alone():
    host = nn.ModuleDict({"first": model(), "second": model()})
    report = plug_in(host, select="first.*")
    assert report.swapped == ["first.1"]
    assert report.skipped == {"second.1": "it was not selected"}
    unplug(host)
    assert plug_in(host, select=lambda name, module: name == "second.1").swapped == ["second.1"]


def test_backends_that_do_not_exist_are_refused_first():
    host = model()
    with pytest.raises(ValueError, match="backend must be 'auto'"):
        plug_in(host, backend="fast")
    assert not list(sites(host))


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, {"scale": -0.3}])
@pytest.mark.parametrize("shapes", [(5, 5), (3, 7), (7, 3)])
def test_calls_that_go_straight_to_the_core(options, shapes):
    class Plain(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, **options)

    host = Plain()
    q, k, v = (torch.randn(2, 3, n, 4, requires_grad=True) for n in (shapes[0], shapes[1], shapes[1]))
    wanted = host(q, k, v)
    grads = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    plug_in(host)
    for _ in range(2):  # the second call is known already
        found = host(q, k, v)
        torch.testing.assert_close(found, wanted)
        for mine, theirs in zip(torch.autograd.grad(found.square().sum(), (q, k, v)), grads, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert [site.routed_calls for _, site in sites(host)] == [2]
