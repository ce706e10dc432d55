"""Attention modules of transformers as ours."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from mmattn import Causal, RotaryPositions
from mmattn.convert import from_transformers, to_projections

transformers = pytest.importorskip("transformers")

B, N, H, G, K = 2, 5, 6, 2, 4
D = H * K


def build(family, attention, **config):
    """The attention module ``attention`` of a model family with a tiny configuration."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    name = next(n for n in vars(module) if n.lower() == attention.lower())
    config_name = config.pop("config", f"{name.partition('Attention')[0].removesuffix('Self')}Config")
    made = getattr(importlib.import_module("transformers"), config_name)(**config)
    made._attn_implementation = config.pop("attn", "sdpa")
    return made, getattr(module, name)


VISION = {"hidden_size": D, "num_attention_heads": H}
LLAMA = {"hidden_size": 18, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": K}
SPEECH = {"embed_dim": D, "num_heads": H}


def embedded(cls, config):
    """Modules that take numbers instead of a configuration, too."""
    return cls(**SPEECH, config=config)


# family, class, configuration, how it is made, arguments of from_transformers, name of the output projection
PLAIN = [
    ("vit", "ViTAttention", VISION, None),
    ("vit", "ViTAttention", {**VISION, "qkv_bias": False}, None),
    ("deit", "DeiTAttention", VISION, None),
    ("beit", "BeitAttention", VISION, None),
    ("dinov2", "Dinov2Attention", {**VISION, "config": "Dinov2Config"}, None),
    ("clip", "CLIPAttention", {**VISION, "config": "CLIPTextConfig"}, None),
    ("siglip", "SiglipAttention", {**VISION, "config": "SiglipTextConfig"}, None),
    ("whisper", "WhisperAttention", {}, embedded),
    ("wav2vec2", "Wav2Vec2Attention", {}, embedded),
    ("bart", "BartAttention", {}, embedded),
    ("opt", "OPTAttention", {"hidden_size": D, "num_attention_heads": H}, None),
    ("distilbert", "DistilBertSelfAttention", {"dim": D, "n_heads": H, "config": "DistilBertConfig"}, None),
]


@pytest.mark.parametrize(
    ("family", "name", "options", "make"), PLAIN, ids=[f"{x[1]}-{i}" for i, x in enumerate(PLAIN)]
)
def test_modules_without_positions(family, name, options, make, randomise, close, assert_faithful):
    config, cls = build(family, name, **options)
    theirs = randomise(cls(config) if make is None else make(cls, config)).eval()
    ours, x = from_transformers(theirs), torch.randn(B, N, D)
    # OPT's attention is causal by itself where it gets no mask
    close(ours(x, mask=Causal() if theirs.is_causal else None), theirs(x)[0])
    parts = to_projections(ours)
    for ours_name, names in (
        ("q", ("q_proj", "q_lin")), ("k", ("k_proj", "k_lin")), ("v", ("v_proj", "v_lin")),
        ("out", ("o_proj", "out_proj", "out_lin")),
    ):  # fmt: skip
        layer = next(getattr(theirs, n) for n in names if hasattr(theirs, n))
        assert torch.equal(getattr(parts, ours_name).weight, layer.weight)
        if layer.bias is not None:
            assert torch.equal(getattr(parts, ours_name).bias, layer.bias)
    assert_faithful(from_transformers, theirs)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_bert_and_its_output_projection(family, randomise, close):
    config, cls = build(
        family, f"{family}SelfAttention", **VISION, attention_probs_dropout_prob=0.3,
        config={"bert": "BertConfig", "roberta": "RobertaConfig", "electra": "ElectraConfig"}[family],
    )  # fmt: skip
    theirs, dense = randomise(cls(config)).eval(), randomise(nn.Linear(D, D))
    ours, x = from_transformers(theirs, dense), torch.randn(B, N, D)
    close(ours(x), dense(theirs(x)[0]))
    assert ours.dropout == 0.3
    with pytest.raises(ValueError, match="out must be given where the module has no output projection"):
        from_transformers(theirs)


ROTARY = [
    ("llama", "LlamaAttention", {}, {}),
    ("llama", "LlamaAttention", {"attention_bias": True}, {}),
    ("llama", "LlamaAttention", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
     {"interpolation": 2.0}),
    ("mistral", "MistralAttention", {"sliding_window": None}, {}),
    ("qwen2", "Qwen2Attention", {}, {}),
    ("qwen3", "Qwen3Attention", {}, {}),
    ("gemma", "GemmaAttention", {}, {}),
    ("gemma2", "Gemma2Attention", {"query_pre_attn_scalar": 5}, {}),
    ("gpt_oss", "GptOssAttention", {}, {}),
    ("phi", "PhiAttention", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                             "partial_rotary_factor": 0.5}, "hidden_size": D}, {"rotary_dim": 2}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "name", "options", "turn"), ROTARY, ids=[f"{x[1]}-{i}" for i, x in enumerate(ROTARY)]
)
def test_modules_with_rotary_positions(family, name, options, turn, randomise, close):
    # the soft cap and the sinks are in the eager form alone, which computes the softmax in float32
    eager = family in ("gemma2", "gpt_oss")
    made = {**LLAMA, **options, "config": {"gpt_oss": "GptOssConfig"}.get(family, name[:-9] + "Config")}
    config, cls = build(family, name, **made)
    config._attn_implementation = "eager" if eager else "sdpa"
    if family == "gpt_oss":
        config.rope_parameters = {"rope_type": "default", "rope_theta": 150_000.0}
    theirs = randomise(cls(config, layer_idx=0)).eval()
    base = config.rope_parameters["rope_theta"]
    ours = from_transformers(theirs, positions=RotaryPositions(base, interleaved=False, **turn))
    x = torch.randn(B, N, config.hidden_size)
    future = torch.full((N, N), -torch.inf).triu(1)[None, None]
    expected = theirs(x, attention_mask=future, position_embeddings=tables(family, config, x))[0]
    close(ours(x, mask=Causal()), expected, 1e-5)  # their angles are float32
    interleaved = from_transformers(theirs, positions=RotaryPositions(base, **turn))
    if "rotary_dim" not in turn:  # a single pair has one order alone
        assert not torch.allclose(interleaved(x, mask=Causal()), expected, atol=1e-3)


