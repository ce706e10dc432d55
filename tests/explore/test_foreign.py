"""Models of other libraries, plugged in or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mmattn
from mmattn import observe
from mmattn.explore import explore
from tests.explore.made import seeded, wave

TEXT = "A warm, warming film."


def vit(name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    timm = pytest.importorskip("timm")
    with seeded():
        return timm.create_model(name, img_size=64, num_classes=5, **options).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    with seeded():
        return torch.randn(3, 64, 64)


@pytest.mark.parametrize("plugged", [False, True])
def test_a_vision_transformer_of_timm(plugged: bool, pixels: torch.Tensor) -> None:
    model = vit(depth=2)
    if plugged:
        mmattn.plug_in(model)
    with torch.no_grad(), observe(model, weights=True) as record:
        model(pixels[None])
    (found,) = explore(model, [pixels], class_names=list("abcde"))
    assert found.tokens[:3] == ["class token", "row 1, column 1", "row 1, column 2"]
    assert found.regions[0] == []
    assert found.regions[-1] == [48, 48, 64, 64]
    assert [layer.title for layer in found.layers] == ["block 1", "block 2"]
    assert torch.allclose(found.weights(1), record["blocks.1.attn"].weights[0], atol=1e-3)
    assert [each.name for each in found.maps] == ["rollout", "relevance"]
    assert found.predicted_label in "abcde"
    assert all(layer.importance is not None and len(layer.importance) == 3 for layer in found.layers)
    assert found.notes == []


def test_windows_are_put_together_again(pixels: torch.Tensor) -> None:
    model = vit("swin_tiny_patch4_window7_224", window_size=4, depths=(2, 2), num_heads=(2, 4), embed_dim=16)
    (found,) = explore(model, [pixels])
    assert [layer.shape for layer in found.layers] == [(2, 256, 256)] * 2 + [(4, 256, 256)] * 2
    weights = found.weights(0)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 256), atol=0.02)
    grid = weights[0, 0].view(16, 16)  # where the first patch looks: nowhere but in its window
    assert bool((grid[:4, :4] > 0).all())
    assert float(grid[4:].sum() + grid[:, 4:].sum()) == 0
    merged = found.weights(2)[0]  # 2 x 2 patches are one token in the second stage
    assert torch.equal(merged[0], merged[17])


def test_a_bert_of_transformers_with_its_tokenizer(bert: Any) -> None:
    model, tokenizer = bert
    (found,) = explore(model, [TEXT], tokenizer=tokenizer)
    assert found.domain == "text"
    assert found.tokens == [" [CLS]", "A", " warm", ",", " warm", "ing", " film", ".", " [SEP]"]
    assert [layer.title for layer in found.layers] == ["block 1", "block 2"]
    with torch.no_grad(), observe(model, weights=True) as record:
        model(**tokenizer(TEXT, return_tensors="pt"))
    first = record["bert.encoder.layer.0.attention.self"].weights[0]
    assert torch.allclose(found.weights(0), first, atol=1e-3)
    assert found.predicted_label in ("dull", "warm")
    assert [each.name for each in found.maps] == ["rollout", "relevance"]


def test_texts_need_a_tokenizer(bert: Any) -> None:
    with pytest.raises(ValueError, match="texts need the tokenizer of their model: got none for 'A warm"):
        explore(bert[0], [TEXT])


def test_waves_into_wav2vec2() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, classifier_proj_size=8,
    )  # fmt: skip
    with seeded():
        model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    (found,) = explore(model, [wave(0.5, 16000)], sample_rate=16000)
    assert found.domain == "speech"
    assert len(found.tokens) == 8000 // 320
    assert found.regions[0] == [0, 0.02]
    assert found.regions[-1][1] == 0.5
    assert found.sound
    assert [layer.shape for layer in found.layers] == [(2, 25, 25)] * 2
    with pytest.raises(ValueError, match="sounds need a sample_rate, in samples per second: got none"):
        explore(model, [wave(0.5, 16000)])


def test_why_there_is_no_rollout_is_said(pixels: torch.Tensor) -> None:
    model = vit(depth=1)
    half = model.to(torch.bfloat16)
    (found,) = explore(half, [pixels.to(torch.bfloat16)])
    assert found.maps == []
    assert any(note.startswith("There is no rollout: relevance must know") for note in found.notes)


def test_a_model_without_attention_is_refused(pixels: torch.Tensor) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 2))
    with pytest.raises(ValueError, match="must have attention"):
        explore(model, [pixels])
