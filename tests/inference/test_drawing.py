"""Attention is drawn where it was, and looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from mmattn import AudioFrames, ImagePatches, Registers, TextTokens, build_classifier, build_encoder, observe
from mmattn.inference import Classification, Look
from mmattn.inference.drawing import picture, save, sound, strength
from mmattn.inference.kinds import kind_of
from mmattn.inference.looking import look_of_layer
from mmattn.inference.sentences import sentence, word_weights, words

D = 8


def drawn(figure: object, path: Path) -> np.ndarray:
    from matplotlib.image import imread

    save(figure, path)
    return imread(path)[..., :3]


def one_token(regions: torch.Tensor, index: int) -> Look:
    weights = torch.zeros(len(regions))
    weights[index] = 1.0
    return Look(weights, regions, "a title")


def test_the_patch_that_was_looked_at_is_bright(tmp_path: Path) -> None:
    adapter = ImagePatches(D, patch_size=4, in_channels=1)
    pixels = torch.full((1, 24, 36), 128, dtype=torch.uint8)  # twice the size that the model saw
    regions = adapter.regions([torch.zeros(1, 12, 18)])[
        0
    ]  # 3 x 5 patches, the last ones beyond the right edge
    seen = []
    for index in (0, 7, 14):
        image = drawn(
            picture(pixels, (12, 18), one_token(regions, index), "label"), tmp_path / f"{index}.png"
        )
        heat = np.abs(image - image.mean(2, keepdims=True)).sum(
            2
        )  # grey is drawn in the picture, colours over it
        half = heat[:, heat.shape[1] // 2 :]
        rows, columns = np.nonzero(half > 0.6 * half.max())
        seen.append((rows.mean(), columns.mean()))
    down, across = np.diff(np.array(seen), axis=0).T
    assert (down > 20).all()  # patches (0, 0), (1, 2), (2, 4) lie ever lower and further to the right
    assert (across > 20).all()


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    regions = ImagePatches(D, patch_size=4).regions([torch.zeros(3, 8, 8)])[0]
    for name in "ab":
        figure = picture(torch.zeros(3, 8, 8, dtype=torch.uint8), (8, 8), one_token(regions, 1), "$x")
        save(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_stretch_that_was_looked_at_is_coloured(tmp_path: Path) -> None:
    pytest.importorskip("torchaudio")
    adapter = AudioFrames(D, 4000, n_mels=11)
    wave = torch.randn(4000)
    regions = adapter.regions([wave])[0]
    log_mel = adapter.features([wave]).values
    places = []
    for index in (2, len(regions) // 2, len(regions) - 3):
        image = drawn(sound(log_mel, 1.0, 4000, one_token(regions, index), "ten"), tmp_path / f"{index}.png")
        coloured = (image[..., 0] - image[..., 2]) > 0.3
        places.append(np.nonzero(coloured)[1].mean() / image.shape[1])
    assert places[0] < 0.25 < 0.4 < places[1] < 0.65 < 0.8 < places[2]


def test_words_are_coloured_by_their_tokens(tmp_path: Path) -> None:
    text = "first second $third"
    regions = TextTokens(D).regions([text])[0]
    left = drawn(sentence(text, one_token(regions, 1), "x"), tmp_path / "a.png")
    right = drawn(sentence(text, one_token(regions, len(text) - 1), "x"), tmp_path / "b.png")
    places = [np.nonzero((image[..., 0] - image[..., 2]) > 0.3)[1].mean() for image in (left, right)]
    assert places[0] + 50 < places[1]


def test_long_texts_are_wrapped_and_cut_off() -> None:
    text = "word " * 700
    look = Look(torch.full((700,), 1 / 700), torch.tensor([[5 * i, 5 * i + 4] for i in range(700)]), "t")
    figure = sentence(text, look, "c")
    assert figure.get_size_inches()[1] < 16
    assert len(figure.axes[0].texts) < 702
    empty = sentence("", Look(torch.zeros(0), torch.zeros(0, 2, dtype=torch.long), "t"), "c")
    assert len(empty.axes[0].texts) == 2  # caption and title


def test_the_weights_of_words_add_up() -> None:
    text = "we don't know, 注意"
    spans = words(text)
    assert [text[a:b] for a, b in spans] == ["we", "don", "'", "t", "know", ",", "注", "意"]
    regions = TextTokens(D).regions([text])[0]
    weights = torch.rand(len(regions))
    found = word_weights(spans, weights, regions)
    spaces = sum(float(w) for w, (a, _) in zip(weights, regions.tolist(), strict=True) if text[a] == " ")
    assert sum(found) + spaces == pytest.approx(float(weights.sum()), abs=1e-5)
    assert found[-1] == pytest.approx(float(weights[-3:].sum()), abs=1e-6)  # three bytes of one character


def test_even_attention_looks_pale() -> None:
    assert strength([1 / 16] * 16).max() < 0.5
    assert strength([0.0, 0.0]).tolist() == [0.0, 0.0]
    assert strength([0.5, 0.25, 0.25]).tolist()[0] == pytest.approx((0.5) ** 0.7)


@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_a_look_is_what_was_observed_and_changes_nothing(pool: str) -> None:
    model = Classification(
        TextTokens(D), build_encoder(D, 2, 2), build_classifier(D, 3, pool=pool, num_heads=4)
    ).eval()
    kind, items = kind_of("classification"), ["a few words", "more"]
    before = model(items)
    look = kind.look(model, items[0], {})
    assert torch.equal(model(items), before)
    with torch.no_grad(), observe(model, weights=True) as record:
        model(items)
    name = "head.pool.attention" if pool == "attention" else "encoder.blocks.1.attention"
    expected = record[name].weights[0][..., : len(items[0])]
    rows = expected if pool == "attention" else expected[:, : len(items[0])]
    torch.testing.assert_close(look.weights, rows.mean((0, 1)), rtol=1e-5, atol=1e-6)
    assert look.weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert len(look.regions) == len(items[0])
    assert look.title.startswith(
        "pooling attention" if pool == "attention" else "attention of the last layer"
    )


def test_tokens_in_front_are_left_out() -> None:
    from torch import nn

    adapter, encoder, registers = TextTokens(D), build_encoder(D, 1, 2), Registers(3, D)
    model = nn.ModuleDict({"encoder": encoder})
    look = look_of_layer(model, lambda: encoder(registers(adapter(["abcde"]))), adapter.regions(["abcde"])[0])
    assert len(look.weights) == 5
    assert 0 < float(look.weights.sum()) < 1


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="a look needs attention in the model: got none"):
        look_of_layer(torch.nn.Linear(2, 2), lambda: None, torch.zeros(1, 2))
