"""Taking heads out for good: equal to masks by zeros, and the parameters really gone."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import mmattn
from mmattn.observation.heads import attention_modules, set_head_mask
from mmattn.observation.importance import head_importance
from mmattn.observation.pruning import prune_heads, pruned_heads
from mmattn.plugins.swap import plug_in, unplug
from mmattn.plugins.verify import VerificationError
from mmattn.positions import ALiBi, GridBias, RelativeBias

X = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
PICTURE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WAVE = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))


def own(**options: Any) -> nn.Module:
    return mmattn.MultiHeadAttention(12, 4, head_dim=5, **options)


def layers(count: int = 2) -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 4, 17, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, count, enable_nested_tensor=False)


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module = pytest.importorskip("timm")
        return module.create_model(name, num_classes=3, **options)

    return build


def torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        pytest.importorskip("torchvision")
        place, _, kind = f"torchvision.models.{name}".rpartition(".")
        return getattr(importlib.import_module(place), kind)(**options)

    return build


def torchaudio(name: str, *options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return getattr(pytest.importorskip("torchaudio").models, name)(*options)

    return build


def transformers(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module = pytest.importorskip("transformers")
        return getattr(module, f"{name}Model")(getattr(module, f"{name}Config")(**options))

    return build


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4}
EVA = VIT | {"embed_dim": 32}
SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (2,), "num_heads": (3,)}
WAV = ("group_norm", [(8, 10, 5), (8, 3, 2)], False, 12, 0.0, 8, 4)
AFTER = (0.0, 24, 0.0, 0.0, False, 0.0, None)
TEXT = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 20, "max_position_embeddings": 32}  # fmt: skip
SEEN = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
        "image_size": 32, "patch_size": 8}  # fmt: skip
SPEECH = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
          "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
          "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}  # fmt: skip


def plain(embed: int, width: int, biases: int = 3) -> int:
    """Parameters of one head: columns of three projections, with biases, and rows of the output's."""
    return 4 * embed * width + biases * width


