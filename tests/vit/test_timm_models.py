"""Our presets in timm's registry, used with timm's own tools."""

from __future__ import annotations

import pytest
import torch
from torch import nn

timm = pytest.importorskip("timm")

from timm import optim  # noqa: E402
from timm.models import group_parameters  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402

import mmattn.vit.timm_models  # noqa: E402, F401  # registers the models
from mmattn.vit import PRESETS, from_timm  # noqa: E402

NAME = "mmattn_vit_tiny_patch4_32"
PICO = "mmattn_vit_pico_conv4_32"


def test_every_preset_is_registered():
    assert set(timm.list_models("mmattn_*")) == {f"mmattn_{name}" for name in PRESETS}
    assert timm.list_models("mmattn_*", pretrained=True) == []


def test_the_model_that_the_name_says():
    model = timm.create_model(NAME, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 10)
    assert (model.num_classes, model.num_features, model.head_hidden_size, model.in_chans) == (
        10,
        192,
        192,
        3,
    )
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert model.default_cfg["architecture"] == NAME
    assert isinstance(model.get_submodule(model.pretrained_cfg["classifier"]), nn.Linear)
    assert isinstance(model.get_submodule(model.pretrained_cfg["first_conv"]), nn.Conv2d)
    assert timm.data.resolve_data_config({}, model=model)["input_size"] == (3, 32, 32)


