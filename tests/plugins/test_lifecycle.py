"""What happens to models in their life goes on with the core inside: training, copies, files, compilers, threads."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.site import site_of, sites, watching
from tests.plugins.torch_cases import Classifier

ROOT = Path(__file__).parents[2]
D, H = 16, 4


def test_training_steps(pair, close):
    model, ours, x = pair()
    y = torch.tensor([0, 1, 2, 0])
    losses = []
    for m in (model, ours):
        optimizer = torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(m(x), y)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for old, new in zip(model.parameters(), ours.parameters(), strict=True):
        close(new, old, 1e-3)
    unplug(ours)
    with torch.no_grad():
        close(ours.eval()(x), model.eval()(x), 1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_autocast_to_bfloat16(training, pair):
    model, ours, x = pair()
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
        wanted, got = model.train(training)(x), ours.train(training)(x)
    assert got.dtype == wanted.dtype == torch.bfloat16
    exact = model(x)
    error = (wanted.float() - exact).abs().max()
    assert (got.float() - exact).abs().max() <= 2 * error
    if training:
        got.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())
        assert ours.layers[0].self_attn.in_proj_weight.grad.dtype == torch.float32


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_under_autocast(need_weights, sharpen):
    """Masks stay float32 there while queries are bfloat16."""
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True, add_bias_kv=True))
    x = torch.randn(2, 5, D)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    exact = module(x, x, x, key_padding_mask=padding)[0]
    plug_in(module)
    with torch.autocast("cpu", torch.bfloat16):
        out, weights = module(x, x, x, key_padding_mask=padding, need_weights=need_weights)
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert (weights is None) == (not need_weights)


def test_a_copy_runs_its_own_weights(pair):
    _, ours, x = pair()
    other = copy.deepcopy(ours)
    with torch.no_grad():
        before = ours(x)
        assert torch.equal(other(x), before)
        for p in other.layers[0].self_attn.parameters():
            p.zero_()
        assert torch.equal(ours(x), before)
        assert not torch.equal(other(x), before)
    names = [name for name, _ in other.named_modules() if name.endswith("self_attn")]
    assert [site.name for _, site in sites(other)] == names
    mine = {id(site) for _, site in sites(ours)}
    assert not mine & {id(site) for _, site in sites(other)}
    unplug(other)
    assert len(list(sites(ours))) == 2


def test_a_copy_has_its_own_head_mask(pair):
    _, ours, x = pair()
    other = copy.deepcopy(ours)
    site_of(other.layers[0].self_attn).head_mask = torch.zeros(H)
    with torch.no_grad():
        assert not torch.equal(other(x), ours(x))


def test_moving_averages(pair):
    _, ours, x = pair()
    average = torch.optim.swa_utils.AveragedModel(ours)
    with torch.no_grad():
        average.update_parameters(ours)
        for p in ours.parameters():
            p.mul_(3.0)
        average.update_parameters(ours)
        plain = Classifier()
        plain.load_state_dict(average.module.state_dict())
        got = average(x)
        assert torch.allclose(got, plain(x), rtol=1e-4, atol=1e-5 * got.abs().max())
    assert sum(site.routed_calls for _, site in sites(average)) == 2


LOAD = """
import sys, torch
sys.path[:0] = [{root!r}]
model = torch.load({path!r}, weights_only=False)
from mmattn.plugins import unplug
from mmattn.plugins.site import sites
out = [model(model.x)]
calls = [site.routed_calls for _, site in sites(model)]
unplug(model)
torch.save([out[0], calls, [type(m).__name__ for m in model.modules()], model(model.x)], {path!r} + ".out")
"""


def test_a_whole_model_in_a_file(pair, tmp_path):
    """Saved with the core inside, loaded by another process that has not plugged anything."""
    _, ours, x = pair()
    encoder = nn.Sequential(*ours.layers).eval()
    x = ours.stem(x).detach()
    encoder.register_buffer("x", x)
    with torch.no_grad():
        wanted = encoder(x)
    path = tmp_path / "model.pt"
    torch.save(encoder, path)
    code = LOAD.format(root=str(ROOT), path=str(path))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    got, calls, kinds, after = torch.load(f"{path}.out", weights_only=False)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert calls == [1 + site.routed_calls for _, site in sites(encoder)]
    unplug(encoder)
    assert kinds == [type(m).__name__ for m in encoder.modules()]
    torch.testing.assert_close(after, encoder(x), rtol=1e-5, atol=1e-5)


def test_state_dicts_keep_their_keys(pair):
    model, ours, _ = pair()
    assert list(model.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(model.state_dict())
    model.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant, pair):
    """Gradients with head masks, of weights and of the masks, are those without it; watchers look once."""
    _, plain, x = pair()
    _, ours, _ = pair(reentrant=reentrant)
    found = []
    for model in (plain, ours):
        gates = torch.tensor([0.5, 0.0, 1.0, 2.0], requires_grad=True)
        for _, site in sites(model):
            site.head_mask = gates
        seen = []
        with watching(site_of(model.layers[0].self_attn), seen.append):
            model(x.clone().requires_grad_()).square().sum().backward()
        assert len(seen) == 1
        found.append([gates.grad, *(p.grad for p in model.parameters())])
        calls = [site.routed_calls for _, site in sites(model)]
        assert calls == ([1, 1] if model is plain else [2, 2]), "checkpointing repeats the forward pass"
    assert found[0][0].abs().min() > 0
    for old, new in zip(*found, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-6)


def test_distributed_data_parallel(pair, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        _, ours, x = pair()
        other = copy.deepcopy(ours)
        wrapped = nn.parallel.DistributedDataParallel(other)
        for model in (ours, wrapped):
            model(x).square().sum().backward()
        for old, new in zip(ours.parameters(), other.parameters(), strict=True):
            assert torch.equal(new.grad, old.grad)
        assert [site.routed_calls for _, site in sites(other)] == [1, 1]
    finally:
        torch.distributed.destroy_process_group()


def test_two_threads_at_once(pair):
    """A function mode belongs to one thread: each module enters its own in each of them."""
    _, ours, x = pair()
    ours.eval()
    inputs = [torch.randn_like(x) for _ in range(2)]
    with torch.no_grad():
        wanted = [ours(x) for x in inputs]
        start = [site.routed_calls for _, site in sites(ours)]
        results: dict[int, list[torch.Tensor]] = {0: [], 1: []}
        barrier = threading.Barrier(2)

        def run(i: int) -> None:
            torch.set_num_threads(1)  # a new thread has a number of its own, and with it another rounding
            barrier.wait()
            with torch.no_grad():
                for _ in range(20):
                    results[i].append(ours(inputs[i]))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, outs in results.items():
        assert len(outs) == 20
        assert all(torch.equal(out, wanted[i]) for out in outs)
    assert all(site.routed_calls > n for (_, site), n in zip(sites(ours), start, strict=True))


def test_one_module_under_two_names(sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = module, module

        def forward(self, x):
            x = self.first(x, x, x)[0]
            return self.second(x, x, x)[0]

    model, x = Twice(), torch.randn(2, 5, D)
    wanted = model(x)
    report = plug_in(model)
    assert report.swapped == ["first"]
    assert model.first is model.second is module
    close(model(x), wanted)
    assert [site.routed_calls for _, site in sites(model)] == [2]
    unplug(model)
    assert model.first is model.second is module
    assert torch.equal(model(x), wanted)


def test_plugging_in_twice(pair):
    model, ours, x = pair()
    with torch.no_grad():
        before = ours(x)
        first = [site for _, site in sites(ours)]
        report = plug_in(ours, backend="math")
        assert report.swapped == ["layers.0.self_attn", "layers.1.self_attn"]
        assert [site for _, site in sites(ours)] == first
        assert {site.backend for site in first} == {"math"}
        torch.testing.assert_close(ours(x), before, rtol=1e-4, atol=1e-5)
    unplug(ours)
    assert [type(m) for m in ours.modules()] == [type(m) for m in model.modules()]
    assert all(vars(m).keys() == vars(n).keys() for m, n in zip(ours.modules(), model.modules(), strict=True))


def test_unplugging_what_is_not_plugged(pair):
    model, _, x = pair()
    with torch.no_grad():
        before = model(x)
        unplug(model)
        unplug(nn.Linear(2, 2))
        assert torch.equal(model(x), before)


def test_a_part_of_a_model(pair):
    """Plugging into and out of a part leaves the rest as it is."""
    _, ours, _ = pair()
    unplug(ours.layers[1])
    assert [site.name for _, site in sites(ours)] == ["layers.0.self_attn"]
    assert type(ours.layers[1].self_attn) is nn.MultiheadAttention
    assert type(ours.layers[1]) is nn.TransformerEncoderLayer


def test_pickling_a_plugged_part_by_itself(pair):
    _, ours, x = pair()
    module = ours.layers[0].self_attn
    x = ours.stem(x)
    other = pickle.loads(pickle.dumps(module))
    assert torch.equal(other(x, x, x)[0], module(x, x, x)[0])
    assert (site_of(other).name, site_of(other).routed_calls) == ("layers.0.self_attn", 1)


def test_in_a_lightning_module(pair, aside):
    lightning = pytest.importorskip("lightning")
    _, ours, x = pair()

    class Task(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = ours

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(x, torch.tensor([0, 1, 2, 0]))
    before = ours.layers[0].self_attn.in_proj_weight.detach().clone()
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.fit(Task(), torch.utils.data.DataLoader(data, batch_size=2))
    assert not torch.equal(ours.layers[0].self_attn.in_proj_weight, before)
    assert [site.routed_calls for _, site in sites(ours)] == [2, 2]
