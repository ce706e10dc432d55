"""The recognizer: shapes, independence of clips, learning, saving."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import AudioFrames, build_encoder
from mmattn.recognition import BPEUnits, CharacterUnits, SpeechRecognizer, beam_search

D, RATE = 12, 4000


def test_logits_of_every_token(make, waves):
    recognizer = make()
    logits = recognizer(waves)
    assert logits.sizes == tuple(recognizer.adapter.num_tokens(len(wave)) for wave in waves)
    assert logits.values.shape == (sum(logits.sizes), 5)
    frames = recognizer.adapter.features(waves)
    assert torch.equal(recognizer.logits_of(frames).values, logits.values)
    encoded = recognizer.encoder(recognizer.adapter(waves)).values
    want = encoded @ recognizer.head.weight.T + recognizer.head.bias
    torch.testing.assert_close(logits.values, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("streaming", [False, True])
def test_batch_mates_do_not_matter(make, waves, streaming):
    recognizer = make(streaming=streaming)
    for part, wave in zip(recognizer(waves).split(), waves, strict=True):
        torch.testing.assert_close(part.values, recognizer([wave]).values, rtol=1e-4, atol=1e-5)


def test_autocast_gives_float32_logits(make, waves):
    with torch.autocast("cpu", torch.bfloat16):
        logits = make()(waves)
    assert logits.values.dtype == torch.float32


def test_any_encoder_will_do(waves):
    recognizer = SpeechRecognizer(
        AudioFrames(D, RATE, n_mels=20), build_encoder(D, 1, 2), CharacterUnits("ab")
    )
    assert recognizer(waves).values.shape[1] == 3


def test_transcribe_is_greedy_or_a_beam(make, waves):
    recognizer = make()
    logits = recognizer(waves)
    for index, part in enumerate(logits.split()):
        best = part.values.argmax(-1)
        kept = best[(best != best.roll(1)) | (torch.arange(len(best)) == 0)]
        assert recognizer.transcribe(waves)[index] == recognizer.units.decode(kept.tolist())
        ids = beam_search(part.values, 4)[0].ids
        assert recognizer.transcribe(waves, beam_size=4)[index] == recognizer.units.decode(ids)
    assert any(recognizer.transcribe(waves))


def test_the_loss_is_that_of_torch(make, waves):
    recognizer, targets = make(), [[1, 2, 2, 3], [1], [2], [4, 1, 4]]
    logits = recognizer(waves)
    parts = [
        F.ctc_loss(part.values.log_softmax(-1), torch.tensor(t), [len(part.values)], [len(t)])
        for part, t in zip(logits.split(), targets, strict=True)
    ]
    assert recognizer.loss(logits, targets).item() == pytest.approx(
        torch.stack(parts).mean().item(), rel=1e-5
    )


def test_it_learns_two_tones(make):
    recognizer = make().train()
    time = torch.arange(2000) / RATE
    low, high = (torch.sin(2 * torch.pi * f * time) for f in (400, 1500))
    clips = [torch.cat([low, high]), torch.cat([high, low]), low, torch.cat([high, low, high])]
    texts = ["ab", "ba", "a", "bab"]
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=0.01)
    targets = recognizer.units.encode(texts)
    for _ in range(60):
        loss = recognizer.loss(recognizer(clips), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    recognizer.eval()
    assert recognizer.transcribe(clips) == texts
    assert recognizer.transcribe(clips, beam_size=5) == texts


def test_waves_too_short_are_refused_before_training(make):
    recognizer = make()
    samples = [1000, 160 * 3]  # 26 frames in 7 tokens, and 13 frames in 4
    recognizer.check_fits(samples, ["abcab", "aab"])
    with pytest.raises(ValueError, match=r"first 'x.wav' with 4 tokens for 3 units that need 5"):
        recognizer.check_fits(samples, ["abcab", "aaa"], ["y.wav", "x.wav"])
    with pytest.raises(ValueError, match="may hold the characters ' abc': got 'd'"):
        recognizer.check_fits(samples, ["abcab", "d"])


def test_a_checkpoint_brings_the_units(make):
    recognizer = make(CharacterUnits(vocab_size=9))
    recognizer.units.train(["hello"])
    file = io.BytesIO()
    torch.save(recognizer.state_dict(), file)
    file.seek(0)
    other = make(CharacterUnits(vocab_size=9))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.units.encode(["hell"]) == recognizer.units.encode(["hell"])
    wave = [torch.randn(900)]
    assert torch.equal(other(wave).values, recognizer(wave).values)


def test_pieces_of_words(make, waves):
    pytest.importorskip("tokenizers")
    units = BPEUnits(vocab_size=270)
    units.train(["one two three"] * 9)
    recognizer = make(units)
    assert recognizer(waves).values.shape[1] == 270
    assert all(isinstance(text, str) for text in recognizer.transcribe(waves, beam_size=2))


def test_dropout_is_on_the_encoders_output(waves):
    adapter, encoder = AudioFrames(D, RATE, n_mels=20), build_encoder(D, 1, 2)
    recognizer = SpeechRecognizer(adapter, encoder, CharacterUnits("ab"), dropout=0.5).train()
    assert not torch.equal(recognizer(waves).values, recognizer(waves).values)
    recognizer.eval()
    assert torch.equal(recognizer(waves).values, recognizer(waves).values)
    assert isinstance(recognizer.head, nn.Linear)


def test_widths_must_agree():
    with pytest.raises(ValueError, match="the same embed_dim: got 8 and 12"):
        SpeechRecognizer(AudioFrames(8, RATE, n_mels=20), build_encoder(12, 1, 2), CharacterUnits("ab"))
