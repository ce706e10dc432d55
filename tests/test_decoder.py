"""The decoder: packed training is each pair alone, and decoding in steps is the whole at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mmattn import (
    ALiBi,
    Causal,
    Decoder,
    DecoderBlock,
    FeedForward,
    LearnedPositions,
    MultiHeadAttention,
    Prefix,
    RotaryPositions,
    TokenBatch,
    Window,
    build_decoder,
    build_encoder,
)

B, N, D, H, D_CONTEXT = 3, 19, 42, 3, 13
TARGETS, SOURCES = [5, 1, 11, 7], [2, 13, 0, 4]
OPTIONS = {
    "rotary": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "grouped, normed": {"num_kv_heads": 1, "qk_norm": True, "positions": "none"},
    "window": {"window": 4},
    "cross": {"context": True, "context_dim": D_CONTEXT, "num_kv_heads": 1},
    "cross, window, sinusoidal": {
        "context": True, "context_dim": D_CONTEXT, "window": 4, "positions": "sinusoidal",
    },
}  # fmt: skip
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def make(**options) -> Decoder:
    decoder = build_decoder(D, depth=2, num_heads=H, **options)
    return randomised(decoder)


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def contexts(options, lengths=(7, 2, 5)) -> list[TokenBatch | torch.Tensor | None]:
    """Contexts of B sequences that a decoder with these options takes: packed and dense, or none."""
    if not options.get("context"):
        return [None]
    return [TokenBatch(torch.randn(sum(lengths), D_CONTEXT), lengths), torch.randn(B, 7, D_CONTEXT)]


def decode(decoder: Decoder, x: torch.Tensor, state, steps) -> torch.Tensor:
    """All of ``x [B, N, D]`` in steps of so many tokens, over and over."""
    outs, begin = [], 0
    with torch.no_grad():
        while begin < x.shape[1]:
            for step in steps:
                if begin < x.shape[1]:
                    outs.append(decoder.step(x[:, begin : begin + step], state))
                begin += step
    return torch.cat(outs, 1)


@pytest.mark.parametrize("capacity", [None, N])
@pytest.mark.parametrize("steps", [[1], [N], [5, 1, 1, 3]], ids=str)
@each_option
def test_steps_are_the_whole(options, steps, capacity):
    decoder, x = make(**options), torch.randn(B, N, D)
    for context in contexts(options):
        state = decoder.start(context, capacity=capacity)
        assert_close(decode(decoder, x, state, steps), decoder(x, context))
        assert (state.length, state.batch_size) == (N, B)


@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=7), window=st.none() | st.integers(1, N))
def test_any_cut_is_the_whole(steps, window):
    decoder, x = make(context=True, context_dim=D_CONTEXT, window=window), torch.randn(B, N, D)
    context = contexts({"context": True})[0]
    assert_close(decode(decoder, x, decoder.start(context), steps), decoder(x, context))


def biased_decoder(window=None) -> Decoder:
    """A learned table of positions, biases, rotary modules of their own, and turned cross-attention."""
    blocks = [
        DecoderBlock(
            MultiHeadAttention(D, H, position_bias=ALiBi(H), positions=RotaryPositions(base)),
            FeedForward(D, 2 * D), nn.LayerNorm(D), nn.LayerNorm(D),
            MultiHeadAttention(D, H, context_dim=D_CONTEXT, positions=RotaryPositions(), position_bias=ALiBi(H)),
            nn.LayerNorm(D),
        )
        for base in (7.0, 10_000.0)
    ]  # fmt: skip
    return randomised(Decoder(blocks, nn.LayerNorm(D), LearnedPositions([N], D), window))


@pytest.mark.parametrize("window", [None, 4])
def test_every_kind_of_position_counts_on_while_decoding(window):
    decoder, x = biased_decoder(window), torch.randn(B, N, D)
    for context in contexts({"context": True}):
        assert_close(decode(decoder, x, decoder.start(context), [5, 1]), decoder(x, context))


@each_option
def test_packed_targets_are_each_sequence_alone(options):
    decoder = make(**options)
    targets = TokenBatch(torch.randn(sum(TARGETS), D), TARGETS)
    context = contexts(options, SOURCES)[0]
    out = decoder(targets, context)
    assert out.sizes == targets.sizes
    assert out.coords is targets.coords
    sources = [None] * len(TARGETS) if context is None else context.split()
    for part, alone, source in zip(out.split(), targets.split(), sources, strict=True):
        assert_close(part.values, decoder(alone, source).values)


@each_option
def test_dense_and_packed_mix(options):
    decoder, x = make(**options), torch.randn(B, N, D)
    packed = TokenBatch.from_padded(x)
    for context in contexts(options):
        out = decoder(x, context)
        assert out.shape == (B, N, D)
        assert_close(decoder(packed, context).values, out.flatten(0, 1))


@pytest.mark.parametrize("window", [None, 4])
def test_no_token_sees_a_later_one_or_leaves_the_window(window):
    decoder, x = make(window=window), torch.randn(1, N, D)
    changed = x.clone()
    changed[0, 6] = torch.randn(D)
    moved = (decoder(changed) - decoder(x)).abs().amax(-1)[0] > 1e-6
    # two layers of a window of 4 reach 3 tokens back each
    last = N if window is None else 6 + 2 * 3 + 1
    assert moved.nonzero()[:, 0].tolist() == list(range(6, last))


def dense_reference(decoder: Decoder, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One target ``[N, D]`` with its source ``[M, D_context]``, written out with plain products."""

    def heads(z, weight, bias):
        return F.linear(z, weight, bias).unflatten(-1, (-1, D // H)).transpose(0, 1)

    def attended(q, k, v, hidden):
        logits = (q @ k.transpose(1, 2) / (D // H) ** 0.5).masked_fill(hidden, -torch.inf)
        return (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)

    for block in decoder.blocks:
        own, cross = block.attention, block.cross_attention
        z = block.attention_norm(x)
        weights, biases = own.qkv_proj.weight.chunk(3), own.qkv_proj.bias.chunk(3)
        q, k, v = (heads(z, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        x = x + own.out_proj(attended(q, k, v, later))
        z = block.cross_attention_norm(x)
        q = heads(z, cross.q_proj.weight, cross.q_proj.bias)
        weights, biases = cross.kv_proj.weight.chunk(2), cross.kv_proj.bias.chunk(2)
        k, v = (heads(y, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        x = x + cross.out_proj(attended(q, k, v, torch.zeros(1, len(y), dtype=torch.bool)))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    return decoder.norm(x)


def test_gradients_of_packed_training_are_those_of_each_pair():
    decoder = make(context=True, context_dim=D_CONTEXT, positions="none").double()
    lengths = [2, 13, 3, 4]
    targets = torch.randn(sum(TARGETS), D, dtype=torch.float64, requires_grad=True)
    sources = torch.randn(sum(lengths), D_CONTEXT, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(sum(TARGETS), D, dtype=torch.float64)
    inputs = [targets, sources, *decoder.parameters()]
    packed = decoder(TokenBatch(targets, TARGETS), TokenBatch(sources, lengths)).values
    pairs = zip(targets.split(TARGETS), sources.split(lengths), strict=True)
    alone = torch.cat([dense_reference(decoder, x, y) for x, y in pairs])
    torch.testing.assert_close(packed, alone)
    found = torch.autograd.grad((packed * weights).sum(), inputs)
    wanted = torch.autograd.grad((alone * weights).sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_agrees_with_torchs_decoder_layer():
    theirs = nn.TransformerDecoderLayer(D, H, 5 * D, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    randomised(theirs)
    ours = DecoderBlock(
        MultiHeadAttention(D, H), FeedForward(D, 5 * D), nn.LayerNorm(D), nn.LayerNorm(D),
        MultiHeadAttention(D, H), nn.LayerNorm(D),
    )  # fmt: skip
    names = {
        "self_attn.in_proj_": "attention.qkv_proj.", "multihead_attn.in_proj_": "cross_attention.qkv_proj.",
        "self_attn.out_proj": "attention.out_proj", "multihead_attn.out_proj": "cross_attention.out_proj",
        "norm1": "attention_norm", "norm2": "cross_attention_norm", "norm3": "feed_forward_norm",
        "linear1": "feed_forward.0", "linear2": "feed_forward.3",
    }  # fmt: skip
    state = {}
    for name, value in theirs.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        state[names[prefix] + name.removeprefix(prefix)] = value
    ours.load_state_dict(state)
    x, y = torch.randn(B, N, D), torch.randn(B, 7, D)
    later = torch.ones(N, N, dtype=torch.bool).triu(1)
    wanted = theirs(x, y, tgt_mask=later)
    assert_close(ours(x, y, mask=Causal()), wanted)
    lengths = torch.tensor([7, 2, 5])
    ignored = torch.arange(7) >= lengths[:, None]
    wanted = theirs(x, y, tgt_mask=later, memory_key_padding_mask=ignored)
    found = ours(TokenBatch.from_padded(x), TokenBatch.from_padded(y, lengths), mask=Causal())
    assert_close(found.values.view(B, N, D), wanted)


def gpt2(model, depth: int) -> Decoder:
    """The trunk of a GPT-2 of transformers as ours."""
    table = LearnedPositions([model.config.n_positions], D)
    table.table.data.copy_(model.wpe.weight)
    decoder = Decoder(list(build_decoder(D, depth, H, positions="none").blocks), nn.LayerNorm(D), table)
    for ours, theirs in zip(decoder.blocks, model.h, strict=True):
        linear = (
            (ours.attention.qkv_proj, theirs.attn.c_attn), (ours.attention.out_proj, theirs.attn.c_proj),
            (ours.feed_forward[0], theirs.mlp.c_fc), (ours.feed_forward[3], theirs.mlp.c_proj),
        )  # fmt: skip
        for one, other in linear:
            one.weight.data.copy_(other.weight.T)
            one.bias.data.copy_(other.bias)
        ours.attention_norm.load_state_dict(theirs.ln_1.state_dict())
        ours.feed_forward_norm.load_state_dict(theirs.ln_2.state_dict())
    decoder.norm.load_state_dict(model.ln_f.state_dict())
    return decoder


def test_cached_decoding_agrees_with_gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=N, n_embd=D, n_layer=2, n_head=H, activation_function="gelu"
    )
    theirs = randomised(transformers.GPT2Model(config)).eval()
    decoder, ids = gpt2(theirs, 2), torch.randint(0, 17, (B, N))
    state, past, begin = decoder.start(), None, 0
    with torch.no_grad():
        for step in (5, 1, 1, 4, 8):
            chunk = ids[:, begin : begin + step]
            wanted = theirs(chunk, past_key_values=past, use_cache=True)
            past, begin = wanted.past_key_values, begin + step
            torch.testing.assert_close(
                decoder.step(theirs.wte(chunk), state), wanted.last_hidden_state, rtol=1e-4, atol=1e-5
            )
    assert begin == N


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0, 2, 2], [2], [0, 1, 2]], ids=str)
@each_option
def test_select_goes_on_with_other_sequences(options, rows):
    decoder, x = make(**options), torch.randn(B, N, D)
    new = torch.randn(len(rows), N - 7, D)
    for context in contexts(options):
        state = decoder.start(context)
        decode(decoder, x[:, :7], state, [5, 2])
        state.select(torch.tensor(rows))
        found = decode(decoder, new, state, [1, 3])
        theirs = context.select(rows) if isinstance(context, TokenBatch) else context
        theirs = theirs[rows] if isinstance(theirs, torch.Tensor) else theirs
        assert_close(found, decoder(torch.cat([x[rows, :7], new], 1), theirs)[:, 7:])
        assert (state.batch_size, state.length) == (len(rows), N)


def test_beams_keep_the_memory_of_their_context():
    decoder = make(context=True, context_dim=D_CONTEXT)
    context = contexts({"context": True})[0]
    state = decoder.start(context)
    state.select([0, 0, 1, 1, 2, 2])  # two beams each, before the first token
    memory = state.memories[0]
    x = torch.randn(6, N, D)
    decode(decoder, x[:, :7], state, [7])
    state.select([1, 1, 2, 3, 5, 4])
    assert state.memories[0] is memory
    order = [1, 1, 2, 3, 5, 4]
    beams = context.select([0, 0, 1, 1, 2, 2])
    assert_close(
        decode(decoder, x[:, 7:], state, [3]), decoder(torch.cat([x[order, :7], x[:, 7:]], 1), beams)[:, 7:]
    )
    state.select([0, 1, 4, 5, 2, 3])  # the second and third change places
    assert state.memories[0] is not memory
    assert state.memories[0].sizes == (7, 7, 5, 5, 2, 2)


def test_prefix_language_model():
    decoder, x = make(), torch.randn(B, N, D)
    mask = Causal() | Prefix(7)
    wanted = decoder(x, mask=mask)
    assert (wanted[:, 0] - decoder(x)[:, 0]).abs().max() > 0.01
    state = decoder.start()
    with torch.no_grad():
        found = [decoder.step(x[:, :9], state, mask=mask), decoder.step(x[:, 9:], state, mask=mask)]
    assert_close(torch.cat(found, 1), wanted)
    packed = TokenBatch(torch.randn(sum(TARGETS), D), TARGETS)
    out = decoder(packed, mask=Causal() | Prefix((5, 0, 3, 1)))
    for part, alone, length in zip(out.split(), packed.split(), (5, 0, 3, 1), strict=True):
        assert_close(part.values, decoder(alone, mask=Causal() | Prefix(length)).values)


def test_a_step_takes_a_mask_of_its_own():
    decoder, x = make(window=4), torch.randn(B, N, D)
    narrow = Causal() & Window(1, 0)
    state = decoder.start()
    with torch.no_grad():
        found = torch.cat([decoder.step(part, state, mask=narrow) for part in x.split(5, 1)], 1)
    assert_close(found, decoder(x, mask=narrow))
    seen = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    seen[..., 2] = False
    full = make()
    state = full.start()
    with torch.no_grad():
        full.step(x[:, :4], state)
        hidden = full.step(x[:, 4:5], state, mask=seen)
    assert (hidden - full(x)[:, 4:5]).abs().max() > 0.01


def test_keys_of_the_context_are_computed_once():
    decoder = make(context=True, context_dim=D_CONTEXT)
    calls = []
    for block in decoder.blocks:
        block.cross_attention.kv_proj.register_forward_hook(lambda *_: calls.append(1))
    state = decoder.start(contexts({"context": True})[0])
    decode(decoder, torch.randn(B, 7, D), state, [1])
    assert len(calls) == 2


def test_weights_of_an_encoder_load():
    encoder, decoder = build_encoder(D, 2, H), make()
    decoder.load_state_dict(encoder.state_dict())
    x = torch.randn(B, N, D)
    assert_close(decoder(x), encoder(x, mask=Causal()))


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "drop_path"])
def test_training_drops_and_evaluation_does_not(option):
    decoder = make(context=True, context_dim=D_CONTEXT, **{option: 0.5})
    context, x = contexts({"context": True})[1], torch.randn(B, N, D)
    assert not torch.equal(decoder(x, context), decoder(x, context))
    block, found = decoder.blocks[1], []
    for _ in range(5):
        found.append(block(x, context, mask=Causal()))  # dense tokens drop as well
    assert not all(torch.equal(found[0], other) for other in found)
    decoder.eval()
    assert torch.equal(decoder(x, context), decoder(x, context))


def test_each_branch_is_dropped_before_it_is_added():
    block = DecoderBlock(
        MultiHeadAttention(D, H), FeedForward(D, D), nn.LayerNorm(D), nn.LayerNorm(D),
        MultiHeadAttention(D, H), nn.LayerNorm(D), dropout=0.5,
    )  # fmt: skip
    lasts = block.attention.out_proj, block.cross_attention.out_proj, block.feed_forward[3]
    x, y = torch.randn(101, 5, D), torch.randn(101, 2, D)
    for open_one in lasts:
        for last in lasts:  # one branch adds ones, the others nothing
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, float(last is open_one))
        with torch.no_grad():
            dense = block(x, y) - x
            packed = block(TokenBatch.from_padded(x), TokenBatch.from_padded(y)).values - x.flatten(0, 1)
        for added in (dense, packed):
            torch.testing.assert_close(added, added.round(), rtol=0, atol=1e-5)
            assert added.round().unique().tolist() == [0.0, 2.0]


def test_drop_path_drops_whole_sequences_of_a_dense_batch():
    block = make(drop_path=0.5).blocks[1]
    x = torch.randn(101, 5, D)
    with torch.no_grad():
        same = (block(x, mask=Causal()) == x).all(-1)
    assert torch.equal(same.all(1), same.any(1))
    assert 10 < same[:, 0].sum() < 45  # both branches: a quarter


def test_numbers_reach_the_parts():
    decoder = build_decoder(
        D, 3, H, num_kv_heads=1, context=True, mlp_ratio=2.0, rotary_base=7.0, window=5, backend="math",
        qk_norm=True, drop_path=0.2,
    )  # fmt: skip
    block = decoder.blocks[2]
    for attention in (block.attention, block.cross_attention):
        assert (attention.num_heads, attention.num_kv_heads, attention.backend) == (H, 1, "math")
        assert isinstance(attention.q_norm, nn.RMSNorm)
    assert block.attention.positions.base == 7.0
    assert block.cross_attention.positions is None
    assert block.cross_attention.context_dim == D
    assert block.feed_forward[0].weight.shape == (2 * D, D)
    assert [b.drop_path.p for b in decoder.blocks] == [0.0, 0.1, 0.2]
    assert (decoder.embed_dim, decoder.mask) == (D, Causal() & Window(4, 0))
    state = decoder.start(torch.randn(B, 7, D), capacity=11)
    assert [cache.window for cache in state.caches] == [5, 5, 5]
    assert repr(state) == "DecoderState(batch_size=3, length=0, with a context)"
    assert build_decoder(D, 1, H).start(capacity=11).caches[0].capacity == 11


def cross() -> Decoder:
    return build_decoder(D, 1, H, context=True)


def stepped(x, *, batch_size=None, capacity=None, decoder=None, mask=None):
    decoder = decoder or build_decoder(D, 1, H)
    with torch.no_grad():
        return decoder.step(x, decoder.start(batch_size=batch_size, capacity=capacity), mask=mask)


@pytest.mark.parametrize(
    ("text", "make_it"),
    [
        (r"^a decoder needs at least one block: got none$", lambda: Decoder([], nn.LayerNorm(D))),
        (
            r"^all blocks must have cross-attention, or none: got both$",
            lambda: Decoder([*cross().blocks, *build_decoder(D, 1, H).blocks], nn.LayerNorm(D)),
        ),
        (
            r"cross_attention and cross_attention_norm go together: got one",
            lambda: DecoderBlock(*[nn.Identity()] * 4, MultiHeadAttention(D, H)),
        ),
        (r"^window must be at least 1: got 0$", lambda: build_decoder(D, 1, H, window=0)),
        (r"^depth must be at least 1: got 0$", lambda: build_decoder(D, 0, H)),
        (r"^positions must be 'rotary', .* got 'rope'$", lambda: build_decoder(D, 1, H, positions="rope")),
        (r"^num_heads must divide embed_dim: got embed_dim=42, num_heads=5$", lambda: build_decoder(D, 1, 5)),
        (
            r"^context_dim needs context=True: got context_dim=13, context=False$",
            lambda: build_decoder(D, 1, H, context_dim=13),
        ),
        (r"with cross-attention needs a context: got none", lambda: cross()(torch.zeros(B, N, D))),
        (
            r"without cross-attention takes no context: got one",
            lambda: build_decoder(D, 1, H)(torch.zeros(B, N, D), torch.zeros(B, N, D)),
        ),
        (r"a decoder with cross-attention needs a context: got none", lambda: cross().start()),
        (
            r"a decoder without cross-attention takes no context: got one",
            lambda: build_decoder(D, 1, H).start(torch.zeros(B, N, D)),
        ),
        (
            r"^batch_size must be that of the context: got 5 for 3 sequences$",
            lambda: cross().start(torch.zeros(B, N, D), batch_size=5),
        ),
        (r"targets must be \[B, N, D\] or packed: got shape \[19, 42\]", lambda: cross()(torch.zeros(N, D))),
        (r"N of at least 1 and D=42: got shape \[3, 0, 42\]", lambda: stepped(torch.zeros(B, 0, D))),
        (r"N of at least 1 and D=42: got shape \[3, 1, 41\]", lambda: stepped(torch.zeros(B, 1, D - 1))),
        (r"N of at least 1 and D=42: got shape \[3, 42\]", lambda: stepped(torch.zeros(B, D))),
        (
            r"^x must have the 5 sequences of the state: got 3$",
            lambda: stepped(torch.zeros(B, 1, D), batch_size=5),
        ),
        (
            r"^a cache of capacity 7 is full: got 0 \+ 8 tokens$",
            lambda: stepped(torch.zeros(B, 8, D), capacity=7),
        ),
        (
            r"a step's mask must be a band: got Prefix\(length=3\)",
            lambda: stepped(torch.zeros(B, 8, D), decoder=build_decoder(D, 1, H, window=5), mask=Prefix(3)),
        ),
        (
            r"^a state must have a cache for each of 2 blocks: got 1$",
            lambda: make().step(torch.zeros(B, 1, D), build_decoder(D, 1, H).start()),
        ),
    ],
)
def test_errors(text, make_it):
    with pytest.raises(ValueError, match=text):
        make_it()


def test_the_batch_is_that_of_the_first_step():
    decoder, state = make(), make().start()
    assert state.batch_size is None
    decode(decoder, torch.randn(B, 1, D), state, [1])
    with pytest.raises(ValueError, match=r"^x must have the 3 sequences of the state: got 2$"):
        decode(decoder, torch.randn(2, 1, D), state, [1])
    with pytest.raises(ValueError, match=r"^rows must lie between 0 and 2: got 0 to 3$"):
        state.select([0, 3])


def test_a_step_refused_can_be_repeated():
    decoder, x = make(), torch.randn(B, N, D)
    state = decoder.start(capacity=N)
    with pytest.raises(ValueError, match="without gradients"):
        decoder.step(x, state)
    decode(decoder, x[:, :5], state, [5])
    with torch.no_grad(), pytest.raises(ValueError, match=r"is full: got 5 \+ 19 tokens"):
        decoder.step(x, state)
    assert_close(decode(decoder, x[:, 5:], state, [N]), decoder(x)[:, 5:])


def test_a_step_that_failed_half_way_is_not_built_on():
    decoder, x = make(), torch.randn(B, 1, D)
    state = decoder.start()
    decode(decoder, x, state, [1])
    with torch.no_grad(), pytest.raises(RuntimeError):
        decoder.step(x, state, mask=torch.ones(B, 1, 1, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"whole steps: got one whose last step failed half-way"):
        decode(decoder, x, state, [1])