#: What is built and called, the pruned part of the names, the heads, and the parameters of one head of one module.
CASES: dict[str, tuple[Callable[[], nn.Module], Any, str, list[int], int]] = {
    "own": (own, (X,), "", [1, 3], plain(12, 5)),
    "own, sinks and gate": (
        lambda: own(sinks=True, gate=mmattn.HeadGate(12, 4, 5)), (X,), "", [0], plain(12, 5) + 1 + 13 * 5,
    ),
    "own, ALiBi": (lambda: own(position_bias=ALiBi(4)), (X,), "", [2], plain(12, 5)),
    "own, relative": (lambda: own(position_bias=RelativeBias(4, 8, 16)), (X,), "", [2], plain(12, 5) + 8),
    "own, grid": (lambda: own(position_bias=GridBias(4, (5,))), (X,), "", [0, 2], plain(12, 5) + 9),
    "own, with a context": (lambda: own(context_dim=7), (X, X[..., :7]), "", [0, 2], 24 * 5 + 14 * 5 + 15),
    "own encoder": (lambda: mmattn.build_encoder(16, 2, 4), (WIDE,), "blocks", [0], plain(16, 4)),
    "torch.nn.MultiheadAttention": (
        lambda: nn.MultiheadAttention(12, 4, batch_first=True), {"query": X, "key": X, "value": X,
        "need_weights": False}, "", [1, 2], plain(12, 3),
    ),
    "torch.nn with own widths of keys": (
        lambda: nn.MultiheadAttention(12, 4, batch_first=True, kdim=7, vdim=6, add_bias_kv=True),
        {"query": X, "key": X[..., :7], "value": X[..., :6], "need_weights": False}, "", [3],
        (24 + 13) * 3 + 9 + 6,
    ),
    "torch.nn.TransformerEncoder": (layers, (X,), "layers", [0, 3], plain(12, 3)),
    "torch.nn.Transformer": (
        lambda: nn.Transformer(12, 4, 1, 1, 17, 0.0, batch_first=True), (X, X), "", [2], plain(12, 3),
    ),
    "timm vit": (timm("vit_tiny_patch16_224", **VIT), (PICTURE,), "blocks", [0, 3], plain(24, 6)),
    "timm eva": (
        timm("eva02_tiny_patch14_224", **EVA), (PICTURE,), "blocks", [1], plain(32, 8, 2),
    ),
    "timm beit": (
        timm("beit_base_patch16_224", **VIT), (PICTURE,), "blocks", [1], plain(24, 6, 2) + 7 * 7 + 3,
    ),
    "timm relpos": (
        timm("vit_relpos_small_patch16_224", **VIT), (PICTURE,), "blocks", [1], plain(24, 6, 0),
    ),
    "timm cait": (
        timm("cait_xxs24_224", **VIT), (PICTURE,), "blocks_token_only", [0], plain(24, 6),
    ),
    "timm swin": (timm("swin_tiny_patch4_window7_224", **SWIN), (PICTURE,), "", [1], plain(12, 4) + 49),
    "timm swin v2": (
        timm("swinv2_tiny_window8_256", **SWIN), (PICTURE,), "", [1], plain(12, 4, 2) + 1 + 512,
    ),
    "torchvision vit": (
        torchvision("VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=4,
        hidden_dim=24, mlp_dim=17), (PICTURE,), "encoder", [0, 1], plain(24, 6),
    ),
    "torchvision swin": (
        torchvision("SwinTransformer", patch_size=[4, 4], embed_dim=12, depths=[2], num_heads=[3],
        window_size=[4, 4]), (PICTURE,), "features", [1], plain(12, 4) + 49,
    ),
    "torchaudio wav2vec2": (torchaudio("wav2vec2_model", *WAV, 2, 4, *AFTER), (WAVE,), "", [1], plain(12, 3)),
    "torchaudio wavlm": (
        torchaudio("wavlm_model", *WAV, 2, 4, 16, 32, *AFTER), (WAVE,), "", [1, 2], plain(12, 3) + 1,
    ),
    "torchaudio emformer": (
        torchaudio("Emformer", 12, 4, 17, 2, 4), (torch.randn(1, 8, 12), torch.tensor([8])), "", [3],
        plain(12, 3),
    ),
    "torchaudio conformer": (
        torchaudio("Conformer", 12, 4, 17, 2, 3), (X, torch.tensor([5, 5])), "", [3], plain(12, 3),
    ),
    "BERT": (transformers("Bert", **TEXT), (IDS,), "", [0, 2], plain(24, 6)),
    "ALBERT, one layer twice": (
        transformers("Albert", **TEXT, embedding_size=8), (IDS,), "", [0, 2], plain(24, 6),
    ),
    "DistilBERT": (
        transformers("DistilBert", vocab_size=64, dim=24, n_layers=2, n_heads=4, hidden_dim=17), (IDS,),
        "", [1], plain(24, 6),
    ),
    "T5": (
        transformers("T5", vocab_size=64, d_model=24, d_kv=5, num_layers=2, num_heads=4, d_ff=17),
        {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}, "", [1, 3], plain(24, 5, 0),
    ),
    "GPT-2": (
        transformers("GPT2", vocab_size=64, n_embd=24, n_layer=2, n_head=4),
        {"input_ids": IDS, "use_cache": False}, "", [1, 3], plain(24, 6),
    ),
    "GPT-NeoX, head by head": (
        transformers("GPTNeoX", **TEXT, eos_token_id=2), {"input_ids": IDS, "use_cache": False}, "", [1],
        plain(24, 6),
    ),
    "Llama, groups of two": (
        transformers("Llama", **TEXT, num_key_value_heads=2), {"input_ids": IDS, "use_cache": False}, "",
        [2, 3], 2 * 24 * 6 + 24 * 6,
    ),
    "ViT": (transformers("ViT", **SEEN), (PICTURE,), "", [2], plain(24, 6)),
    "BEiT": (
        transformers("Beit", **SEEN, use_relative_position_bias=True), (PICTURE,), "", [2], plain(24, 6, 2),
    ),
    "Wav2Vec2": (transformers("Wav2Vec2", **SPEECH), (WAVE,), "", [0], plain(24, 6)),
    "WavLM": (transformers("WavLM", **SPEECH), (WAVE,), "", [0], plain(24, 6) + 1),
}  # fmt: skip

