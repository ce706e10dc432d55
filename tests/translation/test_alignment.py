"""Cross-attention alignment: against a computation by hand, over words, and as a picture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmattn import TextTokens, build_decoder, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.translation import Translator
from mmattn.translation.alignment import Alignment, alignment, draw_alignment, words

D, H, LAYERS = 24, 3, 2
SOURCE, TARGET = "Dienstag, 3. März", "1998-03"


@pytest.fixture
def translator() -> Translator:
    decoder = build_decoder(D, LAYERS, H, context=True, dropout=0.4)
    model = Translator(TextTokens(D), build_encoder(D, 1, 2, dropout=0.4), None, decoder)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def by_hand(model: Translator, source: str, target: str) -> torch.Tensor:
    """``[layers, H, N + 1, M]`` from the inputs of each cross-attention."""
    found = []

    def keep(module, args, result):
        query, context = args
        q = module.q_proj(query.values).view(-1, H, D // H).transpose(0, 1)
        k = module.kv_proj(context.values)[:, :D].view(-1, H, D // H).transpose(0, 1)
        found.append((q @ k.transpose(1, 2) / math.sqrt(D // H)).softmax(-1))

    crosses = [block.cross_attention for block in model.decoder.blocks]
    handles = [cross.register_forward_hook(keep) for cross in crosses]
    model.eval()
    model([source], [target])
    for handle in handles:
        handle.remove()
    return torch.stack(found)


@pytest.mark.parametrize(("layer", "heads"), [(-1, None), (0, [1]), (1, [0, 2]), (None, None), (None, [2])])
def test_weights_are_those_of_the_chosen_layers_and_heads(translator, layer, heads):
    expected = by_hand(translator, SOURCE, TARGET)
    expected = expected if layer is None else expected[layer][None]
    expected = expected.mean((0, 1)) if heads is None else expected[:, heads].mean((0, 1))
    translator.train()
    found = alignment(translator, SOURCE, TARGET, layer, heads)
    assert found.weights.shape == (7, 18)  # ä has two bytes
    torch.testing.assert_close(found.weights, expected[:-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(7))
    assert translator.training


def test_pieces_are_the_characters_of_the_tokens(translator):
    found = alignment(translator, SOURCE, TARGET)
    assert found.source_pieces[-5:] == ["M", "ä", "ä", "r", "z"]
    assert "".join(found.target_pieces) == TARGET
    translator.source.tokenizer = BPETokenizer(300)
    translator.source.tokenizer.train([SOURCE] * 50)
    translator.source.embedding = nn.Embedding(300, D)
    translator.output_bias = nn.Parameter(torch.zeros(301))
    merged = alignment(translator, SOURCE, SOURCE)
    assert merged.source_pieces == merged.target_pieces
    assert "Dienstag" in merged.source_pieces
    assert merged.weights.shape == (len(merged.target_spans), len(merged.source_spans))


def test_without_a_target_it_is_the_translators_own(translator):
    own = translator.translate([SOURCE])[0]
    found = alignment(translator, SOURCE)
    assert found.target == own
    torch.testing.assert_close(found.weights, alignment(translator, SOURCE, own).weights)


def test_words_add_up_their_tokens():
    spans = [(0, 2), (2, 4), (4, 5), (5, 6)]  # "al", "so", ",", " " before "ja"
    tokens = Alignment(
        "also, ja", "so 1", [*spans, (6, 8)], [(0, 1), (1, 2), (2, 4)],
        torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25], [0.5, 0.1, 0.0, 0.0, 0.4], [0.0, 0.0, 0.0, 0.6, 0.4]]),
    )  # fmt: skip
    found = tokens.by_words()
    assert found.source_pieces == ["also", ",", "ja"]
    assert found.target_pieces == ["so", "1"]
    torch.testing.assert_close(found.weights, torch.tensor([[0.45, 0.15, 0.4], [0.0, 0.0, 1.0]]))


def test_rows_of_words_still_add_up_to_one(translator):
    found = alignment(translator, " 2024年 03. März ", "ja  nein ").by_words()
    assert found.source_pieces == ["2024", "年", "03", ".", "März"]
    assert found.target_pieces == ["ja", "nein"]
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2))


def test_marks_that_belong_to_letters_do_not_cut_words():
    text = "मार्च 3-א"
    assert [text[a:b] for a, b in words(text)] == ["मार्च", "3", "-", "א"]
    assert words("  ") == []


def test_the_picture_has_every_word_and_every_weight():
    weights = torch.rand(3, 5)
    spans = [(0, 8), (8, 9), (10, 11), (11, 12), (13, 17)]
    found = Alignment(SOURCE, "1998-03", spans, [(0, 4), (4, 5), (5, 7)], weights)
    figure = draw_alignment(found, title="März")
    figure.canvas.draw()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Dienstag", ",", "3", ".", "März"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1998", "-", "03"]
    torch.testing.assert_close(torch.from_numpy(axes.images[0].get_array().data), weights)
    assert figure.texts[0].get_text() == "März"
    whole = figure.bbox
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts]:
        box = label.get_window_extent()
        assert box.x0 >= whole.x0
        assert box.x1 <= whole.x1
        assert box.y0 >= whole.y0
        assert box.y1 <= whole.y1


def test_what_does_not_exist_is_refused(translator):
    with pytest.raises(ValueError, match=r"^layer must be from -2 to 1: got 2$"):
        alignment(translator, SOURCE, TARGET, layer=2)
    with pytest.raises(ValueError, match=r"^heads must be at least one number from 0 to 2: got \[3\]$"):
        alignment(translator, SOURCE, TARGET, heads=[3])
    with pytest.raises(ValueError, match=r"^the source must have at least one token: got ''$"):
        alignment(translator, "", TARGET)
    with pytest.raises(ValueError, match=r"^the target must have at least one token: got ''$"):
        alignment(translator, SOURCE, "")
