"""What a record gives, what it refuses, and in which words."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import MultiHeadAttention, TokenBatch, build_encoder
from mmattn.observation import RecordTooLarge, Reduced, observe

FIELDS = ("entropy", "received", "distance", "sink_mass", "max_logit")


class Channels(nn.Module):
    """A host that is left alone, beside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.xca = timm.models.xcit.XCA(12, num_heads=3)
        self.attention = MultiHeadAttention(12, 3)
        self.idle = MultiHeadAttention(12, 3)

    def forward(self, x):
        return self.attention(self.xca(x))


@pytest.fixture
def encoder() -> nn.Module:
    return build_encoder(24, depth=3, num_heads=4)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 5, 24)


def test_what_cannot_be_observed_is_named():
    model = Channels()
    with observe(model) as record:
        model(torch.randn(2, 5, 12))
    assert list(record) == ["attention"]
    assert len(record) == 1
    assert record.unobserved == {
        "xca": "it mixes channels, not tokens",
        "idle": "its attention was not called",
    }
    for name, why in record.unobserved.items():
        assert name not in record
        with pytest.raises(KeyError, match=f"an observed module must have attended: got '{name}', {why}"):
            record[name]
    with pytest.raises(KeyError, match="a name must be that of an observed module, 'attention': got 'wrong'"):
        record["wrong"]


def test_a_model_without_attention_is_refused():
    with (
        pytest.raises(
            ValueError, match=r"^the model must have attention to observe: got Linear without any$"
        ),
        observe(nn.Linear(2, 2)),
    ):
        pass


def test_a_model_that_is_left_alone_altogether_says_so():
    model = Channels().xca
    with observe(model) as record:
        model(torch.randn(2, 5, 12))
    assert not record
    assert record.unobserved == {"": "it mixes channels, not tokens"}


def test_weights_that_were_not_asked_for_are_refused(encoder, x):
    with observe(encoder) as record:
        encoder(x)
    with pytest.raises(
        AttributeError,
        match=r"^weights must be asked for by observe\(\.\.\., weights=True\): got 'blocks.0.attention' without$",
    ):
        _ = record["blocks.0.attention"].weights
    with pytest.raises(
        AttributeError, match=r"^explanation needs observe\(\.\.\., explain=True\): got 'blocks.0.attention'"
    ):
        _ = record["blocks.0.attention"].explanation


def test_several_calls_must_be_told_apart(encoder, x):
    with observe(encoder) as record:
        encoder(x)
        encoder(2 * x)
    seen = record["blocks.1.attention"]
    assert [call.entropy.shape for call in seen.calls] == [(2, 4, 5), (2, 4, 5)]
    for field in (*FIELDS, "q_lengths", "heads"):
        with pytest.raises(
            AttributeError,
            match=rf"^{field} is that of one call, take calls\[i\], or observe with reduce: got 2 calls of "
            r"'blocks.1.attention'$",
        ):
            getattr(seen, field)
    with pytest.raises(AttributeError, match="'ObservedModule' object has no attribute 'wrong'"):
        _ = seen.wrong


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("blocks.[12].*", [1, 2]),
        (["blocks.2.attention", "blocks.0.attention"], [0, 2]),
        (lambda name, module: isinstance(module, MultiHeadAttention) and "1" in name, [1]),
    ],
    ids=["pattern", "names", "function"],
)
def test_layers_are_chosen(encoder, x, layers, expected):
    with observe(encoder, layers=layers) as record:
        encoder(x)
    assert list(record) == [f"blocks.{i}.attention" for i in expected]
    rest = [f"blocks.{i}.attention" for i in range(3) if i not in expected]
    assert record.unobserved == dict.fromkeys(rest, "it was not selected")


def test_layers_that_are_not_there_are_refused(encoder):
    known = ", ".join(f"'blocks.{i}.attention'" for i in range(3))
    with (
        pytest.raises(ValueError, match=f"^layers must fit one of {known}: got 'wrong'$"),
        observe(encoder, layers="wrong"),
    ):
        pass
    with (
        pytest.raises(ValueError, match=f"^layers must be names among {known}: got 'wrong'$"),
        observe(encoder, layers=["blocks.0.attention", "wrong"]),
    ):
        pass


@pytest.mark.parametrize("weights", [False, True])
def test_heads_are_chosen(encoder, x, weights):
    encoder.eval()
    with observe(encoder, weights=weights) as every:
        encoder(x)
    with observe(encoder, weights=weights, heads=[3, 1]) as some:
        encoder(x)
    with observe(encoder, weights=weights, heads={"blocks.0.attention": [2]}) as one:
        encoder(x)
    for name, field in product(every, FIELDS):
        assert some[name].heads == (3, 1)
        torch.testing.assert_close(getattr(some[name], field), getattr(every[name], field)[:, [3, 1]])
    assert one["blocks.0.attention"].heads == (2,)
    assert one["blocks.1.attention"].heads == (0, 1, 2, 3)
    assert one["blocks.0.attention"].entropy.shape == (2, 1, 5)


def test_heads_that_are_not_there_are_refused(encoder, x):
    for heads in ([4], [-1], []):
        expected = re.escape(f"heads must lie between 0 and 3: got {heads} for 'blocks.0.attention'")
        with pytest.raises(ValueError, match=f"^{expected}$"), observe(encoder, heads=heads):
            encoder(x)
    with (
        pytest.raises(ValueError, match=r"^heads must be given by names among .*: got 'wrong'$"),
        observe(encoder, heads={"wrong": [0]}),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"^reduce must be 'mean', 'sum' or None: got 'max'$"),
        observe(encoder, reduce="max"),
    ):
        pass


