"""What torchaudio's models get wrong for batches with padding, and right again with a repair."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug

models = pytest.importorskip("torchaudio.models")

CONVOLUTIONS = [(16, 10, 5), (16, 3, 2), (16, 2, 2)]
SAMPLES = torch.tensor([3000, 1900, 700])
FRAMES = torch.tensor([20, 13, 6])


def wav2vec2() -> nn.Module:
    return models.wav2vec2_model(
        "group_norm", CONVOLUTIONS, False, 32, 0.0, 16, 4, 2, 4, 0.0, 48, 0.0, 0.0, False, 0.0, None
    )


def wavlm(mode: str = "group_norm") -> nn.Module:
    return models.wavlm_model(
        mode, CONVOLUTIONS, mode == "layer_norm", 32, 0.0, 16, 4, 2, 4, 8, 20, 0.0, 48, 0.0, 0.0,
        mode == "layer_norm", 0.0, None,
    )  # fmt: skip


def conformer(**options) -> nn.Module:
    return models.Conformer(16, 4, 32, 2, 7, **options)


def differences(model: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> float:
    """The largest difference between each sequence alone and in the batch, over the largest number."""
    with torch.no_grad():
        out, sizes = model(x, lengths)
        found = []
        for i, length in enumerate(lengths.tolist()):
            alone, size = model(x[i : i + 1, :length], lengths[i : i + 1])
            assert size.item() == sizes[i].item() == alone.shape[1]
            found.append((out[i, : size.item()] - alone[0]).abs().max() / alone.abs().max())
    return max(found).item()


def noise(lengths: torch.Tensor, *width: int) -> torch.Tensor:
    """A batch whose padding is not even zeros."""
    return torch.randn(len(lengths), int(lengths.max()), *width) * 2


@pytest.mark.parametrize("mode", ["group_norm", "layer_norm"])
def test_wavlm_takes_lengths(mode, sharpen):
    """pytorch/audio issue 3700: upstream asserts that there is no mask."""
    model = sharpen(wavlm(mode)).eval()
    x = noise(SAMPLES)
    with pytest.raises(AssertionError):
        model(x, SAMPLES)
    plug_in(model)
    with pytest.raises(AssertionError):
        model(x, SAMPLES)
    report = plug_in(model, repairs=["wavlm_lengths"])
    assert differences(model, x, SAMPLES) < 1e-5
    (change,) = report.changes
    assert change.startswith("lengths are taken, and hide the padding from attention and group norm: ")
    assert ("feature_extractor.conv_layers.0" in change) == (mode == "group_norm")
    unplug(model)
    with pytest.raises(AssertionError):
        model(x, SAMPLES)


@pytest.mark.parametrize("mode", ["group_norm", "layer_norm"])
def test_a_repaired_wavlm_is_the_same_without_lengths(mode, sharpen, close):
    model = sharpen(wavlm(mode)).eval()
    x = noise(SAMPLES)
    wanted = model(x)[0]
    plug_in(model, repairs=["wavlm_lengths"])
    close(model(x)[0], wanted)


def test_group_norm_of_wav2vec2(sharpen):
    model = sharpen(wav2vec2()).eval()
    x = noise(SAMPLES)
    assert differences(model, x, SAMPLES) > 1e-3
    plug_in(model)
    assert differences(model, x, SAMPLES) > 1e-3
    report = plug_in(model, repairs=["wav2vec2_padding"])
    assert differences(model, x, SAMPLES) < 1e-5
    assert report.changes == ["group norm sees valid frames only: feature_extractor.conv_layers.0"]
    unplug(model)
    assert differences(model, x, SAMPLES) > 1e-3


@pytest.mark.parametrize("options", [{}, {"use_group_norm": True}, {"convolution_first": True}])
def test_padding_in_the_conformer(options, sharpen):
    """pytorch/audio issue 4205, in eval, with running statistics that are not those of a new model."""
    model = sharpen(conformer(**options)).train()
    with torch.no_grad():
        model(noise(FRAMES, 16), FRAMES)
    model.eval()
    x = noise(FRAMES, 16)
    with torch.no_grad():
        before = model(x, FRAMES)[0]
    assert differences(model, x, FRAMES) > 1e-3
    report = plug_in(model, repairs=["conformer_padding"])
    assert differences(model, x, FRAMES) < 1e-5
    assert report.changes == [
        "convolution and norms see valid frames only: conformer_layers.0, conformer_layers.1"
    ]
    unplug(model)
    with torch.no_grad():
        assert torch.equal(model(x, FRAMES)[0], before)
    assert {type(m) for m in model.modules()} == {type(m) for m in conformer(**options).modules()}


def test_what_the_padding_holds_does_not_matter_in_training(sharpen):
    """Outputs and gradients of two batches that differ in their padding alone; upstream they differ."""
    x = noise(FRAMES, 16)
    valid = torch.arange(20) < FRAMES[:, None]
    other = torch.where(valid[..., None], x, 9.0)

    def run(model, given):
        model = copy.deepcopy(model)
        out = model(given, FRAMES)[0][valid]
        grads = torch.autograd.grad(out.square().sum(), list(model.parameters()))
        return [out, *grads, *(b for b in model.buffers() if b.is_floating_point())]

    model = sharpen(conformer()).train()
    assert not torch.allclose(run(model, x)[0], run(model, other)[0], atol=1e-2)
    plug_in(model, repairs=["conformer_padding"])
    for one, two in zip(run(model, x), run(model, other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * max(one.abs().max().item(), 1.0))


def test_batch_norm_learns_from_valid_frames_alone(sharpen):
    """Against torch's own batch norm, given the valid frames of all sequences, one after the other."""
    model = sharpen(models.Conformer(16, 4, 32, 1, 7)).train()
    layer = model.conformer_layers[0]
    norm = layer.conv_module.sequential[3]
    twin = copy.deepcopy(norm)
    valid = torch.arange(20) < FRAMES[:, None]
    given = {}
    norm.register_forward_hook(lambda m, args, out: given.update(x=args[0], out=out))
    plug_in(model, repairs=["conformer_padding"])
    model(noise(FRAMES, 16), FRAMES)
    frames = given["x"].transpose(1, 2)[valid]
    wanted = twin(frames)
    torch.testing.assert_close(given["out"].transpose(1, 2)[valid], wanted, rtol=1e-4, atol=1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(norm, name), getattr(twin, name), rtol=1e-5, atol=1e-6)


