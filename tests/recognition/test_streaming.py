"""A stream of samples gives the logits and the text of the whole wave."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmattn import AudioFrames, build_encoder
from mmattn.recognition import BPEUnits, CharacterUnits, SpeechRecognizer, Stream, Units


def follow(recognizer: SpeechRecognizer, wave: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, str]:
    stream = Stream(recognizer)
    heard = [stream.push(chunk) for chunk in wave.split(sizes)]
    heard.append(stream.finish())
    return torch.cat([part.logits for part in heard]), "".join(part.text for part in heard)


def test_any_chunks_are_the_whole_wave(make):
    @given(st.lists(st.integers(0, 900), min_size=1, max_size=8), st.integers(0, 7))
    def check(sizes, window):
        sizes = [*sizes, 1]
        recognizer, wave = make(streaming=True, window=window), torch.randn(sum(sizes)) * 0.3
        logits, text = follow(recognizer, wave, sizes)
        with torch.no_grad():
            want = recognizer([wave]).values
        torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
        assert [text] == recognizer.transcribe([wave])

    check()


@pytest.mark.parametrize("samples", [1, 160, 997])
def test_one_sample_at_a_time(make, samples):
    recognizer, wave = make(streaming=True), torch.randn(samples) * 0.3
    logits, text = follow(recognizer, wave, [1] * samples)
    with torch.no_grad():
        want = recognizer([wave]).values
    torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
    assert [text] == recognizer.transcribe([wave])


def test_the_window_matters(make):
    recognizer, wave = make(streaming=True), torch.randn(6000) * 0.3
    logits, _ = follow(recognizer, wave, [6000])
    recognizer.encoder.window = None
    with torch.no_grad():
        assert not torch.allclose(recognizer([wave]).values, logits, atol=1e-2)


def reachable(thing: object, seen: set[int]) -> int:
    """Bytes of all tensors that an object keeps, those of modules left out."""
    if id(thing) in seen or isinstance(thing, nn.Module):
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes()
    if isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, list | tuple | set):
        inside = list(thing)
    else:
        inside = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    return sum(reachable(part, seen) for part in inside)


def test_what_a_stream_keeps_does_not_grow(make):
    stream, kept = Stream(make(streaming=True)), []
    for _ in range(90):
        stream.push(torch.randn(1607) * 0.3)
        kept.append(reachable(stream, set()))
        assert len(stream._pending) < 4
    assert min(kept) > 0
    assert max(kept[30:]) <= 1.05 * max(kept[:30])


class Spelling(nn.Module):
    """In place of a head: says the ids given, a token each."""

    def __init__(self, ids: list[int], vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(ids))
        self.vocab_size = vocab_size
        self.done = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        said = self.ids[self.done : self.done + len(x)]
        self.done += len(said)
        rows = torch.zeros(len(x), self.vocab_size)
        rows[torch.arange(len(said)), said] = 1
        return rows


def said(make, units: Units, ids: list[int]) -> list[str]:
    """The text that each token adds."""
    recognizer = make(units, streaming=True)
    recognizer.head = Spelling(ids, units.vocab_size)
    stream = Stream(recognizer)
    texts = [stream.push(chunk).text for chunk in torch.randn(160 * (len(ids) + 2)).split(160)]
    return [*texts, stream.finish().text]


def test_repeats_and_blanks_across_chunks(make):
    texts = said(make, CharacterUnits("ab"), [1, 1, 0, 1, 2, 2, 0, 0, 2])
    assert "".join(texts) == "aabb"
    assert sum(map(bool, texts)) == 4


def test_a_character_of_several_units_comes_whole(make):
    pytest.importorskip("tokenizers")
    units = BPEUnits(vocab_size=258)
    units.train(["abc"])
    text = "a€é\N{GRINNING FACE}b"
    ids = [unit for pair in zip(units.encode([text])[0], [0] * 99, strict=False) for unit in pair]
    texts = said(make, units, ids)
    assert "".join(texts) == text
    assert [part for part in texts if part] == list(text)


def test_bytes_that_are_no_character_do_not_wait_for_ever(make):
    pytest.importorskip("tokenizers")
    units = BPEUnits(vocab_size=258)
    units.train(["abc"])
    broken = units.encode(["€"])[0][0]
    texts = said(make, units, [broken, 0] * 6 + units.encode(["a"])[0])
    assert "".join(texts).endswith("a")
    assert any("\N{REPLACEMENT CHARACTER}" in part for part in texts[:10])


def test_errors(make):
    with pytest.raises(TypeError, match="needs a Conformer as encoder: got Encoder"):
        Stream(SpeechRecognizer(AudioFrames(12), build_encoder(12, 1, 2), CharacterUnits("a")))
    with pytest.raises(ValueError, match="normalize='global'"):
        Stream(make(causal=True, window=3))
    with pytest.raises(ValueError, match="causal=True and a window: got causal=False"):
        Stream(make(streaming=True, causal=False))
    stream = Stream(make(streaming=True))
    stream.finish()
    with pytest.raises(ValueError, match="a finished stream takes no more samples"):
        stream.push(torch.zeros(5))