@pytest.mark.parametrize(
    ("weights", "one"), [(True, 2 * 4 * (5 * 5 + 5) * 4), (False, 2 * 4 * (4 * 5 + 5) * 4)]
)
def test_memory_is_bounded_before_it_is_taken(encoder, x, weights, one):
    with observe(encoder, weights=weights, max_bytes=3 * one) as record:
        encoder(x)
    call = record["blocks.0.attention"].calls[0]
    kept = sum(tensor.numel() * tensor.element_size() for tensor in call.found.values())
    assert kept == (one - 2 * 4 * 5 * 4 if weights else one)  # largest logits come with the weights
    expected = re.escape(
        f"a record must stay within max_bytes={3 * one - 1}, choose layers or heads, reduce, or leave weights out: "
        f"got {3 * one} with the {'weights' if weights else 'statistics'} of 'blocks.2.attention', "
        "[B, H, N, M] = [2, 4, 5, 5]"
    )
    bound = observe(encoder, weights=weights, max_bytes=3 * one - 1)
    with pytest.raises(RecordTooLarge, match=f"^{expected}$"), bound:
        encoder(x)
    assert issubclass(RecordTooLarge, MemoryError)


def test_too_much_is_refused_without_being_allocated():
    class Long(nn.Module):
        def forward(self, q):
            return F.scaled_dot_product_attention(q[..., :1, :], q, q)

    model = Long()
    q = torch.empty(64, 1024, 1 << 20, 8, device="meta")
    with (
        pytest.raises(RecordTooLarge, match=r"got 274878169088 with the weights of ''"),
        observe(model, weights=True),
    ):
        model(q)


def test_modules_under_two_names_are_found_by_both():
    shared = MultiHeadAttention(12, 3)
    model = nn.Sequential(shared, nn.Identity(), shared)
    with observe(model) as record:
        model(torch.randn(2, 5, 12))
    assert list(record) == ["0"]
    assert record["2"] is record["0"]
    assert len(record["2"].calls) == 2


def test_numpy(encoder, x):
    with observe(encoder, weights=True) as record:
        encoder(x)
    arrays = record["blocks.0.attention"].numpy()
    assert set(arrays) == {"weights", *FIELDS, "q_lengths", "k_lengths"}
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert np.array_equal(arrays["weights"], record["blocks.0.attention"].weights.numpy())
    everything = record.to_numpy()
    assert list(everything) == list(record)
    assert np.array_equal(
        everything["blocks.2.attention"][0]["entropy"], record["blocks.2.attention"].entropy
    )
    with observe(encoder, reduce="mean") as reduced:
        encoder(x)
    (arrays,) = reduced.to_numpy()["blocks.0.attention"]
    assert arrays["entropy"].shape == (4, 5)
    assert arrays["per_head.entropy"].shape == (4,)
    assert "weights" not in arrays


def bertviz_format(attention) -> torch.Tensor:
    """As BertViz reads it: a batch of one, taken away, and layers of equal shape stacked."""
    assert all(layer.ndim == 4 and layer.shape[0] == 1 for layer in attention)
    return torch.stack([layer.squeeze(0) for layer in attention])


def test_bertviz(encoder):
    tokens = TokenBatch(torch.randn(12, 24), [5, 7])
    with observe(encoder, weights=True) as record:
        encoder(tokens)
    for example, length in ((0, 5), (1, 7), (-1, 7)):
        found = bertviz_format(record.to_bertviz(example))
        assert found.shape == (3, 4, length, length)
        assert torch.equal(found[2], record["blocks.2.attention"].weights[example, :, :length, :length])
        torch.testing.assert_close(found.sum(-1), torch.ones(3, 4, length))
    assert len(record.to_bertviz(layers="blocks.1.*")) == 1
    with pytest.raises(
        ValueError, match=r"^example must be one of 2 sequences: got 2 for 'blocks.0.attention'$"
    ):
        record.to_bertviz(2)
    with pytest.raises(ValueError, match=r"^layers must fit an observed module, 'blocks\.0.*: got 'wrong'$"):
        record.to_bertviz(layers="wrong")


def test_bertviz_wants_layers_of_equal_shape():
    model = nn.ModuleDict({"a": MultiHeadAttention(12, 3), "b": MultiHeadAttention(12, 2)})
    with observe(model, weights=True) as record:
        for part in model.values():
            part(torch.randn(1, 5, 12))
    with pytest.raises(
        ValueError,
        match=r"^BertViz wants layers of equal shape \[H, N, M\], choose them by layers: "
        r"got \[3, 5, 5\] of 'a', \[2, 5, 5\] of 'b'$",
    ):
        record.to_bertviz()


def test_it_prints_what_it_has(encoder, x):
    with observe(encoder, layers="blocks.0.*") as record:
        encoder(x)
    assert repr(record) == "Record(1 observed: ['blocks.0.attention'], 2 unobserved)"
    assert repr(record["blocks.0.attention"]) == "ObservedModule('blocks.0.attention', 1 calls)"
    assert repr(Reduced("a", mean=True)) == "mean over 0 sequences of 0 calls"
