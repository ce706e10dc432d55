"""The linear control: stacked frames by hand, and linear indeed."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")

from mmattn import AudioFrames, TokenBatch
from mmattn.masks import Causal
from mmattn.recognition import CharacterUnits, SpeechRecognizer
from tasks.speech.recognition.control import LinearEncoder, linear_control, stacked
from tasks.speech.recognition.data import ConnectedDigits


@pytest.mark.parametrize("context", [0, 1, 3])
def test_stacking_ends_at_the_ends_of_a_sequence(context):
    tokens = TokenBatch(torch.randn(11, 3), [5, 0, 2, 4])
    expected = []
    for part in tokens.split():
        padded = torch.nn.functional.pad(part.values, (0, 0, context, context))
        expected += [padded[i : i + 2 * context + 1].flatten() for i in range(len(part.values))]
    assert torch.equal(stacked(tokens, context), torch.stack(expected))


def test_the_recognizer_is_linear_in_its_frames():
    adapter = AudioFrames(16, 8000, n_mels=7, stem="patch")
    model = SpeechRecognizer(adapter, LinearEncoder(16, 2), CharacterUnits("abc")).eval()
    a, b = (TokenBatch(torch.randn(23, 7), [13, 10]) for _ in range(2))
    mixed = model.logits_of(a.replace(0.3 * a.values + 0.7 * b.values)).values
    expected = 0.3 * model.logits_of(a).values + 0.7 * model.logits_of(b).values
    assert torch.allclose(mixed, expected, atol=1e-5)
    loss = model.loss(model.logits_of(a), [[1, 2], [3]])
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_it_has_no_use_for_is_refused():
    encoder = LinearEncoder(4)
    with pytest.raises(TypeError, match=r"^LinearEncoder takes a TokenBatch: got a tensor$"):
        encoder(torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"^LinearEncoder takes no mask: got Causal"):
        encoder(TokenBatch(torch.zeros(2, 4), [2]), mask=Causal())
    with pytest.raises(ValueError, match=r"^context must not be negative: got -1$"):
        LinearEncoder(4, -1)


def test_the_control_learns_chords_and_not_noise(fsdd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ConnectedDigits(
        str(fsdd), train_sequences=200, val_sequences=3, test_sequences=17, batch_size=8, max_gap=0.1
    )
    torch.manual_seed(0)
    assert linear_control(data, epochs=8, embed_dim=24, context=3, lr=1e-2) < 0.65
    assert linear_control(data, epochs=1, embed_dim=8, context=0) > 0.75
