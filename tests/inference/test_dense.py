"""Programs equal their models for every adapter, pooling and kind of positions, in other batches and sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmattn import (
    AudioFrames,
    ImagePatches,
    TextNgrams,
    build_classifier,
    build_encoder,
)
from mmattn.inference import Classification, Pictures, Sounds, Texts
from mmattn.inference.dense import NotDense
from mmattn.inference.kinds import kind_of

D, C = 12, 5
OUTPUTS = {"class_names": list("abcde")}


def program(adapter: nn.Module, inputs: Any, pool: str = "attention", **encoder: Any) -> tuple[Any, Any]:
    trunk = build_encoder(D, depth=2, num_heads=2, dropout=0.1, **encoder)
    head = build_classifier(D, C, pool=pool, num_heads=3, dropout=0.1)
    model = Classification(adapter, trunk, head).eval()
    for parameter in model.parameters():  # biases and pooling queries that are not zero
        nn.init.normal_(parameter, std=0.2)
    made = kind_of("classification").program(model, inputs, OUTPUTS)
    return model, made


def assert_equal(model: Any, made: Any, items: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        expected = model(items)
        torch.testing.assert_close(made.exported.module()(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-3  # else anything would be equal


@pytest.mark.parametrize(("positions", "pool"), [("rotary", "attention"), ("sinusoidal", "mean")])
def test_pictures_of_one_size(positions: str, pool: str) -> None:
    adapter = ImagePatches(D, patch_size=4, in_channels=1, stem="conv" if pool == "mean" else "linear")
    inputs = Pictures((0.0,), (1.0,), size=(10, 17))  # no multiples of the patch
    model, made = program(adapter, inputs, pool, positions=positions)
    for batch in (1, 3):
        x = torch.randn(batch, 1, 10, 17)
        assert_equal(model, made, x, x)
    assert made.says == {"takes": "pictures [batch, 1, 10, 17], normalised", "gives": "logits [batch, 5]"}


def test_pictures_of_any_size(tmp_path: Path) -> None:
    model, made = program(ImagePatches(D, patch_size=4, in_channels=3), Pictures((0,) * 3, (1,) * 3))
    for shape in ((2, 3, 8, 20), (1, 3, 16, 12)):
        x = torch.randn(shape)
        assert_equal(model, made, x, x)
    made.save(tmp_path / "model.pt2")
    torch.save({"x": x, "y": model(x).detach()}, tmp_path / "given.pt")
    code = (
        "import sys, torch; sys.modules['mmattn'] = None\n"
        "given = torch.load('given.pt'); run = torch.export.load('model.pt2').module()\n"
        "torch.testing.assert_close(run(given['x']), given['y'], rtol=1e-5, atol=1e-5)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_added_positions_need_one_size() -> None:
    with pytest.raises(
        NotDense, match="positions that are added need pictures of one size: got pictures of any size"
    ):
        program(ImagePatches(D, patch_size=4), Pictures((0,) * 3, (1,) * 3), positions="sinusoidal")


@pytest.mark.parametrize(
    ("stem", "subsampling", "positions"),
    [("conv", 4, "rotary"), ("patch", 3, "sinusoidal")],
)
def test_sounds(stem: str, subsampling: int, positions: str) -> None:
    pytest.importorskip("torchaudio")
    adapter = AudioFrames(D, 2000, n_mels=9, hop_length=31, n_fft=70, subsampling=subsampling, stem=stem)
    model, made = program(adapter, Sounds(2000), positions=positions)
    for shape in ((1, 311), (3, 310), (2, 1007), (1, max(70, 31 * subsampling))):
        x = torch.randn(shape)
        assert_equal(model, made, x, x)


def test_sounds_normalised_by_a_training_set() -> None:
    pytest.importorskip("torchaudio")
    adapter = AudioFrames(D, 2000, n_mels=9, normalize="global")
    adapter.fit([torch.randn(900), torch.randn(301)])
    trunk, head = build_encoder(D, depth=1, num_heads=2), build_classifier(D, C, pool="mean")
    model = Classification(adapter, trunk, head).eval()
    nn.init.normal_(model.head.linear.weight)
    x = torch.randn(2, 617)
    assert_equal(model, kind_of("classification").program(model, Sounds(2000), OUTPUTS), x, x)


def test_texts_by_ngrams() -> None:
    adapter = TextNgrams(D, buckets=101, ngram_dim=7, word_ngrams=2, word_buckets=53, token_dropout=0.2)
    model, made = program(adapter, Texts())
    for texts in (["one two, three"], ["a bc", "de f"]):
        x = adapter.encode(texts).values.unflatten(0, (len(texts), -1))
        assert_equal(model, made, texts, x)


class Own(ImagePatches):
    """A user's own adapter."""


def test_what_has_no_twin_says_so() -> None:
    with pytest.raises(NotDense, match="adapters of the same steps for all items have a dense twin: got Own"):
        program(Own(D, patch_size=4), Pictures((0,) * 3, (1,) * 3))


def test_a_twin_that_computes_something_else_is_refused() -> None:
    from mmattn.inference import examples
    from mmattn.inference.program import trace

    adapter = ImagePatches(D, patch_size=4)
    example = examples.example(adapter, Pictures((0,) * 3, (1,) * 3, size=(8, 8)))
    twin = nn.Sequential(nn.Flatten(), nn.LazyLinear(C))
    twin(example.x)
    with pytest.raises(
        NotDense, match=r"a program must compute what its model does, to .*e-05: got 1.0e\+00"
    ):
        trace(twin, lambda x: twin(x) + 1, example, "logits")
