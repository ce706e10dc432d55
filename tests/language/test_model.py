"""The masked language model: its logits, what it may see, what it costs, what it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import TextNgrams, TextTokens, TokenBatch, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.language import DynamicMasking, LanguageHead, MaskedLanguageModel, TokenVocabulary, WordVocabulary

D = 12
TEXTS = ["the cat sat on the mat", "the dog sat", "a dog , a cat , the end", ""]


def model(kind: str, **options) -> MaskedLanguageModel:
    encoder = build_encoder(D, depth=2, num_heads=3)
    if kind == "bytes":
        made = MaskedLanguageModel(TextTokens(D), encoder, **options)
    elif kind == "bpe":
        pytest.importorskip("tokenizers")
        made = MaskedLanguageModel(TextTokens(D, BPETokenizer(300)), encoder, **options)
    else:
        adapter = TextNgrams(
            D, buckets=97, max_ngram=3, ngram_dim=5, word_ngrams=int(kind[-1]), word_buckets=89
        )
        made = MaskedLanguageModel(adapter, encoder, WordVocabulary(11, min_count=1), **options)
    if not made.ready:
        made.learn(TEXTS)
    for part in made.modules():  # nothing is to be found by chance at zero
        if isinstance(part, (nn.EmbeddingBag, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.5)
    return made.eval()


KINDS = ["bytes", "bpe", "words0", "words1", "words3"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_the_other_texts(kind):
    language = model(kind)
    with torch.no_grad():
        together = language(TEXTS)
        apart = torch.cat([language([text]) for text in TEXTS])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("kind", ["words0", "words1", "words3"])
def test_runs_of_words_do_not_give_a_hidden_word_away(kind):
    language = model(kind)
    places = torch.tensor([False, True, False, False, False, False])
    results = []
    for text in ("the cat sat on the mat", "the dog sat on the mat", "the cat sat on the end"):
        encoded = language._encode([text])
        ids = encoded.ids.values.masked_fill(places, language.vocabulary.size)
        results.append(language._encoded(encoded, ids).values)
    assert torch.allclose(results[0], results[1], atol=1e-6)
    assert not torch.allclose(results[0], results[2], atol=1e-3)


@pytest.mark.parametrize("kind", ["words0", "words1"])
def test_a_random_word_looks_as_if_it_had_been_written(kind):
    language = model(kind)
    written, other = language._encode(["the cat sat"]), language._encode(["the dog sat"])
    changed = language.vocabulary.embed(language.adapter, written, other.ids.values).values
    assert torch.allclose(changed, language.adapter.embed(other.tokens).values, atol=1e-6)


def test_runs_around_a_random_word_are_left_out():
    language = model("words3")
    written, other = language._encode(["the cat sat"]), language._encode(["the dog sat"])
    changed = language.vocabulary.embed(language.adapter, written, other.ids.values).values
    alone = torch.cat([language.adapter([word]).values for word in ("the", "dog", "sat")])
    assert torch.allclose(changed, alone, atol=1e-6)


def test_logits_of_hidden_tokens_by_hand():
    language = model("bytes", masking=DynamicMasking(0.3))
    with torch.no_grad():
        logits, targets = language.masked(TEXTS[:2], torch.Generator().manual_seed(1))
        ids = language.adapter.encode(TEXTS[:2])
        hidden = language.masking(ids, 256, None, torch.Generator().manual_seed(1))
        rows = [
            language.mask if i == 256 else language.adapter.embedding.weight[i] for i in hidden.ids.values
        ]
        encoded = language.encoder(TokenBatch(torch.stack(rows), ids.lengths)).values[hidden.positions]
        head = language.head
        features = head.norm(F.gelu(encoded @ head.transform.weight.T + head.transform.bias))
        expected = features @ language.adapter.embedding.weight.T + head.bias
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.equal(targets, ids.values[hidden.positions])
    loss = language.loss(TEXTS[:2], torch.Generator().manual_seed(1))
    assert torch.allclose(loss, F.cross_entropy(expected, targets), atol=1e-5)


def test_only_chosen_tokens_go_through_the_head():
    language = model("bytes", masking=DynamicMasking(0.1))
    seen = []
    language.head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    language.loss(["a" * 41, "b" * 7])
    assert seen == [(4 + 1, 256)]


def test_every_weight_learns():
    language = model("words2").train()
    language.loss(TEXTS * 3).backward()
    without = [name for name, p in language.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_nothing_to_hide_costs_nothing():
    assert model("words1").loss(["zzz yyy", ""]).item() == 0.0


@pytest.mark.parametrize("kind", ["bpe", "words1"])
def test_it_learns_what_stands_where_and_fill_says_it(kind):
    torch.manual_seed(3)
    language = model(kind, masking=DynamicMasking(0.3)).train()
    texts = ["the red apple", "the green leaf", "the blue sky"] * 7
    language.learn(texts)
    optimizer = torch.optim.Adam(language.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        language.loss(texts).backward()
        optimizer.step()
    for colour, thing in (("red", "apple"), ("green", "leaf"), ("blue", "sky")):
        (guesses,) = language.fill(f"the [MASK] {thing}", top_k=3)
        assert guesses[0].text.strip() == colour
        assert guesses[0].probability > guesses[1].probability > guesses[2].probability
    two = language.fill("the <?> <?>", top_k=2, symbol="<?>")
    assert [len(guesses) for guesses in two] == [2, 2]
    assert language.training


@pytest.mark.parametrize("kind", KINDS)
def test_fill_agrees_with_the_whole_distribution(kind):
    language = model(kind)
    size = language.vocabulary.size
    with torch.no_grad():
        (guesses,) = language.fill("a dog [MASK]", top_k=size)
        before = language._encode(["a dog"])
        blank = before.tokens.values.new_zeros(1, *before.tokens.values.shape[1:])
        tokens = TokenBatch(torch.cat([before.tokens.values, blank]), [len(before.ids.values) + 1])
        values = language.adapter.embed(tokens).values.clone()
        values[-1] = language.mask
        last = language.encoder(TokenBatch(values, tokens.lengths)).values[-1:]
        expected = language.head(last, language.vocabulary.output(language.adapter)).softmax(-1)[0]
    assert sum(guess.probability for guess in guesses) == pytest.approx(1.0, abs=1e-4)
    assert [g.probability for g in guesses] == pytest.approx(
        expected.sort(descending=True).values.tolist(), abs=1e-5
    )


def test_a_checkpoint_carries_words_and_tokenizer():
    for kind in ("bpe", "words1"):
        language, other = model(kind), model(kind)
        other.learn(["quite other texts"])
        other.load_state_dict(language.state_dict())
        assert torch.equal(other(TEXTS), language(TEXTS))
        assert other.fill("the [MASK]") == language.fill("the [MASK]")


def test_what_does_not_fit_is_refused():
    encoder = build_encoder(D, 1, 3)
    with pytest.raises(ValueError, match=r"^adapter and encoder must have the same embed_dim: got 8 and 12$"):
        MaskedLanguageModel(TextTokens(8), encoder)
    with pytest.raises(ValueError, match=r"so token_dropout must be 0: got 0.5$"):
        MaskedLanguageModel(TextTokens(D, token_dropout=0.5), encoder)
    with pytest.raises(TypeError, match=r"got TextNgrams with TokenVocabulary$"):
        MaskedLanguageModel(TextNgrams(D), encoder, TokenVocabulary(256))
    with pytest.raises(
        ValueError, match=r"^the vocabulary must have the size of the tokenizer's: got 255 and 256$"
    ):
        MaskedLanguageModel(TextTokens(D), encoder, TokenVocabulary(255))
    with pytest.raises(
        ValueError, match=r"^a masked language model must have seen texts before use: call learn"
    ):
        MaskedLanguageModel(TextNgrams(D), encoder)(["a"])
    with pytest.raises(ValueError, match=r"^the text must contain \[MASK\]: got 'a dog'$"):
        model("bytes").fill("a dog")
    with pytest.raises(ValueError, match=r"^top_k must lie in \[1, 256\]: got 0$"):
        model("bytes").fill("a [MASK]", top_k=0)


def test_the_usual_vocabulary_follows_the_adapter():
    encoder = build_encoder(D, 1, 3)
    assert isinstance(MaskedLanguageModel(TextTokens(D), encoder).vocabulary, TokenVocabulary)
    assert isinstance(MaskedLanguageModel(TextNgrams(D), encoder).vocabulary, WordVocabulary)


def test_head_is_tied_to_what_it_is_given():
    head, output = LanguageHead(D, 5), torch.randn(5, D, requires_grad=True)
    head(torch.randn(3, D), output).sum().backward()
    assert output.grad is not None
    assert {name for name, _ in head.named_parameters()} == {
        "transform.weight", "transform.bias", "norm.weight", "norm.bias", "bias",
    }  # fmt: skip
