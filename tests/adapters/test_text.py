"""TextTokens: bytes and byte-pair encoding, the places of tokens, checkpoints that carry the tokenizer."""

from __future__ import annotations

import pytest
import torch

from mmattn import TextTokens
from mmattn.adapters.text import BPETokenizer, ByteTokenizer

D = 7
TEXTS = [
    "the cat sat on the mat",
    "",
    "Zoë's naïve café: 3€!",
    "日本語 and 🙂🙂",
    " two  spaces\n\tand tabs ",
]
CORPUS = [text for text in TEXTS if text] * 3 + ["the attention of the cat", "attend to the mat"] * 5


@pytest.fixture
def bpe() -> BPETokenizer:
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer(vocab_size=290)
    tokenizer.train(CORPUS)
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    (ids,) = tokenizer.encode([text])
    assert bytes(ids).decode() == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    spans = tokenizer.spans(text)
    assert [text[start:stop] for start, stop in dict.fromkeys(spans)] == list(text)
    assert len(spans) == len(ids)


def test_a_lone_surrogate_is_one_token():
    assert ByteTokenizer().encode(["a\ud800b"]) == [[97, 63, 98]]
    assert ByteTokenizer().spans("a\ud800b") == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("text", [*TEXTS, "unseen: ѳ Ω ﷽"])
def test_bpe_loses_nothing_and_its_spans_cover_the_text(bpe, text):
    (ids,) = bpe.encode([text])
    assert bpe._backend.decode(ids) == text
    spans = bpe.spans(text)
    assert len(spans) == len(ids)
    covered = {place for start, stop in spans for place in range(start, stop)}
    assert covered == set(range(len(text)))
    assert spans == sorted(spans)


def test_bpe_joins_what_is_frequent(bpe):
    ids = bpe.encode(["the the", "xq vj"])
    assert len(ids[0]) < len("the the")
    assert len(ids[1]) == len("xq vj")
    assert max(max(row) for row in bpe.encode(CORPUS)) < bpe.vocab_size


def test_bpe_training_is_deterministic(bpe):
    again = BPETokenizer(vocab_size=290)
    again.train(iter(CORPUS))
    assert again.state() == bpe.state() != ""
    other = BPETokenizer(vocab_size=290)
    other.train(["quite other words, again and again"] * 9)
    assert other.state() != bpe.state()


def test_bpe_keeps_punctuation_apart_and_folds_case(bpe):
    tokenizer = BPETokenizer(vocab_size=400, lowercase=True)
    tokenizer.train(["Stop!! Stop!! Stop!!"] * 20)
    assert tokenizer.spans("STOP!!") == [(0, 4), (4, 5), (5, 6)]
    assert tokenizer.encode(["STOP"]) == tokenizer.encode(["stop"])
    assert bpe.encode(["The"]) != bpe.encode(["the"])


def test_combined_and_decomposed_letters_are_one(bpe):
    assert bpe.encode(["cafe\u0301"]) == bpe.encode(["caf\u00e9"])
    assert bpe.spans("cafe\u0301!")[-1] == (5, 6)


def test_bpe_must_be_trained_first():
    pytest.importorskip("tokenizers")
    tokenizer = BPETokenizer()
    assert not tokenizer.ready
    assert tokenizer.state() == ""
    for use in (lambda: tokenizer.encode(["a"]), lambda: tokenizer.spans("a")):
        with pytest.raises(ValueError, match=r"must be trained or loaded before use: call train\(texts\)"):
            use()


def test_tokens(bpe):
    for tokenizer in (ByteTokenizer(), bpe):
        adapter = TextTokens(D, tokenizer)
        tokens = adapter(TEXTS)
        ids = tokenizer.encode(TEXTS)
        assert tokens.sizes == tuple(len(row) for row in ids)
        assert tokens.sizes[1] == 0
        flat = torch.tensor([i for row in ids for i in row])
        assert torch.equal(tokens.values, adapter.embedding.weight[flat])
        assert tokens.coords[:3, 0].tolist() == [0, 1, 2]
        assert [len(spans) for spans in adapter.regions(TEXTS)] == list(tokens.sizes)
        assert adapter.regions(["", "a"])[0].shape == (0, 2)


def test_only_empty_strings():
    assert TextTokens(D)(["", ""]).values.shape == (0, D)


def test_max_length():
    short, whole = TextTokens(D, max_length=5), TextTokens(D)
    short.load_state_dict(whole.state_dict())
    tokens = short(TEXTS)
    assert tokens.sizes == (5, 0, 5, 5, 5)
    for part, full in zip(tokens.split(), whole(TEXTS).split(), strict=True):
        assert torch.equal(part.values, full.values[:5])
    assert short.regions(["attend"])[0].tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]


def test_state_dict_carries_the_tokenizer(bpe, tmp_path):
    trained = TextTokens(D, bpe)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    fresh = TextTokens(D, BPETokenizer(vocab_size=290))
    assert not fresh.tokenizer.ready
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert fresh.tokenizer.ready
    assert torch.equal(fresh(TEXTS).values, trained(TEXTS).values)


def test_dropout_on_the_embeddings():
    adapter = TextTokens(D, dropout=0.5)
    zeros = (adapter(TEXTS).values == 0).float().mean().item()
    assert zeros == pytest.approx(0.5, abs=0.1)
    assert (adapter.eval()(TEXTS).values != 0).all()


def test_errors():
    with pytest.raises(ValueError, match=r"max_length must be at least 1: got 0"):
        TextTokens(D, max_length=0)
    with pytest.raises(TypeError, match=r"TextTokens takes strings: got bytes"):
        TextTokens(D)([b"bytes"])
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match=r"vocab_size must be at least 257, .* got 256"):
        BPETokenizer(vocab_size=256)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'BPETokenizer needs tokenizers: pip install "mmattn\[text\]"'):
        BPETokenizer()
