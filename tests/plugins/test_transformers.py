"""Models of transformers with the core inside: what plugging promises of them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from mmattn.backends import SdpaBackend
from mmattn.masks import Window
from mmattn.plugins import VerificationError, plug_in, unplug
from mmattn.plugins.calls import weights_of
from mmattn.plugins.classes import is_plugged
from mmattn.plugins.site import site_of, sites
from mmattn.plugins.swap import Report, attach

transformers = pytest.importorskip("transformers")
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


def outputs(name: str, model: nn.Module, **inputs: object) -> list[Tensor]:
    with torch.no_grad():
        return CASES[name].outputs(model(**inputs))


@pytest.fixture
def llama(sharpen):
    """A language model with grouped keys, and prompts padded on the left."""
    torch.manual_seed(0)
    kind = transformers.LlamaForCausalLM
    return sharpen(kind(transformers.LlamaConfig(**zoo.LLAMA))).eval(), zoo.prompts().kwargs


# what plugging does ------------------------------------------------------------------------------------------


def test_modules_that_call_the_interface_keep_their_class(model):
    host, inputs = model("bert")
    kinds = [type(module) for module in host.modules()]
    keys = list(host.state_dict())
    report = plug_in(host)
    assert report.swapped == [f"encoder.layer.{i}.attention.self" for i in (0, 1)]
    assert [type(module) for module in host.modules()] == kinds
    assert list(host.state_dict()) == keys
    outputs("bert", host, **inputs)
    assert [site.routed_calls for _, site in sites(host)] == [1, 1]


@pytest.mark.parametrize("before", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["bert", "t5", "siglip", "wavlm", "gpt_oss"])
def test_unplugging_restores_implementation_and_outputs_bit_for_bit(model, name, before):
    host, inputs = model(name)
    parts = [part.config for part in host.modules() if isinstance(part, transformers.PreTrainedModel)]
    for config in parts:
        config._attn_implementation_internal = before if name != "gpt_oss" else "eager"
    wanted, state = outputs(name, host, **inputs), set(host.__dict__)
    kinds = [type(module) for module in host.modules()]
    had = [config._attn_implementation for config in parts]
    plug_in(host)
    assert name == "wavlm" or {config._attn_implementation for config in parts} == {"mmattn"}
    unplug(host)
    assert [config._attn_implementation for config in parts] == had
    assert [type(module) for module in host.modules()] == kinds
    assert set(host.__dict__) == state
    assert all(map(torch.equal, outputs(name, host, **inputs), wanted))


def test_parts_with_implementations_of_their_own_get_them_back(model):
    host, _ = model("clip")
    host.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    plug_in(host)
    plug_in(host)  # once more changes nothing
    assert host.config.text_config._attn_implementation == "mmattn"
    unplug(host)
    assert host.config.text_config._attn_implementation == "eager"
    assert host.config.vision_config._attn_implementation == "sdpa"


def test_an_implementation_that_was_chosen_stays_after_unplugging(model):
    host, _ = model("bert")
    host.set_attn_implementation("mmattn")
    plug_in(host)
    unplug(host)
    assert host.config._attn_implementation == "mmattn"


def test_a_model_inside_a_module_of_your_own(model, close):
    host, inputs = model("bert")
    wanted = outputs("bert", host, **inputs)[0]
    around = nn.ModuleDict({"text": host, "head": nn.Linear(32, 2)})
    assert plug_in(around).swapped == [f"text.encoder.layer.{i}.attention.self" for i in (0, 1)]
    assert host.config._attn_implementation == "mmattn"
    close(outputs("bert", host, **inputs)[0], wanted)
    unplug(around)
    assert host.config._attn_implementation == "sdpa"


def test_a_selection_takes_the_other_way(model, close):
    host, inputs = model("bert")
    wanted = outputs("bert", host, **inputs)[0]
    report = plug_in(host, select="encoder.layer.1.*")
    assert report.skipped == {"encoder.layer.0.attention.self": "it was not selected"}
    assert host.config._attn_implementation == "sdpa"
    (module, site), = sites(host)  # fmt: skip
    assert is_plugged(type(module))
    close(outputs("bert", host, **inputs)[0], wanted)
    assert site.routed_calls == 1


def test_a_refused_plug_leaves_the_implementation_alone(model):
    host, inputs = model("bert")

    class Wrong(SdpaBackend):
        def dense(self, *args):
            return super().dense(*args) * 1.01

    with pytest.raises(VerificationError):
        plug_in(host, backend=Wrong(), verify=inputs)
    assert host.config._attn_implementation == "sdpa"
    assert not list(sites(host))


def test_verify_takes_keyword_arguments(llama):
    host, inputs = llama
    assert plug_in(host, verify=inputs | {"attention_mask": zoo.padding()}).verified


# what a site asks for ----------------------------------------------------------------------------------------


def test_head_masks_are_those_of_zeroed_columns(model, close):
    host, inputs = model("bert")
    plug_in(host)
    site = site_of(host.encoder.layer[0].attention.self)
    site.head_mask = torch.tensor([1.0, 0.0, 0.5, 1.0], requires_grad=True)
    got = host(**inputs)[0]
    assert torch.autograd.grad(got.square().sum(), site.head_mask)[0].abs().min() > 0
    unplug(host)
    factors = torch.tensor([1.0, 0.0, 0.5, 1.0]).repeat_interleave(8)
    with torch.no_grad():
        host.encoder.layer[0].attention.output.dense.weight *= factors
    close(got, host(**inputs)[0])


def test_windows_and_backends_are_those_of_the_plug(model):
    host, inputs = model("llama")
    without = inputs | {"attention_mask": None}
    names = []

    class Counting(SdpaBackend):
        def dense(self, *args):
            names.append(args[3].mask)
            return super().dense(*args)

    report = plug_in(host, window=Window(2, 0), backend=Counting())
    changed = outputs("llama", host, **without)[0]
    assert len(names) == 2
    assert "Window(left=2, right=0)" in report.changes[0]
    unplug(host)
    host.set_attn_implementation("sdpa")
    far = torch.arange(9)[:, None] - torch.arange(9)
    mask = ((far >= 0) & (far <= 2))[None, None].expand(2, -1, -1, -1)
    wanted = outputs("llama", host, **without | {"attention_mask": mask})[0]
    assert (changed - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_weights_can_be_replaced(model, close):
    host, inputs = model("vit")
    plug_in(host)
    site = next(iter(sites(host)))[1]
    wanted = outputs("vit", host, **inputs)[0]
    shapes = []

    def same(weights: Tensor) -> Tensor:
        shapes.append(weights.shape)
        return weights

    site.on_weights = same
    close(outputs("vit", host, **inputs)[0], wanted)
    assert shapes == [(2, 4, 17, 17)]


def test_looking_at_a_model_with_the_implementation_changes_nothing(model):
    host, inputs = model("bert")
    host.set_attn_implementation("mmattn")
    wanted = outputs("bert", host, **inputs)
    attach(host, Report(), routed=False)
    shown = []
    for _, site in sites(host):
        site.watchers.append(lambda seen: shown.append(weights_of(seen)))
    assert all(map(torch.equal, outputs("bert", host, **inputs), wanted))
    assert [x.shape for x in shown] == [(2, 4, 9, 9)] * 2
    unplug(host)
    assert host.config._attn_implementation == "mmattn"


# what keeps working ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}]
)
def test_generated_tokens_are_the_same(llama, how):
    host, inputs = llama
    prompt = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "disable_compile": True, **how}
    wanted = host.generate(**prompt, **settings)
    plug_in(host)
    got = host.generate(**prompt, **settings)
    assert got.shape[1] > 9 + 1
    assert torch.equal(got, wanted)
    assert all(site.routed_calls >= got.shape[1] - 9 for _, site in sites(host))


def test_generated_translations_are_the_same(sharpen):
    torch.manual_seed(0)
    host = sharpen(zoo.built("bart", "BartForConditionalGeneration", zoo.BART)).eval()
    inputs = zoo.tokens()().kwargs
    settings = {"max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    wanted = host.generate(**inputs, **settings)
    plug_in(host)
    assert torch.equal(host.generate(**inputs, **settings), wanted)


@pytest.mark.parametrize("name", ["bert", "t5", "wavlm"])
def test_copies_run_on_weights_of_their_own(model, close, name):
    host, inputs = model(name)
    wanted = outputs(name, host, **inputs)[0]
    plug_in(host)
    copied = copy.deepcopy(host)
    with torch.no_grad():
        for p in host.parameters():
            p.zero_()
    close(outputs(name, copied, **inputs)[0], wanted)
    assert all(site.routed_calls for _, site in sites(copied))
    unplug(copied)
    assert copied.config._attn_implementation != "mmattn"
    assert host.config._attn_implementation == ("mmattn" if name != "wavlm" else "eager")


def test_pickles_run_in_a_new_process(model, tmp_path):
    host, inputs = model("bert")
    plug_in(host)
    wanted = outputs("bert", host, **inputs)[0]
    torch.save((host, inputs, wanted), tmp_path / "model.pt")
    code = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "host, inputs, wanted = torch.load(sys.argv[1], weights_only=False)\n"
        "from mmattn.plugins.site import sites\n"
        "with torch.no_grad(): assert torch.equal(host(**inputs)[0], wanted)\n"
        "assert [site.routed_calls for _, site in sites(host)] == [2, 2]\n"
        "from mmattn.plugins import unplug\n"
        "unplug(host)\n"
        "assert host.config._attn_implementation == 'sdpa'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt")], check=True)


def test_saved_models_are_those_of_the_host(model, tmp_path, close):
    host, inputs = model("bert")
    plug_in(host)
    wanted = outputs("bert", host, **inputs)[0]
    host.save_pretrained(tmp_path)
    assert "mmattn" not in (tmp_path / "config.json").read_text()
    again = transformers.AutoModel.from_pretrained(tmp_path).eval()
    assert again.config._attn_implementation == "sdpa"
    close(outputs("bert", again, **inputs)[0], wanted)
    plugged = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="mmattn").eval()
    close(outputs("bert", plugged, **inputs)[0], wanted)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["bert", "gptj"])
def test_gradients_through_checkpointing_are_the_same(model, close, name, reentrant):
    host, inputs = model(name)

    def gradients() -> list[Tensor]:
        host.zero_grad()
        CASES[name].outputs(host(**inputs))[0].square().sum().backward()
        return [p.grad.clone() for p in host.parameters() if p.grad is not None]

    wanted = gradients()
    for module in host.modules():
        for key, value in vars(module).items():
            if isinstance(value, float) and "dropout" in key:
                setattr(module, key, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    host.gradient_checkpointing_enable({"use_reentrant": reentrant})
    host.train()
    plug_in(host)
    for new, old in zip(gradients(), wanted, strict=True):
        if old.abs().max() > 1e-3:
            close(new, old, 1e-4)
    assert {site.routed_calls for _, site in sites(host)} == {2}  # forward, and again for backward


def test_training_drops_weights(model):
    host, inputs = model("bert")
    plug_in(host)
    host.train()
    for module in host.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    still = outputs("bert", host, **inputs)[0]
    host.encoder.layer[0].attention.self.dropout.p = 0.3
    assert (outputs("bert", host, **inputs)[0] - still).abs().max() > 0.01


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_compiled_models_are_compiled_once(model, close, name):
    import torch._dynamo.testing

    host, inputs = model(name)
    wanted = outputs(name, host, **inputs)[0]
    plug_in(host)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(host, backend=counter, fullgraph=True)
    for _ in range(3):
        got = outputs(name, compiled, **inputs)[0]
    close(got, wanted)
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["bert", "llama", "gptj"])
def test_exported_models_compute_the_same(model, close, name):
    host, inputs = model(name)
    wanted = outputs(name, host, **inputs)[0]
    plug_in(host)
    exported = torch.export.export(host, (), inputs, strict=False).module()
    close(outputs(name, exported, **inputs)[0], wanted)


@pytest.mark.parametrize("name", ["bert", "t5", "gptj", "wavlm"])
def test_mixed_precision_is_that_of_the_host(model, close, name):
    host, inputs = model(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = host(**inputs)[0]
        plug_in(host)
        got = host(**inputs)[0]  # padding included: the lowest number of float32 is no -inf in bfloat16
    assert got.dtype == wanted.dtype
    assert got.isfinite().all()
    close(got.float(), wanted.float(), 0.05)


def test_sites_are_pickled_without_their_watchers(model):
    host, _ = model("bert")
    plug_in(host)
    site = next(iter(sites(host)))[1]
    site.watchers.append(lambda seen: None)
    assert pickle.loads(pickle.dumps(site)).watchers == []


def test_import_of_the_library_loads_no_transformers():
    code = (
        "import sys, torch, mmattn\n"
        "mmattn.plug_in(torch.nn.MultiheadAttention(8, 2))\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