QUICK = ["own encoder", "torch.nn.TransformerEncoder", "timm vit", "timm eva", "torchaudio wavlm", "GPT-2"]


def build(name: str) -> tuple[nn.Module, Any, dict[str, list[int]], int]:
    """A model with weights that make attention matter, its input, what to prune, and the parameters that go."""
    make, given, part, heads, each = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    for place, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim >= 2:
                parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
            elif "gamma" in place or ("norm" in place.lower() and place.endswith("weight")):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0, 0.1)
    names = [found for found in attention_modules(model) if found.startswith(part)]
    assert names
    return model, given, dict.fromkeys(names, heads), each * len(heads) * len(names)


def call(model: nn.Module, given: Any) -> list[Tensor]:
    torch.manual_seed(0)
    out = model(**given) if isinstance(given, dict) else model(*given)
    leaves = torch.utils._pytree.tree_leaves(dict(out) if hasattr(out, "keys") else out)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def as_double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference, over the largest number."""
    assert len(a) == len(b) > 0
    return max(
        float((x - y).detach().abs().max() / y.detach().abs().max()) for x, y in zip(a, b, strict=True)
    )


def zeros_for(model: nn.Module, heads: dict[str, list[int]], total: int) -> dict[str, Tensor]:
    mask = torch.ones(total)
    mask[next(iter(heads.values()))] = 0
    return dict.fromkeys(heads, mask)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_pruning_equals_masking_and_takes_the_parameters(name):
    model, given, heads, gone = build(name)
    total = 3 if "swin" in name else 4
    whole = call(model, given)
    set_head_mask(model, zeros_for(model, heads, total))
    masked = call(model, given)
    assert apart(masked, whole) > 1e-2
    set_head_mask(model, dict.fromkeys(heads))
    before = count(model)
    prune_heads(model, heads)
    assert before - count(model) == gone
    assert apart(call(model, given), masked) < 1e-5
    with torch.no_grad():
        assert apart(call(model, given), masked) < 1e-5
    assert pruned_heads(model) == heads
    plug_in(model)
    assert apart(call(model, given), masked) < 1e-5
    unplug(model)
    assert apart(call(model, given), masked) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_rest(name):
    model, given, heads, _ = build(name)
    # in float64: what is added before a softmax has no gradient but rounding
    model, given = model.double(), tree_map(as_double, given)
    pruned = copy.deepcopy(model)
    prune_heads(pruned, heads)
    set_head_mask(model, zeros_for(model, heads, 3 if "swin" in name else 4))
    found, wanted = {}, {}
    for one, kept in ((pruned, found), (model, wanted)):
        loss = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in call(one, given))
        named = dict(one.named_parameters())
        slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        kept |= {n: g for n, g in zip(named, slopes, strict=True) if g is not None}
    same = [n for n in found if found[n].shape == wanted[n].shape]
    cut = [n for n in found if found[n].shape != wanted[n].shape]
    assert same
    assert cut
    for place in same:
        scale = wanted[place].abs().max().clamp(min=1e-3)
        assert (found[place] - wanted[place]).abs().max() / scale < 1e-4
    for place in cut:  # nothing flows into what is gone, so the sums are those of the rest
        scale = wanted[place].abs().max().clamp(min=1e-3)
        assert abs(found[place].sum() - wanted[place].sum()) / scale / wanted[place].numel() ** 0.5 < 1e-4


@pytest.mark.parametrize("name", QUICK)
def test_in_two_steps_by_the_numbers_of_the_whole(name):
    model, given, heads, _ = build(name)
    first, once = copy.deepcopy(model), copy.deepcopy(model)
    prune_heads(first, {key: [0] for key in heads})
    prune_heads(first, {key: [0, 2] for key in heads})
    prune_heads(once, {key: [2, 0] for key in heads})
    assert pruned_heads(first) == {key: [0, 2] for key in heads}
    assert apart(call(first, given), call(once, given)) == 0
    assert count(first) == count(once)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("plugged", [False, True])
def test_copies_pickles_and_states(name, plugged):
    model, given, heads, _ = build(name)
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    if plugged:
        plug_in(model)
    prune_heads(model, heads)
    wanted = call(model, given)
    prune_heads(fresh, pruned_heads(model))
    fresh.load_state_dict(model.state_dict())
    assert apart(call(fresh, given), wanted) < (1e-5 if plugged else 1e-30)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert apart(call(copied, given), wanted) == 0
    assert pruned_heads(copied) == heads
    if "audio" not in name:  # upstream's weight norm cannot be pickled
        assert apart(call(pickle.loads(pickle.dumps(copied)), given), wanted) == 0


def test_the_state_loads_in_a_new_process(tmp_path):
    model, given, heads, _ = build("timm eva")
    prune_heads(model, heads)
    torch.save({"state": model.state_dict(), "heads": pruned_heads(model), "x": given[0]}, tmp_path / "a.pt")
    torch.save(model, tmp_path / "b.pt")
    script = f"""
