"""Which modules padding gets through: known leaks of other libraries, planted ones, and models without any."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import TokenBatch, build_classifier, build_encoder
from mmattn.observation.lint import padding_lint
from mmattn.plugins import plug_in

LENGTHS = torch.tensor([12, 7, 5])
PAD = torch.arange(12) >= LENGTHS[:, None]
D = 16


def frames() -> torch.Tensor:
    return torch.randn(3, 12, D)


def encoder(**options) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(D, 4, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options.get("norm_first", False))


class Pooled(nn.Module):
    """Token ids to one vector, over all places, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, D)
        self.head = nn.Linear(D, 3)

    def forward(self, ids, mask):
        return self.head(self.table(ids).mean(1))


class Subsampled(nn.Module):
    """Two convolutions of stride 2 without padding, whose lengths are known, and attention behind."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv1d(D, D, 3, stride=2)
        self.norm = norm
        self.second = nn.Conv1d(D, D, 2, stride=2)
        self.layer = encoder().layers[0]

    def forward(self, x, lengths):
        x = self.second(self.norm(self.first(x.mT))).mT
        lengths = ((lengths - 3) // 2 + 1) // 2
        return self.layer(x, src_key_padding_mask=torch.arange(x.shape[1]) >= lengths[:, None])


class Packed(nn.Module):
    """Padded waves to tokens end to end, and a model of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = build_encoder(embed_dim=D, depth=2, num_heads=4)
        self.head = build_classifier(D, 3)

    def forward(self, x, lengths):
        return self.head(self.encoder(TokenBatch.from_padded(x, lengths)))


def test_the_convolution_of_torchaudios_conformer():
    models = pytest.importorskip("torchaudio.models")
    model = models.Conformer(D, 4, 32, 2, 7).eval()
    report = padding_lint(model, (frames(), LENGTHS))
    assert list(report.leaks) == [f"conformer_layers.{i}.conv_module.sequential.2" for i in range(2)]
    leak = report.leaks["conformer_layers.0.conv_module.sequential.2"]
    assert (leak.change, leak.sequence) == ("the batch", 1)
    assert leak.place[-1] == 7 - 3, "half a kernel of 7 before the end of the second sequence"
    assert leak.worst > 1e-2
    assert not report.unseen


def test_its_batch_norm_too_while_it_learns():
    models = pytest.importorskip("torchaudio.models")
    model = models.Conformer(D, 4, 32, 1, 7).train()
    report = padding_lint(model, (frames(), LENGTHS))
    norm = "conformer_layers.0.conv_module.sequential.3"
    assert list(report.leaks) == [norm.replace(".3", ".2"), norm]
    assert report.leaks[norm].sequence == 0, "the statistics are those of all sequences"


def test_its_group_norm_too():
    models = pytest.importorskip("torchaudio.models")
    model = models.Conformer(D, 4, 32, 1, 7, use_group_norm=True).eval()
    assert [name[-1] for name in padding_lint(model, (frames(), LENGTHS)).leaks] == ["2", "3"]


@pytest.mark.parametrize("training", [True, False])
def test_the_repaired_conformer(training):
    models = pytest.importorskip("torchaudio.models")
    model = models.Conformer(D, 4, 32, 2, 7).train(training)
    plug_in(model, repairs=["conformer_padding"])
    report = padding_lint(model, (frames(), LENGTHS))
    # the convolution's own input is set to zeros behind the sequences before it is called for
    assert not report.leaks
    assert not report.unseen