def test_without_padding_a_repaired_model_computes_what_its_host_does(sharpen, close):
    model = sharpen(conformer()).train()
    other = copy.deepcopy(model)
    x, lengths = torch.randn(2, 9, 16), torch.tensor([9, 9])
    plug_in(other, repairs=["conformer_padding"])
    close(other(x, lengths)[0], model(x, lengths)[0])
    for (name, old), new in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_stay_repaired(way, sharpen):
    model = sharpen(conformer()).eval()
    x = noise(FRAMES, 16)
    upstream = model(x, FRAMES)[0]
    plug_in(model, repairs=["conformer_padding"])
    other = way(model)
    assert torch.equal(other(x, FRAMES)[0], model(x, FRAMES)[0])
    unplug(other)
    assert torch.equal(other(x, FRAMES)[0], upstream)
    assert differences(model, x, FRAMES) < 1e-5


def test_a_copy_of_a_repaired_wavlm(sharpen):
    """One module, both repaired and with the core inside."""
    model = sharpen(wavlm()).eval()
    plug_in(model, repairs=["wavlm_lengths"])
    assert differences(copy.deepcopy(model), noise(SAMPLES), SAMPLES) < 1e-5


def test_a_repaired_conformer_compiles(sharpen, close):
    model = sharpen(conformer()).eval()
    x = noise(FRAMES, 16)
    plug_in(model, repairs=["conformer_padding"])
    wanted = model(x, FRAMES)[0]
    hidden = torch.arange(20) >= FRAMES[:, None]

    def layers(x):
        for layer in model.conformer_layers:
            x = layer(x, hidden)
        return x

    torch._dynamo.reset()
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
    close(compiled(x.transpose(0, 1)).transpose(0, 1), wanted)


def test_two_repairs_at_once(sharpen):
    model = sharpen(nn.ModuleDict({"sound": wav2vec2(), "words": conformer()})).eval()
    report = plug_in(model, repairs=["wav2vec2_padding", "conformer_padding"])
    assert len(report.changes) == 2
    assert "changed: group norm sees valid frames only: sound.feature_extractor.conv_layers.0" in str(report)
    assert differences(model["sound"], noise(SAMPLES), SAMPLES) < 1e-5
    assert differences(model["words"], noise(FRAMES, 16), FRAMES) < 1e-5


def test_repairs_that_do_not_exist_or_do_not_fit():
    with pytest.raises(
        ValueError,
        match="repairs must be among wavlm_lengths, wav2vec2_padding, conformer_padding: got 'padding'",
    ):
        plug_in(conformer(), repairs=["padding"])
    model = conformer()
    with pytest.raises(
        ValueError, match="a repair must find its fault in the model: got 'wavlm_lengths' for Conformer"
    ):
        plug_in(model, repairs=["wavlm_lengths"])
    assert {type(m) for m in model.modules()} == {type(m) for m in conformer().modules()}
    with pytest.raises(ValueError, match="got 'wavlm_lengths' for Wav2Vec2Model"):
        plug_in(wav2vec2(), repairs=["wavlm_lengths"])