def tables(family, config, x):
    """What the model hands to its attention: cosines and sines of the positions."""
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    rotary = next(v for n, v in vars(module).items() if n.endswith("RotaryEmbedding"))(config)
    return rotary(x, torch.arange(N)[None])


def gpt2(cross, **options):
    config, cls = build("gpt2", "GPT2Attention", n_embd=D, n_head=H, resid_pdrop=0.0, **options)
    return cls(config, is_cross_attention=cross, layer_idx=2)


@pytest.mark.parametrize("options", [{}, {"scale_attn_by_inverse_layer_idx": True, "attn_pdrop": 0.3}])
def test_gpt2_is_transposed(options, randomise, close, assert_faithful):
    theirs = randomise(gpt2(False, **options)).eval()
    ours, x = from_transformers(theirs), torch.randn(B, N, D)
    future = torch.full((N, N), -torch.inf).triu(1)[None, None]
    close(ours(x, mask=Causal()), theirs(x, attention_mask=future)[0])
    assert ours.dropout == options.get("attn_pdrop", 0.1)
    assert torch.equal(ours.qkv_proj.weight, theirs.c_attn.weight.t())
    assert_faithful(from_transformers, theirs)


def test_gpt2_across(randomise, close):
    theirs = randomise(gpt2(True)).eval()
    x, y = torch.randn(B, N, D), torch.randn(B, 7, D)
    close(from_transformers(theirs)(x, y), theirs(x, encoder_hidden_states=y)[0])


def t5(learned, decoder=False):
    config, cls = build(
        "t5", "T5Attention", d_model=17, d_kv=K, num_heads=H, is_decoder=decoder, config="T5Config",
        relative_attention_num_buckets=8, relative_attention_max_distance=11,
    )  # fmt: skip
    return cls(config, has_relative_attention_bias=learned, layer_idx=0)


def test_t5_is_not_scaled(randomise, close):
    theirs, x = randomise(t5(False)).eval(), torch.randn(B, N, 17)
    ours, bias = from_transformers(theirs), torch.randn(1, H, N, N)
    assert ours.scale == 1.0
    close(ours(x), theirs(x)[0])
    close(ours(x, bias=bias), theirs(x, position_bias=bias)[0])


@pytest.mark.parametrize("decoder", [False, True])
def test_the_bias_of_t5(decoder, randomise, close, assert_faithful):
    theirs, x = randomise(t5(True, decoder)).eval(), torch.randn(B, 23, 17)
    close(from_transformers(theirs)(x), theirs(x)[0])
    assert_faithful(from_transformers, theirs)