@pytest.mark.parametrize("mode", ["group_norm", "layer_norm"])
def test_the_group_norm_of_wav2vec2(mode):
    models = pytest.importorskip("torchaudio.models")
    convolutions = [(16, 10, 5), (16, 3, 2), (16, 2, 2)]
    model = models.wav2vec2_model(
        mode, convolutions, False, 32, 0.0, 16, 4, 2, 4, 0.0, 48, 0.0, 0.0, False, 0.0, None
    ).eval()
    given = (torch.randn(3, 3000), torch.tensor([3000, 1900, 700]))
    report = padding_lint(model, given)
    assert list(report.leaks) == (
        ["feature_extractor.conv_layers.0.layer_norm"] if mode == "group_norm" else []
    )
    assert not report.unseen
    if mode == "group_norm":
        plug_in(model, repairs=["wav2vec2_padding"])
        assert not padding_lint(model, given)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_nothing_in_a_clean_encoder(norm_first, training, frozen):
    model = encoder(norm_first=norm_first).train(training).requires_grad_(not frozen)
    report = padding_lint(model, {"src": frames(), "src_key_padding_mask": PAD})
    assert not report.leaks
    assert not report.unseen
    assert str(report) == "no padding leaks into valid tokens"


def test_attention_without_its_mask():
    report = padding_lint(encoder().eval(), frames(), LENGTHS)
    assert list(report.leaks) == ["layers.0.self_attn", "layers.1.self_attn"]


@pytest.mark.parametrize("training", [True, False])
def test_nothing_in_models_of_ours(training):
    model = Packed().train(training)
    report = padding_lint(model, (frames(), LENGTHS))
    assert (report.leaks, report.unseen) == ({}, {})
    batch = TokenBatch.from_padded(frames(), LENGTHS)
    report = padding_lint(model.encoder, batch)
    assert (report.leaks, report.unseen) == ({}, {})


def test_packed_tokens_that_see_each_other():
    """A model that takes a packed batch for one sequence."""

    class Blind(nn.Module):
        def forward(self, batch):
            return batch.replace(batch.values - batch.values.mean(0))

    report = padding_lint(nn.Sequential(nn.Identity(), Blind()), TokenBatch.from_padded(frames(), LENGTHS))
    assert list(report.leaks) == ["1"]


@pytest.mark.parametrize(
    ("norm", "named"), [(nn.Identity(), []), (nn.GroupNorm(2, D), ["norm"]), (nn.InstanceNorm1d(D), ["norm"])]
)
def test_lengths_that_shrink_on_the_way(norm, named):
    report = padding_lint(Subsampled(norm).eval(), (frames(), LENGTHS))
    assert list(report.leaks) == named
    assert not report.unseen


MASKS = {
    "True = padding": PAD,
    "1 = token": (~PAD).long(),
    "True = token": ~PAD,
    "numbers": torch.zeros(3, 12).masked_fill(PAD, -torch.inf),
}


@pytest.mark.parametrize("mask", MASKS)
def test_lengths_are_found_in_masks_of_any_polarity(mask):
    ids = torch.randint(0, 9, (3, 12))
    report = padding_lint(Pooled(), (ids, MASKS[mask]))
    assert list(report.leaks) == [""], "what is done between the parts is the model's own"
    assert str(report).splitlines()[1].split("  ")[0] == "(the model)"


def test_masks_stay_what_they_are():
    """The mask hides the padding whatever is in it, and however much: else attention would be named."""
    model = encoder().eval()
    for name in ("True = padding", "numbers"):
        assert not padding_lint(model, {"src": frames(), "src_key_padding_mask": MASKS[name]})


def test_sequence_first_and_a_mask_between_tokens():
    model = nn.TransformerEncoderLayer(D, 4, 32).eval()
    causal = torch.ones(12, 12, dtype=torch.bool).triu(1)
    report = padding_lint(model, (frames().transpose(0, 1), causal), LENGTHS)
    assert not report.leaks, "no token looks ahead"
    assert report.unseen == {
        "a longer mate": "more must be 0 where a mask between tokens is given: got one of [12, 12]"
    }
    with pytest.raises(
        ValueError, match=r"more must be 0 where a mask between tokens is given: got one of \[12, 12\]"
    ):
        padding_lint(model, (frames().transpose(0, 1), causal), LENGTHS, more=3)
    report = padding_lint(model, (frames().transpose(0, 1), causal.T), LENGTHS)
    assert list(report.leaks) == ["self_attn"]


