"""Masks on heads, and how much each head matters."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mmattn
from mmattn.observation.heads import set_head_mask
from mmattn.observation.importance import head_importance
from mmattn.plugins.site import sites
from mmattn.plugins.swap import plug_in, unplug

NAME = "layers.1.self_attn"


class Spelled(nn.Module):
    """Attention with its softmax spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Called(Spelled):
    """The same by the fused function."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(12, 3, 17, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def by_hand(module: nn.Module, x: Tensor, factors: Tensor) -> Tensor:
    """Attention with factors on the columns of the output projection."""
    scaled = copy.deepcopy(module)
    with torch.no_grad():
        scaled.proj.weight.mul_(factors.repeat_interleave(4))
    return scaled(x)


@pytest.mark.parametrize("kind", [Spelled, Called])
@pytest.mark.parametrize("plugged", [False, True])
def test_a_mask_multiplies_the_results_of_heads(kind, plugged):
    module, x, factors = kind(), torch.randn(2, 5, 12), torch.tensor([0.0, 1.0, 0.5])
    whole, wanted = module(x), by_hand(module, x, factors)
    if plugged:
        plug_in(module)
    set_head_mask(module, {"": factors})
    torch.testing.assert_close(module(x), wanted)
    assert not torch.allclose(whole, wanted, atol=1e-2)


def test_without_plugging_the_host_computes():
    module, x = Called(), torch.randn(2, 5, 12)
    set_head_mask(module, {"": torch.ones(3)})
    assert torch.equal(module(x), Called.forward(module, x))
    (_, site), *_ = sites(module)
    assert (site.routed_calls, site.host_calls) == (0, 1)


@pytest.mark.parametrize("grad", [False, True])
def test_torch_nn_leaves_its_fast_path_while_masked(grad):
    model, x = encoder(), torch.randn(2, 5, 12)
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.layers[1].self_attn.out_proj.weight[:, 4:8] = 0
    with torch.set_grad_enabled(grad):
        whole = model(x)
        set_head_mask(model, {NAME: torch.tensor([1.0, 0.0, 1.0])})
        torch.testing.assert_close(model(x), scaled(x), atol=1e-5, rtol=1e-5)
        set_head_mask(model, {NAME: None})
        assert torch.equal(model(x), whole)
    assert type(model.layers[1].self_attn) is nn.MultiheadAttention
    assert not list(sites(model))


def test_removing_a_mask_leaves_a_plugged_model_plugged():
    model = encoder()
    plug_in(model)
    set_head_mask(model, {NAME: torch.zeros(3)})
    set_head_mask(model, {NAME: None})
    assert {site.name for _, site in sites(model)} == {"layers.0.self_attn", NAME}
    unplug(model)
    assert not list(sites(model))


@pytest.mark.parametrize("packed", [False, True])
def test_our_own_attention_takes_masks(packed):
    model = mmattn.build_encoder(embed_dim=12, depth=2, num_heads=3)
    x = torch.randn(7, 12)
    tokens = mmattn.TokenBatch(x, [3, 4]) if packed else x[None]
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.blocks[0].attention.out_proj.weight[:, 4:8] *= 0.25

    def out(model: nn.Module) -> Tensor:
        found = model(tokens)
        return found.values if packed else found

    whole = out(model)
    set_head_mask(model, {"blocks.0.attention": torch.tensor([1.0, 0.25, 1.0])})
    torch.testing.assert_close(out(model), out(scaled))
    set_head_mask(model, {"blocks.0.attention": None})
    assert torch.equal(out(model), whole)


def test_a_fused_block_goes_part_by_part_while_masked():
    model = mmattn.build_encoder(embed_dim=12, depth=1, num_heads=3, dropout=0.1).train()
    for part in model.modules():
        if isinstance(part, mmattn.MultiHeadAttention):
            part.dropout = 0.1
    x = torch.randn(2, 5, 12)
    block = model.blocks[0]
    assert block.unfused(x) is None
    set_head_mask(model, {"blocks.0.attention": torch.ones(3)})
    assert block.unfused(x) == "hooks or another forward wait inside it, on Linear"
    set_head_mask(model, {"blocks.0.attention": None})
    assert block.unfused(x) is None


@pytest.mark.parametrize("build", [Spelled, Called, encoder, lambda: mmattn.MultiHeadAttention(12, 3)])
def test_gates_are_trained(build):
    model, x = build(), torch.randn(2, 5, 12)
    name = NAME if build is encoder else ""
    gate = torch.tensor([1.0, 0.5, 2.0], requires_grad=True)
    set_head_mask(model, {name: gate})
    model(x).square().sum().backward()
    slopes, step = gate.grad.clone(), 1e-3
    for head in range(3):
        ends = []
        for sign in (1, -1):
            moved = gate.detach().clone()
            moved[head] += sign * step
            set_head_mask(model, {name: moved})
            ends.append(model(x).square().sum().item())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slopes[head].item(), rel=2e-2, abs=2e-2)


def test_a_masked_model_is_copied_and_pickled():
    x = torch.randn(2, 5, 12)
    for model, name in ((encoder(), NAME), (mmattn.MultiHeadAttention(12, 3), "")):
        set_head_mask(model, {name: torch.tensor([0.0, 1.0, 1.0])})
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), model(x))


def test_a_mask_is_no_part_of_the_state():
    model = mmattn.MultiHeadAttention(12, 3)
    keys = list(model.state_dict())
    set_head_mask(model, {"": torch.zeros(3)})
    assert list(model.state_dict()) == keys


def test_masks_must_fit():
    model = encoder()
    with pytest.raises(ValueError, match=r"for an attention module: got 'layers.7', known are \['layers.0"):
        set_head_mask(model, {"layers.7": torch.ones(3)})
    with pytest.raises(ValueError, match=r"each of 3 heads: got shape \[4\] for 'layers.1.self_attn'"):
        set_head_mask(model, {NAME: torch.ones(4)})
    with pytest.raises(ValueError, match=r"each of 3 heads: got shape \[1, 3\] for ''"):
        set_head_mask(mmattn.MultiHeadAttention(12, 3), {"": torch.ones(1, 3)})
    assert not list(sites(model))


def squares(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


@pytest.mark.parametrize("build", [Spelled, Called, encoder, lambda: mmattn.MultiHeadAttention(12, 3)])
def test_importance_is_the_slope_and_the_rise_of_the_loss(build):
    model, batches = build().eval(), [torch.randn(1, 5, 12), torch.randn(1, 4, 12)]
    name = NAME if build is encoder else ""
    slopes, rises = torch.zeros(3), torch.zeros(3)
    for batch in batches:
        gate = torch.ones(3, requires_grad=True)
        set_head_mask(model, {name: gate})
        slopes += torch.autograd.grad(squares(model, batch), gate)[0].abs() / 2
        set_head_mask(model, {name: None})
        whole = squares(model, batch)
        for head in range(3):
            set_head_mask(model, {name: (torch.arange(3) != head).float()})
            rises[head] += (squares(model, batch) - whole).detach() / 2
            set_head_mask(model, {name: None})
    found = head_importance(model, iter(batches), squares)
    torch.testing.assert_close(found[name], slopes)
    torch.testing.assert_close(
        head_importance(model, batches, squares, method="leave_one_out")[name], rises, atol=1e-5, rtol=1e-4
    )
    layer = head_importance(model, batches, squares, normalize=True)[name]
    torch.testing.assert_close(layer, slopes / slopes.norm())


@pytest.mark.parametrize("method", ["gradient", "leave_one_out"])
@pytest.mark.parametrize("plugged", [False, True])
def test_importance_leaves_everything_as_it_was(method, plugged):
    model = nn.ModuleDict({"host": encoder().train(), "own": mmattn.MultiHeadAttention(12, 3)})
    model["host"].layers[0].eval()
    model["own"].weight_of_rest = nn.Dropout(0.5)
    if plugged:
        plug_in(model)
    mask = torch.tensor([1.0, 0.0, 1.0])
    set_head_mask(model, {"own": mask})
    model["own"].out_proj.weight.grad = torch.ones(12, 12)
    modes = [m.training for m in model.modules()]
    kinds = [type(m) for m in model.modules()]
    state = torch.get_rng_state()

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        noisy = batch + 0.1 * torch.randn_like(batch)
        return (model["host"](noisy) + model["own"](noisy)).square().mean()

    batches = [torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    found = head_importance(model, batches, loss, method=method)
    assert torch.equal(torch.get_rng_state(), state)
    again = head_importance(model, batches, loss, method=method)
    assert found.keys() == {"host.layers.0.self_attn", f"host.{NAME}", "own"}
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert found["own"][1] == 0  # masked already
    assert [m.training for m in model.modules()] == modes
    assert [type(m) for m in model.modules()] == kinds
    assert torch.equal(model["own"].out_proj.weight.grad, torch.ones(12, 12))
    assert sum(p.grad is not None for p in model.parameters()) == 1
    hook = next(iter(model["own"].out_proj._forward_pre_hooks.values()))
    assert hook.factors is mask


def test_importance_asks_for_what_it_needs():
    model, batches = encoder(), [torch.randn(1, 5, 12)]
    with pytest.raises(ValueError, match="method must be 'gradient' or 'leave_one_out': got 'taylor'"):
        head_importance(model, batches, squares, method="taylor")
    with pytest.raises(ValueError, match="at least one batch: got none"):
        head_importance(model, [], squares)
    with pytest.raises(ValueError, match=r"a tensor without axes: got \[1, 5, 12\]"):
        head_importance(model, batches, lambda model, batch: model(batch))
    with pytest.raises(ValueError, match="must have an attention module: got Linear without any"):
        head_importance(nn.Linear(3, 3), batches, squares)
    with pytest.raises(ValueError, match=r"reached by the loss: got none of its calls for \['layers.1"):
        head_importance(model, batches, lambda model, batch: model.layers[0](batch).mean())
    assert not list(sites(model))


def test_importance_of_selected_modules():
    model, batches = encoder(), [torch.randn(1, 5, 12)]
    assert head_importance(model, batches, squares, select="layers.0.*").keys() == {"layers.0.self_attn"}
    picked = head_importance(model, batches, squares, select=lambda name, module: name == NAME)
    assert picked.keys() == {NAME}
