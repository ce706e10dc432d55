"""The encoder: packed sequences do not know each other, and one set of weights serves every domain."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Causal, Encoder, LearnedPositions, RotaryPositions, TokenBatch, build_encoder

D, H = 30, 3
LENGTHS = [5, 2, 0, 11, 2, 7]
OPTIONS = {
    "rotary": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "grouped, normed": {"num_kv_heads": 1, "qk_norm": True, "positions": "none"},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def make(**options) -> Encoder:
    encoder = build_encoder(D, depth=2, num_heads=H, **options)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.fixture
def tokens() -> TokenBatch:
    return TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS)


def assert_close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@each_option
def test_mixed_lengths_are_each_sequence_alone(tokens, options):
    encoder = make(**options)
    out = encoder(tokens)
    assert out.sizes == tokens.sizes
    assert out.coords is tokens.coords
    for part, alone in zip(out.split(), tokens.split(), strict=True):
        assert_close(part.values, encoder(alone).values)


@each_option
def test_the_order_of_the_sequences_does_not_matter(tokens, options):
    encoder = make(**options)
    order = [3, 5, 0, 2, 4, 1]
    shuffled = encoder(tokens.select(order))
    assert shuffled.sizes == tuple(LENGTHS[i] for i in order)
    assert_close(shuffled.values, encoder(tokens).select(order).values)


def test_two_dimensional_coords_stay_with_their_tokens():
    coords = torch.randint(0, 19, (sum(LENGTHS), 2))
    tokens, encoder = TokenBatch(torch.randn(len(coords), D), LENGTHS, coords), make()
    out = encoder(tokens)
    for part, alone in zip(out.split(), tokens.split(), strict=True):
        assert_close(part.values, encoder(alone).values)
    others = encoder(TokenBatch(tokens.values, LENGTHS, coords.flip(0)))
    assert (others.values - out.values).abs().max() > 0.01


@each_option
def test_dense_is_packed(options):
    encoder, x = make(**options), torch.randn(3, 7, D)
    out = encoder(x)
    assert out.shape == (3, 7, D)
    assert_close(out.flatten(0, 1), encoder(TokenBatch.from_padded(x)).values)


def test_masks_hold_inside_each_sequence(tokens):
    encoder = make()
    out = encoder(tokens, mask=Causal())
    values = tokens.values.clone()
    values[4] = torch.randn(D)  # the last token of the first sequence
    changed = (encoder(tokens.replace(values), mask=Causal()).values - out.values).abs().amax(1) > 1e-5
    assert changed.nonzero()[:, 0].tolist() == [4]
    free = (encoder(tokens.replace(values)).values - encoder(tokens).values).abs().amax(1) > 1e-5
    assert free.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_positions_matter_only_where_they_are_wanted(tokens):
    flipped = TokenBatch.concat([TokenBatch(t.values.flip(0), t.sizes) for t in tokens.split()])
    for positions, want in (("rotary", False), ("sinusoidal", False), ("none", True)):
        encoder = make(positions=positions)
        back = TokenBatch.concat([TokenBatch(t.values.flip(0), t.sizes) for t in encoder(flipped).split()])
        assert torch.allclose(back.values, encoder(tokens).values, atol=1e-4) is want


def test_learned_positions_can_be_handed_in(tokens):
    encoder = make(positions="none")
    learned = LearnedPositions([11], D)
    with_learned = Encoder(list(encoder.blocks), encoder.norm, learned)
    assert_close(with_learned(tokens).values, encoder(learned(tokens)).values)
    assert (with_learned(tokens).values - encoder(tokens).values).abs().max() > 1e-3


def test_blocks_with_rotary_positions_of_their_own(tokens):
    shared = make()
    own = make()
    own.load_state_dict(shared.state_dict())
    own.blocks[1].attention.positions = RotaryPositions(base=7.0)
    want = shared.blocks[0](tokens)
    want = own.blocks[1](want)  # each makes its own tables when none are given
    assert_close(own(tokens).values, shared.norm(want.values))
    assert (own(tokens).values - shared(tokens).values).abs().max() > 1e-3


def pictures(count: int) -> tuple[TokenBatch, torch.Tensor]:
    """Made-up token grids of 3 x 5 places, labelled by whether the two halves are alike."""
    coords = torch.cartesian_prod(torch.arange(3), torch.arange(5)).repeat(count, 1)
    labels = torch.randint(0, 2, (count,))
    values = torch.randn(count, 15, D)
    values[:, :, 0] += labels[:, None] * 2.0
    return TokenBatch(values.flatten(0, 1), [15] * count, coords), labels


def test_weights_of_pictures_load_for_sound():
    trained, fresh = build_encoder(D, 2, H), build_encoder(D, 2, H)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    optimizer = torch.optim.Adam(trained.parameters(), lr=3e-3)
    for _ in range(5):
        tokens, labels = pictures(17)
        pooled = trained(tokens).values.reshape(17, 15, D).mean(1)
        loss = nn.functional.cross_entropy(pooled[:, :2], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sound = TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS)  # one axis
    random = fresh(sound).values
    assert fresh.load_state_dict(trained.state_dict(), strict=True)
    out = fresh(sound).values
    assert out.isfinite().all()
    assert torch.equal(out, trained(sound).values)
    assert (out - random).abs().max() > 0.01
    assert any(not torch.equal(before[name], value) for name, value in fresh.state_dict().items())


def test_state_dict_round_trip(tokens, tmp_path):
    encoder = make()
    torch.save(encoder.state_dict(), tmp_path / "weights.pt")
    other = make()
    assert not torch.equal(other(tokens).values, encoder(tokens).values)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(tokens).values, encoder(tokens).values)


def test_training_drops_and_evaluation_does_not(tokens):
    for option in ("dropout", "attention_dropout", "drop_path"):
        encoder = make(**{option: 0.5})
        assert not torch.equal(encoder(tokens).values, encoder(tokens).values)
        encoder.eval()
        assert torch.equal(encoder(tokens).values, encoder(tokens).values)


def test_drop_path_grows_with_depth():
    encoder = build_encoder(D, 3, H, drop_path=0.2)
    assert [block.drop_path.p for block in encoder.blocks] == [0.0, 0.1, 0.2]


def test_uniform_control_has_the_same_parameters_and_other_results(tokens):
    softmax, uniform = make(), make(attention="uniform")
    uniform.load_state_dict(softmax.state_dict())
    assert (uniform(tokens).values - softmax(tokens).values).abs().max() > 0.01


def test_numbers_reach_the_parts():
    encoder = build_encoder(D, 2, H, num_kv_heads=1, mlp_ratio=2.0, rotary_base=7.0, backend="math")
    attention = encoder.blocks[1].attention
    assert (attention.num_heads, attention.num_kv_heads, attention.backend) == (H, 1, "math")
    assert attention.positions.base == 7.0
    assert encoder.blocks[0].feed_forward[0].weight.shape == (2 * D, D)
    assert encoder.embed_dim == D


@pytest.mark.parametrize(
    ("text", "make_it"),
    [
        (r"an encoder needs at least one block: got none", lambda: Encoder([], nn.LayerNorm(D))),
        (r"depth must be at least 1: got 0", lambda: build_encoder(D, 0, H)),
        (r"num_heads must divide embed_dim: got embed_dim=30, num_heads=7", lambda: build_encoder(D, 1, 7)),
        (
            r"attention must be 'softmax' or 'uniform': got 'mean'",
            lambda: build_encoder(D, 1, H, attention="mean"),
        ),
        (
            r"positions must be 'rotary', 'sinusoidal' or 'none': got 'rope'",
            lambda: build_encoder(D, 1, H, positions="rope"),
        ),
    ],
)
def test_errors(text, make_it):
    with pytest.raises(ValueError, match=text):
        make_it()
