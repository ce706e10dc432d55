"""Vision transformers of timm and torchvision as ours, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn.vit import (
    build_vit,
    from_timm,
    from_torchvision,
    read_state,
    timm_state,
    to_timm,
    to_torchvision,
    torchvision_state,
)

timm = pytest.importorskip("timm")
vision_transformer = pytest.importorskip("timm.models.vision_transformer")
torchvision_vit = pytest.importorskip("torchvision.models.vision_transformer")

B, D, SIZE = 2, 39, (20, 12)


def randomised(module: nn.Module) -> nn.Module:
    """All parameters drawn anew, so that none can be left out unnoticed."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def theirs_of(**options) -> nn.Module:
    settings = {
        "img_size": SIZE,
        "patch_size": 4,
        "embed_dim": D,
        "depth": 3,
        "num_heads": 3,
        "num_classes": 7,
    }
    return randomised(vision_transformer.VisionTransformer(**settings | options))


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


KINDS = {
    "class token": {},
    "average": {"global_pool": "avg"},
    "average without class token": {"global_pool": "avg", "class_token": False},
    "registers": {"reg_tokens": 2},
    "registers beside the positions": {"reg_tokens": 2, "no_embed_class": True, "img_size": 16},
    "no bias of qkv": {"qkv_bias": False},
    "layer scale": {"init_values": 0.3},
    "norm before the average": {"global_pool": "avg", "fc_norm": False},
    "norm behind the class token": {"fc_norm": True},
    "no last norm": {"final_norm": False},
    "no positions": {"pos_embed": "none"},
    "one channel": {"in_chans": 1},
    "no classes": {"num_classes": 0},
    "wider": {"mlp_ratio": 1.7},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=list(KINDS))
def test_timm_there_and_back(options):
    theirs = theirs_of(**options)
    size = options.get("img_size", SIZE)
    x = torch.randn(B, options.get("in_chans", 3), *((size, size) if isinstance(size, int) else size))
    ours = from_timm(theirs)
    close(ours(x), theirs(x))
    close(ours(list(x)), theirs(x))
    close(ours.features(x), theirs.forward_features(x))
    back = to_timm(ours)
    close(back(x), theirs(x))
    close(back(x), ours(x))


def test_ours_made_here_goes_to_timm_and_torchvision():
    ours = randomised(build_vit("vit_tiny_patch4_32", 5, depth=2, drop_path=0.2))
    x = torch.randn(B, 3, 32, 32)
    close(to_timm(ours)(x), ours(x))
    close(to_torchvision(ours)(x), ours(x))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"])
def test_the_published_models_load_from_their_state_alone(name):
    theirs = randomised(timm.create_model(name, depth=2, num_classes=11))
    ours, x = from_timm(theirs.state_dict()), torch.randn(1, 3, 224, 224)
    close(ours(x), theirs(x))
    assert ours.encoder.blocks[0].attention.num_heads == theirs.blocks[0].attn.num_heads
    assert ours.encoder.norm.eps == theirs.norm.eps == 1e-6
    rebuilt = build_vit(name, 11, depth=2)  # our preset of that name takes the same weights
    rebuilt.load_state_dict(ours.state_dict())
    close(rebuilt.eval()(x), theirs(x))


def test_the_base_model_has_all_its_blocks():
    with torch.device("meta"):
        theirs = timm.create_model("vit_base_patch16_224")
    ours = from_timm(theirs)
    assert sum(p.numel() for p in ours.parameters()) + 768 == sum(p.numel() for p in theirs.parameters())


def test_other_sizes_get_resampled_positions_as_in_timm():
    theirs = theirs_of(dynamic_img_size=True)
    ours = from_timm(theirs)
    for height, width in ((20, 12), (12, 28), (8, 8)):
        x = torch.randn(B, 3, height, width)
        close(ours(x), theirs(x))
    mixed = [torch.randn(3, 12, 28), torch.randn(3, 20, 12), torch.randn(3, 8, 8)]
    close(ours(mixed), torch.cat([theirs(x[None]) for x in mixed]))


