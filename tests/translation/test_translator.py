"""The translator: teacher forcing, decoding in steps, sharing and tying, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import TextTokens, TokenBatch, build_decoder, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.translation import DecoderSteps, Translator

D, D_TARGET, H = 12, 18, 3
SOURCES = ["ein Hund läuft", "", "zwei", "ein Mann und eine Frau im Park"]
TARGETS = ["a dog runs", "nothing", "", "a man and a woman in a park"]


def make(shared=False, tied=True, positions="rotary", dropout=0.0, **options) -> Translator:
    encoder = build_encoder(D, 2, H, dropout=dropout)
    width = D if shared else D_TARGET
    decoder = build_decoder(width, 2, H, context=True, context_dim=D, positions=positions, dropout=dropout)
    source = TextTokens(D, **options)
    model = Translator(source, encoder, None if shared else TextTokens(width), decoder, tied)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    for block in decoder.blocks:  # so that what is answered depends on the source
        nn.init.normal_(block.cross_attention.out_proj.weight, std=3.0)
    return model.eval()


@pytest.fixture(params=[{}, {"shared": True}, {"tied": False}, {"positions": "sinusoidal"}], ids=str)
def model(request) -> Translator:
    return make(**request.param)


def test_logits_of_every_token_and_the_end(model):
    logits = model(SOURCES, TARGETS)
    assert logits.sizes == tuple(len(text.encode()) + 1 for text in TARGETS)
    assert logits.values.shape == (sum(logits.sizes), 257)
    assert logits.coords[:3, 0].tolist() == [0, 1, 2]


def test_an_answer_knows_the_tokens_before_it_alone(model):
    first = model(["ein Hund"], ["abcdef"]).values
    other = model(["ein Hund"], ["abcxyz!"]).values
    torch.testing.assert_close(first[:4], other[:4])
    assert (first[4] - other[4]).abs().max() > 1e-3
    elsewhere = model(["eine Katze"], ["abcdef"]).values
    assert (first[0] - elsewhere[0]).abs().max() > 1e-3


def test_inputs_are_the_targets_behind_the_beginning(model):
    ids = model.target.encode(["ab", "", "c"])
    inputs, labels = model.inputs(ids)
    assert inputs.sizes == (3, 1, 2)
    assert labels.tolist() == [97, 98, 256, 256, 99, 256]
    rows = model.embed(torch.tensor([97, 98, 99]))
    torch.testing.assert_close(
        inputs.values, torch.stack([model.begin, rows[0], rows[1], model.begin, model.begin, rows[2]])
    )


def test_a_pair_does_not_depend_on_the_others(model):
    together = model(SOURCES, TARGETS).split()
    for source, target, found in zip(SOURCES, TARGETS, together, strict=True):
        alone = model([source], [target]).values
        torch.testing.assert_close(found.values, alone, rtol=1e-5, atol=1e-5)


def test_steps_are_teacher_forcing(model):
    target = "a dog, two"
    wanted = model([SOURCES[0]], [target]).values
    with torch.no_grad():
        context = model.encode([SOURCES[0]])
        table = model.embed(torch.arange(model.end))
        steps = DecoderSteps(
            model.decoder, context, model.begin, table, model.output_weights(), model.output_bias
        )
        found = [steps.step(None)] + [steps.step(torch.tensor([i])) for i in target.encode()]
    torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-5, atol=1e-5)


def test_a_beam_of_one_is_greedy_decoding(model):
    for text, found in zip(SOURCES, model.search(SOURCES, beam_size=1, max_length=7), strict=True):
        ids: list[int] = []
        with torch.no_grad():
            while len(ids) < 7:
                batch = TokenBatch(torch.tensor(ids, dtype=torch.long), [len(ids)])
                hidden = model.decoder(model.inputs(batch)[0], model.encode([text]))
                best = int(model.logits(hidden.values[-1]).argmax())
                if best == model.end:
                    break
                ids.append(best)
        assert list(found.ids) == ids


def test_a_translation_does_not_depend_on_the_others(model):
    texts = [*SOURCES, *(letter * (1 + place % 5) for place, letter in enumerate("abcdefghijkl"))]
    whole = model.search(texts, beam_size=3, max_length=9)
    small = model.search(texts, beam_size=3, max_length=9, batch_size=3)
    backwards = model.search(texts[::-1], beam_size=3, max_length=9)[::-1]
    alone = [model.search([text], beam_size=3, max_length=9)[0] for text in texts]
    assert len({best.ids for best in whole}) > 2
    for other in (small, backwards, alone):
        assert [best.ids for best in other] == [best.ids for best in whole]
        assert [b.score for b in other] == pytest.approx([b.score for b in whole], abs=1e-5)


def test_scores_are_those_of_the_model(model):
    for text, best in zip(SOURCES, model.search(SOURCES, beam_size=3, max_length=5), strict=True):
        batch = TokenBatch(torch.tensor(best.ids, dtype=torch.long), [len(best.ids)])
        inputs, labels = model.inputs(batch)
        with torch.no_grad():
            logits = model.logits(model.decoder(inputs, model.encode([text])).values)
        wanted = -F.cross_entropy(logits, labels, reduction="sum")
        assert best.log_prob == pytest.approx(float(wanted), abs=1e-4)


def test_translations_are_as_long_as_they_may_be():
    model = make()
    model.output_bias.data[model.end] = -1e9
    lengths = [len(best.ids) for best in model.search(["abc", "", "abcde"], beam_size=2)]
    assert lengths == [26, 20, 30]
    assert {len(best.ids) for best in model.search(["abc", "a"], 2, max_length=4)} == {4}
    assert model.translate([]) == []
    model.output_bias.data[model.end] = 1e9
    assert model.translate(["abc", ""], beam_size=2) == ["", ""]


def test_the_loss_is_the_cross_entropy_of_the_logits(model):
    labels = model.inputs(model.target.encode(TARGETS))[1]
    for smoothing in (0.0, 0.2):
        wanted = F.cross_entropy(model(SOURCES, TARGETS).values, labels, label_smoothing=smoothing)
        torch.testing.assert_close(model.loss(SOURCES, TARGETS, smoothing), wanted)


def test_every_parameter_learns(model):
    model.loss(SOURCES, TARGETS, 0.1).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_sharing_and_tying_save_parameters():
    def count(**options):
        return sum(p.numel() for p in make(**options).parameters())

    assert count(tied=False) - count() == 256 * D_TARGET
    assert make(shared=True).shared
    assert not make().shared
    shared = make(shared=True)
    assert shared.target is shared.source
    assert not any(name.startswith("own_target") for name in shared.state_dict())


def test_bfloat16_weights_decode_without_touching_the_model():
    model = make().train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    found = model.search(SOURCES, beam_size=2, max_length=5, dtype=torch.bfloat16)
    exact = model.search(SOURCES, beam_size=2, max_length=5)
    assert [b.score for b in found] != [b.score for b in exact]
    assert [b.score for b in found] == pytest.approx([b.score for b in exact], rel=0.1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_searching_in_training_drops_nothing():
    model = make(dropout=0.5, token_dropout=0.5).train()
    found = model.search(SOURCES, 2, max_length=5)
    assert found == model.eval().search(SOURCES, 2, max_length=5)


def test_a_state_dict_carries_the_tokenizers(tmp_path):
    pytest.importorskip("tokenizers")

    def bpe_model():
        parts = build_encoder(D, 1, H), build_decoder(D, 1, H, context=True)
        texts = [TextTokens(D, BPETokenizer(vocab_size=270)) for _ in range(2)]
        return Translator(texts[0], parts[0], texts[1], parts[1]).eval()

    trained = bpe_model()
    trained.source.tokenizer.train(SOURCES * 5)
    trained.target.tokenizer.train(TARGETS * 5)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    fresh = bpe_model()
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert fresh.translate(SOURCES, max_length=4) == trained.translate(SOURCES, max_length=4)
    torch.testing.assert_close(fresh(SOURCES, TARGETS).values, trained(SOURCES, TARGETS).values)


def refused(source=D, encoder=D, target=D_TARGET, decoder=D_TARGET, context=D, **options):
    cross = {"context": True, "context_dim": context} if context else {}
    return lambda: Translator(
        TextTokens(source),
        build_encoder(encoder, 1, H),
        TextTokens(target, **options),
        build_decoder(decoder, 1, H, **cross),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (refused(source=9), "source and encoder must have the same embed_dim: got 9 and 12"),
        (refused(target=9), "target and decoder must have the same embed_dim: got 9 and 18"),
        (refused(context=9), "the decoder's context must be as wide as the encoder: got 9 and 12"),
        (refused(context=None), r"the decoder must have cross-attention, .*\(context=True\): got none"),
        (refused(token_dropout=0.1), "the target must keep all of its tokens: got token_dropout=0.1"),
        (lambda: make()(["a"], ["b", "c"]), "sources and targets must be equally many: got 1 and 2"),
        (lambda: make().translate(["a"], max_length=0), "max_length must be at least 1: got 0"),
        (lambda: make().translate(["a"], batch_size=0), "batch_size must be at least 1: got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
