"""Tiny models of our own for each sense, with items that have labels and regions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmattn import ImagePatches, TextTokens, build_classifier, build_encoder
from mmattn.explore import Exploration, explore
from tests.explore.made import SPEECH, TEXT, WIDTH, Labelled, Tiny, seeded


@pytest.fixture
def vision() -> Tiny:
    with seeded():
        model = Tiny(
            ImagePatches(WIDTH, 4, 1), build_encoder(WIDTH, 2, 2), build_classifier(WIDTH, 3, num_heads=2)
        )
        return model.named(["0", "1", "2"])


@pytest.fixture
def speech() -> Tiny:
    pytest.importorskip("torchaudio")
    from mmattn import AudioFrames

    with seeded():
        adapter = AudioFrames(WIDTH, sample_rate=8000, n_mels=20)
        model = Tiny(adapter, build_encoder(WIDTH, 2, 2), build_classifier(WIDTH, 2, num_heads=2))
        return model.named(["no", "yes"])


@pytest.fixture
def text() -> Tiny:
    with seeded():
        model = Tiny(TextTokens(WIDTH), build_encoder(WIDTH, 2, 2), build_classifier(WIDTH, 2, pool="mean"))
        return model.named(["dull", "warm"])


@pytest.fixture
def picture() -> Labelled:
    with seeded():
        return Labelled(torch.rand(1, 12, 16), 1, (0, 4, 8, 12))


@pytest.fixture
def all_three(vision: Tiny, speech: Tiny, text: Tiny, picture: Labelled) -> list[Exploration]:
    return [
        *explore(vision, [picture, picture.item.flip(1)], titles=["one", "two"], name="attention"),
        *explore(vision, [picture], titles=["one"], name="untrained"),
        *explore(speech, [SPEECH], titles=["three"]),
        *explore(text, [TEXT], titles=["four"]),
    ]


@pytest.fixture
def bert() -> tuple[Any, Any]:
    """A tiny BERT and a tokenizer of a few words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "warm", "##ing", "film", ",", "."]
    inner = tokenizers.BertWordPieceTokenizer({name: i for i, name in enumerate(names)})
    tokenizer = transformers.BertTokenizerFast(tokenizer_object=inner._tokenizer, model_max_length=32)
    config = transformers.BertConfig(
        vocab_size=len(names), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32, id2label={0: "dull", 1: "warm"}, label2id={"dull": 0, "warm": 1},
    )  # fmt: skip
    with seeded():
        return transformers.BertForSequenceClassification(config).eval(), tokenizer