import sys, timm, torch
from mmattn.observation.pruning import prune_heads
saved = torch.load(sys.argv[1])
model = timm.create_model("eva02_tiny_patch14_224", num_classes=3, **{EVA}).eval()
prune_heads(model, saved["heads"])
model.load_state_dict(saved["state"])
whole = torch.load(sys.argv[2], weights_only=False)
torch.save([model(saved["x"]), whole(saved["x"])], sys.argv[3])
"""
    command = [sys.executable, "-c", script, *(str(tmp_path / f"{n}.pt") for n in "abc")]
    subprocess.run(command, check=True, capture_output=True)
    for out in torch.load(tmp_path / "c.pt"):
        torch.testing.assert_close(out, model(given[0]))


@pytest.mark.parametrize(
    "name", ["own encoder", "torch.nn.TransformerEncoder", "timm vit", "timm eva", "BERT"]
)
def test_export(name):
    model, given, heads, _ = build(name)
    prune_heads(model, heads)
    exported = torch.export.export(model, given).module()
    assert apart(call(exported, given), call(model, given)) < 1e-5


@pytest.mark.parametrize("name", QUICK)
def test_training_goes_on(name):
    model, given, heads, _ = build(name)
    prune_heads(model, heads)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    call(model.train(), given)[0].square().mean().backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(moved[i] for i, p in enumerate(model.parameters()) if p.grad is not None and p.grad.any())
    assert sum(moved) > len(moved) / 2


def test_a_fused_block_of_ours_is_pruned():
    model, _, _, _ = build("own encoder")
    model, x = model.double().train(), WIDE.double()
    masked = copy.deepcopy(model)
    set_head_mask(masked, {"blocks.0.attention": torch.tensor([1.0, 0.0, 1.0, 1.0])})
    prune_heads(model, {"blocks.0.attention": [1]})
    assert model.blocks[0].unfused(x) is None
    assert masked.blocks[0].unfused(x) is not None
    outputs = [one(x) for one in (model, masked)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for out in outputs:
        out.square().sum().backward()
    slopes = masked.blocks[0].attention.qkv_proj.weight.grad.unflatten(0, (3, 4, 4))[:, [0, 2, 3]]
    torch.testing.assert_close(model.blocks[0].attention.qkv_proj.weight.grad, slopes.flatten(0, 2))


def test_masks_and_importance_keep_the_numbers_of_heads():
    for name in ("own encoder", "torch.nn.TransformerEncoder", "timm vit"):
        model, given, heads, _ = build(name)
        place = next(iter(heads))
        mask = torch.tensor([1.0, 1.0, 0.0, 0.5])
        set_head_mask(model, {place: mask * torch.tensor([0.0, 1.0, 1.0, 1.0])})
        wanted = call(model, given)
        set_head_mask(model, {place: None})
        prune_heads(model, {place: [0]})
        set_head_mask(model, {place: mask})
        assert apart(call(model, given), wanted) < 1e-5
        set_head_mask(model, {place: None})
        found = head_importance(model, [given], lambda m, g: call(m, g)[0].square().mean())
        assert found[place].shape == (4,)
        assert found[place][0] == 0
        assert (found[place][1:] > 0).all()


def test_a_mask_that_is_set_goes_with_the_heads():
    model, given, heads, _ = build("timm vit")
    place = next(iter(heads))
    set_head_mask(model, {place: torch.tensor([0.0, 0.5, 1.0, 2.0])})
    wanted = call(model, given)
    prune_heads(model, {place: [0]})
    assert apart(call(model, given), wanted) < 1e-5


def test_groups_go_whole_or_alike():
    attention = mmattn.MultiHeadAttention(12, 6, num_kv_heads=2, head_dim=5)
    with pytest.raises(ValueError, match=r"of the 3 heads of '' that share keys, .* does: got \[2, 3\]"):
        prune_heads(attention, {"": [0]})
    masked, mask = copy.deepcopy(attention), torch.ones(6)
    mask[[1, 5]] = 0
    set_head_mask(masked, {"": mask})
    alike = copy.deepcopy(attention)
    prune_heads(alike, {"": [1, 5]})
    assert (alike.num_heads, alike.num_kv_heads) == (4, 2)
    torch.testing.assert_close(alike(X), masked(X))
    prune_heads(alike, {"": [3, 4]})
    assert (alike.num_heads, alike.num_kv_heads) == (2, 1)
    mask[[3, 4]] = 0
    set_head_mask(masked, {"": mask})
    torch.testing.assert_close(alike(X), masked(X))


def test_grouped_hosts_lose_heads_of_each_group():
    model, given, heads, _ = build("Llama, groups of two")
    masks = {name: torch.tensor([1.0, 0.0, 0.0, 1.0]) for name in heads}
    set_head_mask(model, masks)
    wanted = call(model, given)
    set_head_mask(model, dict.fromkeys(masks))
    prune_heads(model, {key: [1, 2] for key in heads})
    assert apart(call(model, given), wanted) < 1e-5


def test_moving_and_casting_keep_what_is_pruned():
    model = mmattn.MultiHeadAttention(12, 4, position_bias=ALiBi(4))
    prune_heads(model, {"": [0, 2]})
    assert torch.equal(model.double().position_bias.slopes, ALiBi(4).double().slopes[[1, 3]])
    host, given, heads, _ = build("torch.nn.MultiheadAttention")
    prune_heads(host, heads)
    given = {k: x.double() if isinstance(x, Tensor) else x for k, x in given.items()}
    assert call(host.double(), given)[0].dtype == torch.float64


def test_wrong_names_and_numbers_change_nothing():
    model = layers()
    keys = {name: p.shape for name, p in model.named_parameters()}
    name = "layers.0.self_attn"
    with pytest.raises(
        ValueError, match=r"of an attention module: got 'layers.0', known are \['layers.0.self"
    ):
        prune_heads(model, {name: [0], "layers.0": [0]})
    with pytest.raises(
        ValueError, match=r"of 'layers.0.self_attn' must be numbers from 0 to 3: got \[4, -1\]"
    ):
        prune_heads(model, {name: [4, 0, -1]})
    with pytest.raises(
        ValueError, match=r"at least one head of 'layers.0.self_attn' must remain: got \[0, 1,"
    ):
        prune_heads(model, {name: [0, 1, 2, 3]})
    prune_heads(model, {name: []})
    assert {name: p.shape for name, p in model.named_parameters()} == keys
    assert pruned_heads(model) == {}
    prune_heads(model, {name: [0, 1, 2]})
    with pytest.raises(
        ValueError, match=r"at least one head of 'layers.0.self_attn' must remain: got \[3\] of 4"
    ):
        prune_heads(model, {name: [3]})


@pytest.mark.parametrize(
    ("build", "name", "reason"),
    [
        (timm("cait_xxs24_224", **VIT), "blocks.0.attn", "it mixes its heads before and after the softmax"),
        (
            timm("vit_tiny_patch16_224", **VIT, scale_attn_norm=True),
            "blocks.0.attn",
            "its norm norms all heads",
        ),
        (
            transformers("Olmo2", **TEXT, eos_token_id=2, pad_token_id=1),
            "layers.0.self_attn",
            "its q_norm norms all heads together",
        ),
        (
            transformers("Phi3", **TEXT, eos_token_id=2, pad_token_id=1),
            "layers.0.self_attn",
            "its projections are not laid out in a way that is known",
        ),
    ],
)
def test_heads_that_do_not_act_alone_are_refused(build, name, reason):
    model = build()
    before = count(model)
    with pytest.raises(ValueError, match=f"{name!r} cannot lose heads, since {reason}.*: got a "):
        prune_heads(model, {name: [0]})
    assert count(model) == before


def test_shared_tensors_are_refused():
    bias = RelativeBias(4)
    model = nn.ModuleList([own(position_bias=bias), own(position_bias=bias)])
    with pytest.raises(
        ValueError, match="must belong to one module: got a table of RelativeBias that several"
    ):
        prune_heads(model, {"0": [0]})
    tied = nn.ModuleList([own(), own()])
    tied[1].out_proj.weight = tied[0].out_proj.weight
    with pytest.raises(ValueError, match="must belong to one module: got a weight of Linear that several"):
        prune_heads(tied, {"0": [0]})


class Own(nn.Module):
    """Somebody's attention, heads before features or the reverse."""

    def __init__(self, reverse: bool) -> None:
        super().__init__()
        self.num_heads, self.reverse = 3, reverse
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(
            out.permute(0, 2, 3, 1).flatten(2) if self.reverse else out.transpose(1, 2).flatten(2)
        )


def test_unknown_classes_are_verified_first():
    model = Own(reverse=False)
    with pytest.raises(ValueError, match="heads of '' need a sample to verify, since its class is not known"):
        prune_heads(model, {"": [1]})
    set_head_mask(model, {"": torch.tensor([1.0, 0.0, 1.0])})
    wanted = model(X)
    set_head_mask(model, {"": None})
    prune_heads(model, {"": [1]}, verify=X)
    torch.testing.assert_close(model(X), wanted)
    other = Own(reverse=True)
    with pytest.raises(VerificationError, match=r"must compute what masks make of it: got .* of its scale"):
        prune_heads(other, {"": [1]}, verify=X)
    assert pruned_heads(other) == {}
    assert count(other) == count(Own(reverse=True))


def test_a_saved_whole_model_keeps_its_class():
    model, given, heads, _ = build("timm eva")
    kind = type(model.blocks[0].attn.proj)
    prune_heads(model, heads)
    assert isinstance(model.blocks[0].attn.proj, kind)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    again = torch.load(stored, weights_only=False)
    assert type(again.blocks[0].attn.proj) is type(model.blocks[0].attn.proj)
    assert apart(call(again, given), call(model, given)) == 0