def test_dropouts_and_mode_are_carried():
    rates = {"drop": 0.1, "pos_drop": 0.2, "proj_drop": 0.3, "attn_drop": 0.4, "drop_path": 0.2}
    options = {f"{name}_rate": rate for name, rate in rates.items()}
    ours = from_timm(theirs_of(**options).train())
    block = ours.encoder.blocks[1]
    assert ours.training
    assert (ours.head.dropout.p, ours.adapter.dropout.p) == (0.1, 0.2)
    assert (block.dropout.p, block.feed_forward[2].p, block.attention.dropout) == (0.3, 0.3, 0.4)
    assert [round(block.drop_path.p, 6) for block in ours.encoder.blocks] == [0.0, 0.1, 0.2]
    back = to_timm(ours)
    assert back.training
    assert (back.head_drop.p, back.pos_drop.p, back.blocks[0].attn.attn_drop.p) == (0.1, 0.2, 0.4)
    assert (back.blocks[2].mlp.drop1.p, round(back.blocks[1].drop_path1.drop_prob, 6)) == (0.3, 0.1)
    assert not from_timm(theirs_of()).training


def test_nothing_is_shared_and_nothing_drawn():
    theirs = theirs_of()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in theirs.state_dict().items()}
    ours = from_timm(theirs)
    back = to_timm(ours)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        for parameter in (*ours.parameters(), *back.parameters()):
            parameter.zero_()
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_files(tmp_path, suffix, wrapped):
    theirs = theirs_of()
    state, path = theirs.state_dict(), tmp_path / f"vit{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        prefixed = {f"module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": prefixed, "epoch": 3} if wrapped else state, path)
    assert set(read_state(path)) == set(state)
    ours, x = from_timm(path, num_heads=3, image_size=SIZE), torch.randn(B, 3, *SIZE)
    close(ours(x), theirs(x))
    assert not ours.training
    torch.save(timm_state(ours), tmp_path / "back.pth")
    again = theirs_of()
    again.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    close(again(x), theirs(x))


def test_a_file_without_a_state_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"a checkpoint must hold a state of tensors: got .*none.pth"):
        from_timm(tmp_path / "none.pth")


# ---- torchvision


def torchvision_of(**options) -> nn.Module:
    settings = {
        "image_size": 16,
        "patch_size": 4,
        "num_layers": 3,
        "num_heads": 3,
        "hidden_dim": D,
        "mlp_dim": 50,
    }
    return randomised(torchvision_vit.VisionTransformer(num_classes=7, **settings | options))


def test_torchvision_there_and_back(tmp_path):
    theirs, x = torchvision_of(dropout=0.1, attention_dropout=0.2), torch.randn(B, 3, 16, 16)
    ours = from_torchvision(theirs)
    close(ours(x), theirs(x))
    assert (ours.adapter.dropout.p, ours.encoder.blocks[0].dropout.p, ours.encoder.blocks[2].attention.dropout) == (
        0.1, 0.1, 0.2,
    )  # fmt: skip
    back = to_torchvision(ours)
    close(back(x), theirs(x))
    torch.save(torchvision_state(ours), tmp_path / "back.pth")
    close(from_torchvision(tmp_path / "back.pth", num_heads=3)(x), theirs(x))


def test_torchvision_vit_b_16():
    theirs = randomised(
        torchvision_vit._vision_transformer(16, 2, 12, 768, 3072, None, False, num_classes=11)
    )
    x = torch.randn(1, 3, 224, 224)
    ours = from_torchvision(theirs.state_dict())
    close(ours(x), theirs(x))
    close(to_timm(ours)(x), theirs(x))


