"""What every task shares."""

from __future__ import annotations

import pytest

pytest.importorskip("lightning")

import torch

from mmattn import TextTokens, build_encoder
from mmattn.adapters.text import BPETokenizer
from tasks.text.module import TextClassification


def test_a_checkpoint_of_averaged_weights_has_the_tokenizer_as_it_is_now():
    task = TextClassification(TextTokens(8, BPETokenizer(300)), build_encoder(8, 1, 2), num_classes=3)
    averaged = {
        name: torch.clone(v) if isinstance(v, torch.Tensor) else v for name, v in task.state_dict().items()
    }
    assert averaged["adapter._extra_state"] == {"tokenizer": ""}
    task.adapter.tokenizer.train(["a dog", "a cat", "two dogs"])
    task.recipe = {"class_path": "TextClassification"}
    checkpoint = {"state_dict": dict(averaged)}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["recipe"] == {"class_path": "TextClassification"}
    assert checkpoint["state_dict"]["adapter._extra_state"] == {"tokenizer": task.adapter.tokenizer.state()}
    weights = [name for name in averaged if not name.endswith("_extra_state")]
    assert all(checkpoint["state_dict"][name] is averaged[name] for name in weights)