def test_a_whole_bert_encoder_runs_on_ours(randomise, close):
    config = transformers.BertConfig(
        hidden_size=D, num_attention_heads=H, num_hidden_layers=2, intermediate_size=7, vocab_size=11
    )
    model = randomise(transformers.BertModel(config)).eval()
    words = torch.randint(0, 11, (B, N))
    expected = model(words).last_hidden_state

    class WithOutput(nn.Module):
        def __init__(self, theirs):
            super().__init__()
            self.ours, self.rest = from_transformers(theirs.self, theirs.output.dense), theirs.output

        def forward(self, x, *args, **kwargs):
            return self.rest.LayerNorm(self.ours(x) + x), None

    for layer in model.encoder.layer:
        layer.attention = WithOutput(layer.attention)
    close(model(words).last_hidden_state, expected)


def llama(**options):
    config, cls = build("llama", "LlamaAttention", **LLAMA, **options)
    return cls(config, layer_idx=0)


def gated_llama():
    module = llama()
    module.q_proj = nn.Linear(18, 2 * D)
    return module


def llama_with_a_parameter():
    module = llama()
    module.temperature = nn.Parameter(torch.ones(H))
    return module


def olmo2():
    config, cls = build("olmo2", "Olmo2Attention", hidden_size=D, num_attention_heads=H)
    return cls(config, layer_idx=0)


def olmo(clip):
    config, cls = build("olmo", "OlmoAttention", hidden_size=D, num_attention_heads=H, clip_qkv=clip)
    return cls(config, layer_idx=0)


def neox():
    config, cls = build("gpt_neox", "GPTNeoXAttention", hidden_size=D, num_attention_heads=H)
    return cls(config, layer_idx=0)


def gpt2_with_dropout():
    module = gpt2(False)
    module.resid_dropout.p = 0.1
    return module


def albert():
    config, cls = build("albert", "AlbertAttention", **VISION, config="AlbertConfig")
    return cls(config)


SCALED = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "make", "options"),
    [
        ("LlamaAttention turns queries and keys: pass positions=RotaryPositions", llama, {}),
        (
            "positions must have base=10000.0 for this LlamaAttention: got base=500.0",
            llama,
            {"positions": RotaryPositions(500.0, interleaved=False)},
        ),
        (
            "positions must have rotary_dim=4 for this LlamaAttention: got rotary_dim=2",
            llama,
            {"positions": RotaryPositions(rotary_dim=2)},
        ),
        (
            "positions must have interpolation=2.0 for this LlamaAttention: got interpolation=1.0",
            lambda: llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
            {"positions": RotaryPositions()},
        ),
        ("q must have 24 outputs and no gate: got 48", gated_llama, {"positions": RotaryPositions()}),
        (
            "cannot carry temperature of LlamaAttention: got a tensor",
            llama_with_a_parameter,
            {"positions": RotaryPositions()},
        ),
        (
            "GPT2Attention does not turn queries and keys: got positions=RotaryPositions",
            lambda: gpt2(False),
            {"positions": RotaryPositions()},
        ),
        (
            "cannot carry the rope_type of LlamaAttention: got llama3",
            lambda: llama(rope_parameters=SCALED),
            {"positions": RotaryPositions()},
        ),
        (
            "cannot carry q_norm of Olmo2Attention",
            olmo2,
            {"positions": RotaryPositions(interleaved=False)},
        ),
        (
            "cannot carry clip_qkv of OlmoAttention: got clip_qkv=3.0",
            lambda: olmo(3.0),
            {"positions": RotaryPositions(interleaved=False)},
        ),
        (r"knows modules with q_proj/k_proj/v_proj, .*: got GPTNeoXAttention", neox, {}),
        ("cannot carry resid_dropout of GPT2Attention: got Dropout", gpt2_with_dropout, {}),
        ("cannot carry LayerNorm of AlbertAttention", albert, {}),
        (
            "out must be given where .* and only there: got out=Linear for GPT2Attention with c_proj",
            lambda: gpt2(False),
            {"out": nn.Linear(D, D)},
        ),
    ],
)
def test_what_from_transformers_refuses(text, make, options):
    with pytest.raises(ValueError, match=text):
        from_transformers(make(), **options)


def test_a_quantised_projection_is_refused():
    module = llama()

    class Quantised(nn.Linear):
        def forward(self, x):
            return super().forward(x).round()

    module.v_proj = Quantised(18, G * K)
    with pytest.raises(TypeError, match=r"v must be an nn\.Linear: got Quantised"):
        from_transformers(module, positions=RotaryPositions(interleaved=False))
