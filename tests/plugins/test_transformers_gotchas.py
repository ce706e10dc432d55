"""What goes wrong when another attention function is put into models of transformers, one test for each."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.calls import weights_of
from mmattn.plugins.classes import is_plugged
from mmattn.plugins.interface import core_attention
from mmattn.plugins.site import Seen, site_of, sites
from mmattn.plugins.swap import Report, attach

transformers = pytest.importorskip("transformers")
import mmattn.plugins.transformers  # noqa: E402, F401
from benchmarks.plugins.zoo import zoo_transformers as zoo  # noqa: E402

CASES = {case.id.partition("/")[2]: case for case in zoo.CASES}


@pytest.fixture
def model(sharpen):
    """A small model by its type, and its inputs."""

    def make(name: str) -> tuple[nn.Module, dict]:
        torch.manual_seed(0)
        found = sharpen(CASES[name].build()).eval()
        return found, CASES[name].inputs().kwargs

    return make


def first(model: nn.Module, **inputs: object) -> Tensor:
    with torch.no_grad():
        return model(**inputs)[0]


def seen_by(model: nn.Module, **inputs: object) -> dict[str, list[Seen]]:
    """What watchers are shown of one forward pass, by module."""
    shown: dict[str, list[Seen]] = {}
    for _, site in sites(model):
        site.watchers.append(lambda seen, name=site.name: shown.setdefault(name, []).append(seen))
    with torch.no_grad():
        model(**inputs)
    for _, site in sites(model):
        site.watchers.clear()
    return shown


def weights(seen: Seen) -> Tensor:
    return weights_of(seen) if seen.weights is None else seen.weights


def test_attention_and_mask_function_are_registered_together():
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    assert AttentionInterface()["mmattn"] is core_attention
    assert AttentionMaskInterface()["mmattn"] is sdpa_mask


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "wav2vec2", "hubert", "detr"])
def test_padding_is_not_ignored(model, close, name):
    host, inputs = model(name)
    wanted = first(host, **inputs)
    unpadded = {key: value for key, value in inputs.items() if "mask" not in key}
    host.set_attn_implementation("mmattn")
    assert host.config._attn_implementation == "mmattn"
    close(first(host, **inputs), wanted)
    assert (first(host, **unpadded) - wanted).abs().max() > 0.01 * wanted.abs().max()


def test_models_are_made_with_it_from_their_configuration(close):
    config = transformers.BertConfig(**zoo.BERT)
    torch.manual_seed(0)
    host = transformers.AutoModel.from_config(config, attn_implementation="mmattn").eval()
    assert host.config._attn_implementation == "mmattn"
    torch.manual_seed(0)
    other = transformers.AutoModel.from_config(config, attn_implementation="sdpa").eval()
    inputs = zoo.tokens()().kwargs
    close(first(host, **inputs), first(other, **inputs))


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "t5", "whisper", "wav2vec2", "gpt_oss", "vit", "swin"]
)
def test_output_attentions_come_from_the_fused_core(model, close, name):
    host, inputs = model(name)
    zoo.spelled_out(host)
    with torch.no_grad():
        wanted = host(**inputs, output_attentions=True)
        plug_in(host)
        got = host(**inputs, output_attentions=True)
    assert host.config._attn_implementation == "mmattn"
    keys = [key for key in wanted if key.endswith("attentions") and wanted[key]]
    assert keys
    for key in keys:
        assert len(got[key]) == len(wanted[key])
        for new, old in zip(got[key], wanted[key], strict=True):
            seeing = new.sum(-1, keepdim=True) > 0  # eager spreads a query without keys evenly
            assert seeing.any()
            close(new, old * seeing, 5e-5)
    plain = host(**inputs)
    assert all(plain.get(key) is None for key in keys)


def test_output_attentions_may_be_said_by_the_configuration(model):
    host, inputs = model("bert")
    zoo.spelled_out(host)
    host.config.output_attentions = True
    plug_in(host)
    assert [x.shape for x in host(**inputs).attentions] == [(2, 4, 9, 9)] * 2


@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_position_bias_goes_to_the_interface(model, close, name):
    host, inputs = model(name)
    wanted = first(host, **inputs)
    plug_in(host)
    close(first(host, **inputs), wanted)
    shown = seen_by(host, **inputs)
    assert len(shown) == 6
    bias = shown["encoder.block.0.layer.0.SelfAttention"][0].terms.bias
    assert bias.abs().max() > 0
    assert torch.equal(bias, shown["encoder.block.1.layer.0.SelfAttention"][0].terms.bias)


def test_soft_cap_is_kept(model, close):
    host, inputs = model("gemma2")
    wanted = CASES["gemma2"].outputs(host(**inputs))[0]
    plug_in(host)
    got = CASES["gemma2"].outputs(host(**inputs))[0]
    close(got, wanted)
    assert {seen.terms.soft_cap for calls in seen_by(host, **inputs).values() for seen in calls} == {2.0}


@pytest.mark.parametrize("plugged", [True, False])
def test_rows_beside_sinks_do_not_sum_to_one(model, plugged):
    host, inputs = model("gpt_oss")
    with torch.no_grad():
        for layer in host.layers:
            layer.self_attn.sinks.copy_(torch.tensor([3.0, 5.0, 4.0, 6.0]))
    plug_in(host) if plugged else attach(host, Report(), routed=False)
    shown = seen_by(host, **inputs | {"attention_mask": None})
    assert len(shown) == 2
    for calls in shown.values():
        assert weights(calls[0]).shape == (2, 4, 9, 9)
        assert (weights(calls[0]).sum(-1) < 0.9999).all()


def test_a_module_that_does_not_say_is_causal(close):
    q = k = v = torch.randn(1, 2, 5, 4)
    future = v.clone()
    future[:, :, -1] += 1
    a, b = (core_attention(nn.Module(), q, k, x, None)[0] for x in (v, future))
    close(a[:, :-1], b[:, :-1], 0.0)
    assert (a[:, -1] - b[:, -1]).abs().max() > 0.01


def test_a_class_without_the_interface_logs_only_a_warning_and_takes_the_other_way(model, close, caplog):
    host, inputs = model("deberta")
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addHandler(caplog.handler)
    try:
        host.set_attn_implementation("mmattn")
        assert host.config._attn_implementation == "eager"
        assert "does not support setting its attention implementation" in caplog.text
        caplog.clear()
        wanted = CASES["deberta"].outputs(host(**inputs))[0]
        report = plug_in(host)
        assert not caplog.records
    finally:
        logger.removeHandler(caplog.handler)
    assert len(report.swapped) == 2
    close(CASES["deberta"].outputs(host(**inputs))[0], wanted)
    assert [site.routed_calls for _, site in sites(host)] == [1, 1]
    assert host.config._attn_implementation == "eager"


def test_a_model_that_asks_for_sdpa_by_name_keeps_it(sharpen, close):
    config = zoo.LLAMA | {
        "head_dim": 8, "global_head_dim": 8, "sliding_window": 4, "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": zoo.VOCABULARY,
    }  # fmt: skip
    host = sharpen(zoo.built("gemma4_text", "Gemma4TextModel", config)).eval()
    inputs = zoo.prompts().kwargs
    keep = inputs["attention_mask"].bool()
    wanted = first(host, **inputs)[keep]
    plug_in(host)
    assert host.config._attn_implementation == "sdpa"
    close(first(host, **inputs)[keep], wanted)
    assert [site.routed_calls for _, site in sites(host)] == [1, 1]


def test_whisper_scales_its_queries_itself(model, close):
    host, inputs = model("whisper")
    wanted = first(host, **inputs)
    plug_in(host)
    close(first(host, **inputs), wanted)
    assert {seen.terms.scale for calls in seen_by(host, **inputs).values() for seen in calls} == {1.0}


def test_transposed_weights_of_gpt2_stay_as_they_are(model, close):
    host, inputs = model("gpt2")
    wanted = CASES["gpt2"].outputs(host(**inputs))[0]
    grad = torch.autograd.grad(wanted.square().sum(), host.h[0].attn.c_attn.weight)[0]
    plug_in(host)
    got = CASES["gpt2"].outputs(host(**inputs))[0]
    close(got, wanted)
    assert grad.shape == (32, 96)
    close(torch.autograd.grad(got.square().sum(), host.h[0].attn.c_attn.weight)[0], grad)


DECODERS = ["llama", "gpt2", "gemma2", "mixtral", "gpt_oss"]


@pytest.mark.parametrize("name", DECODERS)
def test_queries_padded_on_the_left_get_zeros(model, name):
    host, inputs = model(name)
    zoo.spelled_out(host)
    plug_in(host)
    shown = seen_by(host, **inputs)
    assert len(shown) == 2
    for calls in shown.values():
        rows = weights(calls[0])[1].sum(-1)
        assert torch.equal(rows[:, :4], torch.zeros(4, 4))  # heads, queries that are padding
        assert (rows[:, 4:] > 0).all()
    calls = []
    hook = host.get_submodule(next(iter(shown))).register_forward_hook(lambda *of: calls.append(of[2][0]))
    first(host, **inputs)
    hook.remove()
    module = host.get_submodule(next(iter(shown)))
    bias = (module.c_proj if name == "gpt2" else module.o_proj).bias
    assert torch.equal(calls[0][1, :4], torch.zeros(4, 32) if bias is None else bias.expand(4, 32))


@pytest.mark.parametrize("name", DECODERS)
def test_no_nan_comes_from_padding_on_the_left(model, close, name):
    host, inputs = model(name)
    wanted = CASES[name].outputs(host(**inputs))[0]
    plug_in(host)
    embedded = host.get_input_embeddings()(inputs["input_ids"]).detach()
    close(CASES[name].outputs(host(**{**inputs, "input_ids": None, "inputs_embeds": embedded}))[0], wanted)
    embedded[1, :4] = torch.nan
    close(CASES[name].outputs(host(**{**inputs, "input_ids": None, "inputs_embeds": embedded}))[0], wanted)


def test_a_single_query_laid_out_by_groups_has_all_its_heads(model, close):
    host, _ = model("llama")
    ids = torch.randint(3, zoo.VOCABULARY, (2, 5))
    padding = torch.tensor([[1] * 6, [0] * 2 + [1] * 4])
    host.set_attn_implementation("eager")
    cache = host(input_ids=ids, attention_mask=padding[:, :5], use_cache=True).past_key_values
    wanted = host(
        input_ids=ids[:, :1], attention_mask=padding, past_key_values=cache, output_attentions=True
    ).attentions
    host.set_attn_implementation("sdpa")
    cache = host(input_ids=ids, attention_mask=padding[:, :5], use_cache=True).past_key_values
    attach(host, Report(), routed=False)
    shown = seen_by(host, input_ids=ids[:, :1], attention_mask=padding, past_key_values=cache)
    assert len(shown) == 2
    for calls, old in zip(shown.values(), wanted, strict=True):
        assert weights(calls[0]).shape == (2, 4, 1, 6)
        close(weights(calls[0]), old, 5e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("plugged", [True, False])
def test_cached_decoding_is_one_query_and_more_and_more_keys(model, close, implementation, plugged):
    host, _ = model("llama")
    ids = torch.randint(3, zoo.VOCABULARY, (2, 6))
    host.set_attn_implementation("eager")
    whole = host(input_ids=ids, output_attentions=True).attentions
    host.set_attn_implementation(implementation)
    plug_in(host) if plugged else attach(host, Report(), routed=False)
    cache = transformers.DynamicCache(config=host.config)
    for start, stop in ((0, 4), (4, 5), (5, 6)):
        shown = seen_by(host, input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True)
        assert len(shown) == 2
        for calls, wanted in zip(shown.values(), whole, strict=True):
            assert weights(calls[0]).shape == (2, 4, stop - start, stop)
            close(weights(calls[0]), wanted[:, :, start:stop, :stop], 5e-5)


def test_weights_that_a_host_makes_with_a_sink_are_those_of_keys_alone(model, close):
    host, inputs = model("gpt_oss")
    assert host.config._attn_implementation == "eager"
    wanted = first(host, **inputs)
    attach(host, Report(), routed=False)
    shapes = []

    def halved(weights: Tensor) -> Tensor:
        shapes.append(weights.shape)
        return weights / 2

    for _, site in sites(host):
        site.on_weights = lambda weights: (shapes.append(weights.shape), weights)[1]
    close(first(host, **inputs), wanted)
    assert shapes == [(2, 4, 9, 9)] * 2
    for _, site in sites(host):
        site.on_weights = halved
    assert (first(host, **inputs) - wanted).abs().max() > 0.01


def test_a_layer_called_again_and_again_is_shown_each_time(model):
    host, inputs = model("albert")
    report = plug_in(host)
    assert len(report.swapped) == 1
    shown = seen_by(host, **inputs)
    assert [len(calls) for calls in shown.values()] == [2]
    a, b = map(weights, shown[report.swapped[0]])
    assert (a - b).abs().max() > 0.01


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "llama", "t5", "wavlm", "gpt2", "siglip"])
def test_a_host_that_is_only_looked_at_computes_what_it_did(model, close, name, implementation):
    host, inputs = model(name)
    for part in host.modules():
        if isinstance(part, transformers.PreTrainedModel):
            part.config._attn_implementation_internal = implementation
    with torch.no_grad():
        wanted = CASES[name].outputs(host(**inputs))
    plug_in(host)
    plugged = seen_by(host, **inputs)
    unplug(host)
    attach(host, Report(), routed=False)
    shown = seen_by(host, **inputs)
    with torch.no_grad():
        assert all(map(torch.equal, CASES[name].outputs(host(**inputs)), wanted))
    assert list(shown) == list(plugged)
    for key, calls in shown.items():
        for new, old in zip(calls, plugged[key], strict=True):
            seeing = weights(old).sum(-1, keepdim=True) > 0
            close(weights(new) * seeing, weights(old), 5e-5)


def test_configurations_of_parts_are_switched_and_a_pooling_head_is_torchs(model):
    host, inputs = model("siglip")
    plug_in(host)
    assert host.config.text_config._attn_implementation == "mmattn"
    assert host.config.vision_config._attn_implementation == "mmattn"
    caught = [type(m).__name__ for m, _ in sites(host) if is_plugged(type(m))]
    assert caught == ["MultiheadAttention"]
    first(host, **inputs)
    assert all(site.routed_calls == 1 for _, site in sites(host))


def test_what_an_attention_module_chooses_keys_by_is_a_part_of_it(sharpen, close):
    config = zoo.BERT | zoo.MLA | {"index_topk": 3, "index_n_heads": 2, "index_head_dim": 8}
    host = sharpen(zoo.built("deepseek_v32", "DeepseekV32Model", config)).eval()
    inputs = zoo.prompts().kwargs
    keep = inputs["attention_mask"].bool()
    wanted = first(host, **inputs)[keep]
    report = plug_in(host)
    assert report.swapped == ["layers.0.self_attn", "layers.1.self_attn"]
    assert report.skipped == {
        f"layers.{i}.self_attn.indexer": f"layers.{i}.self_attn calls attention itself and has this as a part"
        for i in (0, 1)
    }
    close(first(host, **inputs)[keep], wanted)
    for calls in seen_by(host, **inputs).values():
        assert ((weights(calls[0]) > 0).sum(-1) <= 3).all()  # of the chosen keys


def test_sparse_attention_of_its_own_form_is_left_alone(model):
    host, inputs = model("longformer")
    wanted = first(host, **inputs)
    report = plug_in(host)
    assert not report.swapped
    assert set(report.skipped) == {f"encoder.layer.{i}.attention.self" for i in (0, 1)}
    assert "global" in report.skipped["encoder.layer.0.attention.self"]
    assert torch.equal(first(host, **inputs), wanted)
    assert site_of(host.encoder.layer[0].attention.self) is None