def test_features_and_head_are_the_model():
    model = (
        timm.create_model(NAME, num_classes=7, depth=2) if False else timm.create_model(NAME, num_classes=7)
    )
    model.eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape == (2, 65, 192)
    torch.testing.assert_close(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    torch.testing.assert_close(pooled, features[:, 0])


def test_arguments_of_timm():
    model = timm.create_model(
        NAME, num_classes=3, in_chans=1, img_size=(24, 40), global_pool="avg",
        drop_rate=0.1, pos_drop_rate=0.2, proj_drop_rate=0.3, attn_drop_rate=0.4, drop_path_rate=0.22,
    )  # fmt: skip
    assert model(torch.randn(2, 1, 24, 40)).shape == (2, 3)
    assert model.adapter.positions.table.shape == (6, 10, 192)
    assert isinstance(model.encoder.norm, nn.Identity)  # as in timm, the norm is behind the average
    assert isinstance(model.head.norm, nn.LayerNorm)
    block = model.encoder.blocks[-1]
    found = (
        model.head.dropout.p,
        model.adapter.dropout.p,
        block.dropout.p,
        block.attention.dropout,
        block.drop_path.p,
    )
    assert found == (0.1, 0.2, 0.3, 0.4, 0.22)
    bare = timm.create_model(NAME, num_classes=0, global_pool="")
    assert bare(torch.randn(2, 3, 32, 32)).shape == (2, 65, 192)


def test_reset_classifier():
    model = timm.create_model(NAME, num_classes=10)
    model.reset_classifier(4)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    model.reset_classifier(0, "avg")
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    assert (model.num_classes, model.global_pool) == (0, "avg")
    torch.testing.assert_close(model(x), model.forward_features(x)[:, 1:].mean(1))
    with pytest.raises(ValueError, match="pool 'attention' must be asked for when the head is made"):
        model.reset_classifier(3, "attention")


def test_features_only():
    model = timm.create_model(NAME, features_only=True, out_indices=(1, 4)).eval()
    maps = model(torch.randn(2, 3, 32, 24))
    assert [m.shape for m in maps] == [(2, 192, 8, 6)] * 2
    assert model.feature_info.channels() == [192, 192]
    assert model.feature_info.reduction() == [4, 4]


def test_intermediates_are_the_tokens_behind_the_blocks():
    model = timm.create_model(PICO, num_classes=5).eval()
    x = torch.randn(2, 3, 32, 32)
    final, maps = model.forward_intermediates(x, output_fmt="NLC", norm=True)
    assert len(maps) == 4
    torch.testing.assert_close(maps[-1], final)
    torch.testing.assert_close(final, model.forward_features(x))
    seen = []
    hook = model.encoder.blocks[2].register_forward_hook(lambda module, given, out: seen.append(out))
    maps = model.forward_intermediates(x, indices=[-2], stop_early=True, intermediates_only=True)
    hook.remove()
    torch.testing.assert_close(maps[0].flatten(2).transpose(1, 2), seen[0])
    with pytest.raises(ValueError, match=r"indices must name blocks among 4: got \[4\]"):
        model.forward_intermediates(x, indices=[4])


@pytest.mark.parametrize("name", [NAME, PICO])
def test_weight_decay_leaves_out_what_it_should(name):
    model = timm.create_model(name, num_classes=10)
    groups = optim.param_groups_weight_decay(model, 0.1, no_weight_decay_list=model.no_weight_decay())
    names = {id(p): n for n, p in model.named_parameters()}
    spared = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert model.no_weight_decay() <= spared
    assert model.no_weight_decay() <= set(names.values())
    assert all(n.endswith("weight") for n in decayed)
    tables = {n for n in names.values() if n.endswith(("table", "query"))}
    assert tables == model.no_weight_decay()


@pytest.mark.parametrize("name", [NAME, PICO])
def test_layer_decay(name):
    model = timm.create_model(name, num_classes=10)
    depth = len(model.encoder.blocks)
    layers = group_parameters(model, model.group_matcher(), reverse=False)
    assert {layer: bool(names) for layer, names in layers.items()} == dict.fromkeys(range(depth + 2), True)
    assert all(n.startswith("adapter") for n in layers[0])
    assert all(n.startswith("encoder.blocks.1.") for n in layers[2])
    optimizer = optim.create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    scales = {n: g["lr_scale"] for g in optimizer.param_groups for p in g["params"]
              for n, q in model.named_parameters() if q is p}  # fmt: skip
    assert scales["head.linear.weight"] == 1.0
    assert scales["encoder.blocks.0.attention.qkv_proj.weight"] == pytest.approx(
        scales["encoder.blocks.1.attention.qkv_proj.weight"] / 2
    )
    assert min(scales, key=scales.__getitem__).startswith("adapter")


def test_a_step_of_training_with_ema_and_recomputation():
    model = timm.create_model(PICO, num_classes=4, drop_path_rate=0.1).train()
    model.set_grad_checkpointing()
    ema = ModelEmaV3(model, decay=0.9)
    optimizer = optim.create_optimizer_v2(model, opt="sgd", lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    nn.functional.cross_entropy(model(torch.randn(5, 3, 32, 32)), torch.tensor([0, 1, 2, 3, 0])).backward()
    optimizer.step()
    ema.update(model)
    for name, average in ema.module.named_parameters():
        wanted = 0.9 * before[name] + 0.1 * dict(model.named_parameters())[name].detach()
        torch.testing.assert_close(average.detach(), wanted)
    assert not torch.equal(model.head.linear.weight, before["head.linear.weight"])


def test_lists_of_unlike_pictures_are_taken_too():
    model = timm.create_model(PICO, num_classes=5).eval()
    items = [torch.randn(3, 32, 32), torch.randn(3, 20, 44)]
    torch.testing.assert_close(model(items), torch.cat([model(x[None]) for x in items]), atol=1e-5, rtol=1e-5)


def test_weights_of_timm_and_of_ours_from_a_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10).eval()
    safetensors.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    overlay = {"file": str(tmp_path / "theirs.safetensors"), "num_classes": 10}
    model = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), theirs(x), atol=1e-5, rtol=1e-5)
    safetensors.save_file(from_timm(theirs).state_dict(), tmp_path / "ours.safetensors")
    overlay["file"] = str(tmp_path / "ours.safetensors")
    fewer = timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3).eval()
    torch.testing.assert_close(fewer.forward_features(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)
    assert fewer(x).shape == (2, 3)
    larger = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=10, img_size=48
    )
    assert larger.adapter.positions.table.shape == (12, 12, 192)


def test_weights_that_do_not_exist_are_refused():
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {PICO}"):
        timm.create_model(PICO, pretrained=True)
