"""Word tokens from hashed character n-grams: pieces, rows, embeddings, regions."""

from __future__ import annotations

import subprocess
import sys
import zlib

import pytest
import torch

from mmattn import TextNgrams
from mmattn.adapters.ngrams import hashed, pieces


def test_pieces_are_words_and_marks_of_any_script():
    text = "«Où est-ce?» हिन्दी ab12"
    spans = pieces(text, 20)
    shown = [text[start:stop] for start, stop in spans]
    assert shown == ["«", "Où", "est", "-", "ce", "?", "»", "हिन्दी", "ab12"]


def test_long_words_are_cut_and_nothing_is_lost():
    text = "a" * 17 + " " + "b" * 7
    assert [stop - start for start, stop in pieces(text, 7)] == [7, 7, 3, 7]
    assert "".join(text[start:stop] for start, stop in pieces(text, 7)) == text.replace(" ", "")


def test_rows_are_those_of_the_ngrams():
    together = hashed("ab", 3, 997)
    assert len(together) == 4 + 3 + 2  # of "<ab>": 1-, 2- and 3-grams
    assert all(1 <= row <= 997 for row in together)
    assert set(hashed("ab", 2, 997)) < set(together)
    assert hashed("ab", 3, 997) != hashed("ba", 3, 997)


def test_rows_are_the_same_in_every_process():
    code = "from mmattn.adapters.ngrams import hashed; print(hashed('wörd', 4, 8191))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(hashed("wörd", 4, 8191))


def test_a_token_is_the_mean_of_its_ngrams_whatever_stands_beside_it():
    adapter = TextNgrams(7, buckets=97, max_ngram=3)
    with torch.no_grad():
        tokens = adapter(["go", "a considerably longer word"])
        rows = torch.tensor(hashed("go", 3, 97))
        assert torch.allclose(tokens.values[0], adapter.embedding.weight[rows].mean(0), atol=1e-7)
        assert torch.equal(tokens.values[0], adapter(["go"]).values[0])


def test_a_narrow_table_is_projected():
    adapter = TextNgrams(7, buckets=97, max_ngram=3, ngram_dim=3)
    with torch.no_grad():
        rows = torch.tensor(hashed("go", 3, 97))
        expected = adapter.projection.weight @ adapter.embedding.weight[rows].mean(0)
        assert torch.allclose(adapter(["go"]).values[0], expected, atol=1e-7)
    assert sum(p.numel() for p in adapter.parameters()) == 98 * 3 + 3 * 7


def test_empty_texts_have_no_tokens():
    tokens = TextNgrams(7)(["", "  ", "x"])
    assert tokens.sizes == (0, 0, 1)
    assert TextNgrams(7)([""]).values.shape == (0, 7)


def test_token_dropout_thins_in_training_alone():
    adapter = TextNgrams(7, token_dropout=0.5)
    texts = ["one two three four five six seven"] * 61
    torch.manual_seed(0)
    thin = adapter(texts)
    assert 0.4 < len(thin.values) / (61 * 7) < 0.6
    assert int(thin.coords.max()) == 6  # the others keep their places
    assert len(adapter.eval()(texts).values) == 61 * 7


def test_regions_are_the_pieces():
    adapter = TextNgrams(7, max_piece=4)
    texts = ["hello, you", ""]
    regions = adapter.regions(texts)
    assert regions[0].tolist() == [[0, 4], [4, 5], [5, 6], [7, 10]]
    assert regions[1].shape == (0, 2)
    assert tuple(len(region) for region in regions) == adapter(texts).sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"buckets": 0}, r"^buckets must be at least 1: got 0$"),
        ({"ngram_dim": 0}, r"^ngram_dim must be at least 1: got 0$"),
        ({"max_ngram": 0}, r"^max_ngram must be at least 1: got 0$"),
        ({"max_piece": -1}, r"^max_piece must be at least 1: got -1$"),
        ({"token_dropout": 1.0}, r"^token_dropout must lie in \[0, 1\): got 1.0$"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextNgrams(7, **arguments)


def test_other_items_are_refused():
    with pytest.raises(TypeError, match=r"^TextNgrams takes strings: got bytes$"):
        TextNgrams(7)([b"x"])


def test_runs_of_words_are_added_as_wholes():
    adapter = TextNgrams(7, buckets=97, max_ngram=3, word_ngrams=3, word_buckets=89)
    assert torch.equal(adapter(["a bc d"]).values, TextNgrams.embed(adapter, plain(adapter, "a bc d")).values)
    torch.nn.init.normal_(adapter.words.weight)
    with torch.no_grad():
        tokens = adapter(["a bc d", "d"]).values
        table = adapter.words.weight
        for place, (word, runs) in enumerate(
            [("a", ["a"]), ("bc", ["bc", "a bc"]), ("d", ["d", "bc d", "a bc d"])]
        ):
            ngrams = adapter.embedding.weight[torch.tensor(hashed(word, 3, 97))].mean(0)
            wholes = sum(table[1 + zlib.crc32(run.encode()) % 89] for run in runs)
            assert torch.allclose(tokens[place], ngrams + wholes, atol=1e-6)
        assert torch.equal(tokens[3], adapter(["d"]).values[0])  # nothing reaches over from the text before


def plain(adapter, text):
    """The rows of a text without those of words as wholes."""
    rows = adapter.encode([text])
    return rows.replace(torch.cat([torch.zeros_like(rows.values[:, :3]), rows.values[:, 3:]], 1))


def test_what_was_never_learnt_adds_nothing():
    adapter = TextNgrams(7, word_ngrams=2, ngram_dim=3)
    adapter(["one two"]).values.sum().backward()
    assert not adapter.words.weight.any()
    assert adapter.words.weight.grad[1:].any(1).sum() == 3  # one, two, one two
    assert not adapter.words.weight.grad[0].any()


def test_tokens_that_are_left_out_leave_no_trace():
    adapter = TextNgrams(7, buckets=97, word_ngrams=3, word_buckets=89)
    torch.nn.init.normal_(adapter.words.weight)
    places = torch.tensor([False, True, False, False, False, True, False, False])
    rows = adapter.encode(["a b c d e", "f g h"])
    left = adapter.without(rows, places)
    others = adapter.without(adapter.encode(["a x c d e", "y g h"]), places)
    assert torch.equal(left.values, others.values)
    assert not left.values[places].any()
    kept = [(left.values[place, :3] != 0).tolist() for place in (0, 2, 3, 4, 6, 7)]
    one, two, three = [True, False, False], [True, True, False], [True, True, True]
    assert kept == [one, one, two, three, one, two]
    assert torch.equal(left.values[0], rows.values[0])
    assert rows.values[places].any()  # the input is not touched


def test_short_ngrams_can_be_left_out():
    assert set(hashed("abcd", 4, 997, 3)) < set(hashed("abcd", 4, 997))
    assert len(hashed("abcd", 4, 997, 3)) == 4 + 3  # of "<abcd>": 3- and 4-grams
    assert hashed("a", 5, 997, 4) == (1 + zlib.crc32(b"<a>") % 997,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_ngram": 5}, r"^min_ngram must lie in \[1, max_ngram=4\]: got 5$"),
        ({"word_ngrams": -1}, r"^word_ngrams must not be negative: got -1$"),
        ({"word_buckets": 0}, r"^word_buckets must be at least 1: got 0$"),
    ],
)
def test_bad_runs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextNgrams(7, **arguments)