def test_old_torchvision_checkpoints():
    theirs, x = torchvision_of(), torch.randn(B, 3, 16, 16)
    names = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old = {}
    for name, value in theirs.state_dict().items():
        for new, former in names.items():
            name = name.replace(new, former)
        old[name] = value
    close(from_torchvision(old, num_heads=3)(x), theirs(x))


# ---- what cannot be carried


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (
            r"takes the plain vision transformer: got also blocks.0.attn.q_norm.weight, .* and 7 more",
            {"qk_norm": True},
        ),
        ("takes the plain vision transformer: got also norm_pre.weight, norm_pre.bias", {"pre_norm": True}),
        ("can carry global_pool 'token', 'avg' or '': got 'max'", {"global_pool": "max"}),
        ("got pool_include_prefix", {"global_pool": "avg", "pool_include_prefix": True}),
        ("cannot carry dropped patches: got patch_drop=0.5", {"patch_drop_rate": 0.5}),
        (r"exact GELU: got Mlp with ReLU\(\)", {"act_layer": nn.ReLU}),
        ("plain Block: got ResPostBlock", {"block_fn": vision_transformer.ResPostBlock}),
        ("needs LayerNorm: got RmsNorm", {"norm_layer": "rmsnorm"}),
    ],
)
def test_what_from_timm_refuses(text, options):
    with pytest.raises(ValueError, match=text):
        from_timm(theirs_of(**options))


def test_what_from_timm_refuses_in_a_state():
    state = theirs_of().state_dict()
    with pytest.raises(ValueError, match=f"num_heads must be given for embed_dim={D}: got None"):
        from_timm(state, image_size=SIZE)
    with pytest.raises(
        ValueError, match="image_size must be given where the positions are no square: got 15"
    ):
        from_timm({**state, "pos_embed": torch.zeros(1, 15, D)}, num_heads=3)
    with pytest.raises(ValueError, match="positions must be those of the grid 5 x 5: got"):
        from_timm(state, num_heads=3, image_size=(20, 20))
    with pytest.raises(ValueError, match=r"square patch embedding \[D, C, P, P\]: got None"):
        from_timm({"head.weight": torch.zeros(2, 3)})
    bare = {name: value for name, value in state.items() if "blocks" not in name}
    with pytest.raises(
        ValueError, match="from_timm needs blocks of attention: got a state without the first one"
    ):
        from_timm(bare, num_heads=3, image_size=SIZE)


def test_another_class_is_refused():
    with pytest.raises(
        TypeError, match="from_timm takes VisionTransformer with its own forward: got Identity"
    ):
        from_timm(nn.Identity())
    with pytest.raises(
        TypeError, match="from_torchvision takes VisionTransformer with its own forward: got Vision"
    ):
        from_torchvision(theirs_of())


def test_what_from_torchvision_refuses():
    with pytest.raises(ValueError, match=r"got also heads.pre_logits.weight, heads.pre_logits.bias"):
        from_torchvision(torchvision_of(representation_size=5))


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("cannot carry a convolutional stem: got stem='conv'", {"stem": "conv"}),
        ("cannot carry attention pooling: got pool='attention'", {"pool": "attention"}),
        ("cannot carry positions", {"positions": "rotary"}),
    ],
)
def test_what_cannot_go_back(text, changes):
    ours = build_vit("vit_tiny_patch4_32", 5, depth=1, **changes)
    for export in (timm_state, torchvision_state):
        with pytest.raises(ValueError, match=text):
            export(ours)


def test_what_torchvision_has_not():
    with pytest.raises(ValueError, match="to_torchvision needs a class token that is pooled: got pool='avg'"):
        to_torchvision(build_vit("vit_tiny_patch4_32", 5, depth=1, pool="avg"))
    with pytest.raises(ValueError, match="needs square pictures of 3 channels: got 32 x 16, 3"):
        to_torchvision(build_vit("vit_tiny_patch4_32", 5, depth=1, image_size=(32, 16)))
