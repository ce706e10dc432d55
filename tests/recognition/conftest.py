"""Small recognizers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmattn import AudioFrames
from mmattn.conformer import build_conformer
from mmattn.recognition import CharacterUnits, SpeechRecognizer, Units

pytest.importorskip("torchaudio")

D, RATE = 12, 4000


def build(units: Units | None = None, streaming: bool = False, **options) -> SpeechRecognizer:
    """A recognizer with weights large enough that it says something."""
    torch.manual_seed(5)
    adapter = AudioFrames(D, RATE, n_mels=13, subsampling=4, normalize="global" if streaming else "clip")
    if streaming:
        adapter.fit([torch.randn(4000) * 0.3])
        options = {"causal": True, "window": 5} | options
    encoder = build_conformer(D, 2, 3, kernel_size=5, **options)
    recognizer = SpeechRecognizer(adapter, encoder, units or CharacterUnits("abc "))
    torch.nn.init.normal_(recognizer.head.weight)
    return recognizer.eval()


@pytest.fixture
def make() -> Callable[..., SpeechRecognizer]:
    return build


@pytest.fixture
def waves() -> list[torch.Tensor]:
    return [torch.randn(count) * 0.3 for count in (1999, 40, 1, 2801)]