class Planted(nn.Module):
    def __init__(self, rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x, lengths):
        valid = (torch.arange(x.shape[1]) < lengths[:, None])[..., None]
        return self.rule(x, valid, lengths)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (lambda x, valid, lengths: x - (x * valid).mean(1, keepdim=True), "the batch"),
        (lambda x, valid, lengths: x + x.sum(1, keepdim=True), "other content"),
        (lambda x, valid, lengths: x * (1 + (x.shape[1] > 12)), "a longer mate"),
        (lambda x, valid, lengths: x - (x * valid).sum(1, keepdim=True) / lengths[:, None, None], None),
    ],
)
def test_what_it_takes_to_see_a_leak(rule, change):
    x = frames().masked_fill(PAD[..., None], 0.0)
    report = padding_lint(nn.Sequential(), x, LENGTHS) or padding_lint(Planted(rule), (x, LENGTHS))
    assert [leak.change for leak in report.leaks.values()] == ([] if change is None else [change])


def test_each_leak_is_judged_for_itself():
    """The second of two leaking modules is found behind the first, and clean ones between are not named."""

    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(1, keepdim=True)

    model = nn.Sequential(nn.Linear(D, D), Centred(), nn.Linear(D, D), nn.Sequential(Centred(), nn.ReLU()))
    report = padding_lint(model, frames(), LENGTHS)
    assert list(report.leaks) == ["1", "3.0"]
    assert {leak.place for leak in report.leaks.values()} == {(0, 0, 0)}


def test_what_cannot_be_told_apart_is_listed():
    """Rows of tokens that were folded into one axis, padding between them."""

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(D, D)

        def forward(self, x):
            return self.inner(x.flatten(0, 1)).view(x.shape)

    report = padding_lint(Folded(), frames(), LENGTHS)
    assert not report
    assert report.unseen == {"inner": "no axis of [36, 16] holds the sequences"}
    assert str(report).splitlines()[1] == "not seen: inner: no axis of [36, 16] holds the sequences"


def test_the_model_is_as_before_after_it():
    model = nn.Sequential(
        nn.Conv1d(D, D, 3, padding=1), nn.BatchNorm1d(D), nn.Dropout(0.5), nn.BatchNorm1d(D).eval()
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    x = torch.randn(3, D, 12)
    given = x.clone()
    random = torch.get_rng_state()
    report = padding_lint(model, x, LENGTHS)
    assert list(report.leaks) == ["0", "1"]
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_table():
    text = str(padding_lint(encoder().eval(), frames(), LENGTHS))
    head, first, _ = text.splitlines()
    assert head.split() == ["module", "worst", "by", "first", "seen"]
    assert first.startswith("layers.0.self_attn  ")
    assert first.endswith("  the batch  sequence 1 at (0, 0, 0)")


def test_what_cannot_be_linted():
    model = encoder().eval()
    with pytest.raises(
        ValueError,
        match=r"lengths must be given, or found in the inputs as integers \[B\] or a mask \[B, T\]: got neither",
    ):
        padding_lint(model, frames())
    with pytest.raises(
        ValueError, match=r"a padded batch must have sequences of different lengths: got \[12, 12, 12\]"
    ):
        padding_lint(model, frames(), [12, 12, 12])
    with pytest.raises(
        ValueError, match=r"one axis of the inputs must hold up to 11 tokens: got axes of \[12, 16\]"
    ):
        padding_lint(model, frames(), [11, 7, 5])


def test_models_that_take_no_more_tokens():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(12, D)

        def forward(self, x):
            return x + self.table(torch.arange(x.shape[1]))

    with pytest.raises(
        ValueError, match="more must leave a length that the model takes, or be 0: got 19 tokens"
    ):
        padding_lint(Positions(), frames(), LENGTHS)
    assert not padding_lint(Positions(), frames(), LENGTHS, more=0)
