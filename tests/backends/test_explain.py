"""Which backend runs a call, and what each one says for and against itself."""

from __future__ import annotations

import inspect

import pytest
import torch

from mmattn import ALiBi, Backend, Causal, KeyLengths, MultiHeadAttention, Window, attend, explain
from mmattn.backends import (
    BACKENDS,
    Call,
    CpuBackend,
    FlexBackend,
    MathBackend,
    SdpaBackend,
    Terms,
    VarlenBackend,
)

B, H, H_KV, N, M, K = 2, 6, 3, 5, 7, 16
NAMES = ["cpu", "varlen", "flex", "sdpa", "math"]


@pytest.fixture(autouse=True)
def _one_thread():
    """With several, FlexAttention is refused on a CPU for another reason."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def qkv() -> list[torch.Tensor]:
    return [torch.randn(B, H, N, K), torch.randn(B, H_KV, M, K), torch.randn(B, H_KV, M, K)]


def call(
    device="cpu", dtype=torch.float32, packed=False, grad=False, head_dim=K, same=True, n=N, m=N, **terms
):
    """A call that no machine need be there for."""
    return Call(
        packed,
        H,
        H_KV,
        head_dim,
        n,
        m,
        same,
        dtype,
        torch.device(device),
        grad,
        Terms(head_dim**-0.5, **terms),
    )


def test_the_names_and_their_order():
    assert [backend.name for backend in BACKENDS] == NAMES


def test_explain_and_attend_take_the_same_arguments():
    assert list(inspect.signature(explain).parameters) == list(inspect.signature(attend).parameters)


def test_the_choice_and_the_reasons(qkv):
    told = explain(*qkv)
    assert told.chosen == "cpu"
    assert told.reason.startswith("the kernel '")
    assert told.others == {
        "varlen": "it is for packed sequences, got a dense call",
        "flex": "compiling it takes longer than it saves on a CPU",
        "sdpa": f"cpu comes first: {told.reason}",
        "math": f"cpu comes first: {told.reason}",
    }
    lines = str(told).splitlines()
    assert lines[0] == f"cpu: {told.reason}"
    assert lines[1] == "not varlen: it is for packed sequences, got a dense call"
    assert len(lines) == 5
    forced = explain(*qkv, backend="math")
    assert (forced.chosen, forced.reason) == ("math", "it was asked for")
    assert forced.others == dict.fromkeys(["cpu", "varlen", "flex", "sdpa"], "math was asked for")


def test_a_packed_call_and_a_window_say_how_they_run():
    x = torch.randn(400, 2, K)
    assert explain(x, x, x, q_lengths=[100, 300]).reason.startswith(
        "sequences grouped by length, the kernel "
    )
    told = explain(x, x, x, q_lengths=[100, 300], mask=Window(3, 3)).reason
    assert "the window in blocks of 128 queries, the kernel " in told
    assert "blocks" not in explain(x, x, x, q_lengths=[100] * 4, mask=Window(3, 3)).reason


@pytest.mark.parametrize(
    ("backend", "why", "described"),
    [
        (CpuBackend(), "it runs on a CPU, got cuda", {"device": "cuda"}),
        (CpuBackend(), "it needs a floating-point dtype, got torch.complex64", {"dtype": torch.complex64}),
        (CpuBackend(), "its kernels have no soft cap", {"soft_cap": 2.0}),
        (CpuBackend(), "its kernels have no sinks", {"sinks": torch.zeros(H)}),
        (VarlenBackend(), "it is for packed sequences, got a dense call", {"device": "cuda"}),
        (VarlenBackend(), "it runs on CUDA, got cpu", {"packed": True}),
        (FlexBackend(), "it runs on a CPU and on CUDA, got mps", {"device": "mps"}),
        (FlexBackend(), "it needs float32, bfloat16 or float16, got torch.float64", {"dtype": torch.float64}),
        (FlexBackend(), "FlexAttention drops no weights", {"dropout": 0.1}),
        (FlexBackend(), "FlexAttention has no backward pass on a CPU", {"grad": True}),
        (FlexBackend(compiled=False), "FlexAttention has no backward pass on a CPU", {"grad": True}),
        (
            FlexBackend(),
            "FlexAttention has no backward pass on a CPU",
            {"bias": torch.zeros(N, N).requires_grad_()},
        ),
        (FlexBackend(), "FlexAttention needs a head_dim of at least 16, got 8", {"head_dim": 8}),
        (SdpaBackend(), "it needs a floating-point dtype, got torch.int64", {"dtype": torch.int64}),
        (SdpaBackend(), "torch's kernels have no soft cap", {"soft_cap": 2.0}),
    ],
)
def test_refusals(backend, why, described):
    assert backend.refusal(call(**described)) == why


@pytest.mark.parametrize(
    ("why", "described"),
    [
        ("it needs float16 or bfloat16, got torch.float32", {"dtype": torch.float32}),
        ("its kernel has no bias, soft cap or sinks", {"bias": torch.zeros(N, N)}),
        ("its kernel has no bias, soft cap or sinks", {"soft_cap": 2.0}),
        ("its kernel has no bias, soft cap or sinks", {"sinks": torch.zeros(H)}),
        ("its kernel drops no weights", {"dropout": 0.1}),
        ("head_dim must be a multiple of 8 up to 256, got 12", {"head_dim": 12}),
        ("head_dim must be a multiple of 8 up to 256, got 264", {"head_dim": 264}),
        (
            "its kernel knows windows between as many queries as keys alone, got KeyLengths(lengths=(3, 5))",
            {"mask": KeyLengths((3, 5))},
        ),
        (
            "its kernel knows windows between as many queries as keys alone, got Causal(align='bottom-right')",
            {"mask": Causal(), "same": False},
        ),
        (None, {"mask": Causal() & Window(3, 0)}),
        (None, {"same": False}),
    ],
)
def test_what_varlen_refuses_on_cuda(why, described):
    pytest.importorskip("torch.nn.attention.varlen")
    assert (
        VarlenBackend().refusal(
            call(**{"device": "cuda", "dtype": torch.bfloat16, "packed": True} | described)
        )
        == why
    )


def test_math_refuses_nothing():
    wild = call("cuda", torch.complex64, grad=True, soft_cap=1.0, dropout=0.3, bias=torch.zeros(N, N))
    assert MathBackend().refusal(wild) is None
    assert MathBackend().merit(wild) == "it runs everything, plainly"


@pytest.mark.parametrize(
    ("merit", "described"),
    [
        ("torch's fused attention, which never stores the N x M weights", {}),
        ("torch's fused attention with a drawn N x M mask", {"mask": Window(1, 1)}),
        ("torch's fused attention, causal without a mask", {"mask": Causal()}),
        ("torch's attention, unfused, since no fused kernel on a CPU drops weights", {"dropout": 0.1}),
    ],
)
def test_merits_of_sdpa(merit, described):
    assert SdpaBackend().merit(call(**described)) == merit


def test_merit_of_sdpa_with_the_gradient_of_a_bias():
    told = SdpaBackend().merit(call(bias=torch.zeros(N, N).requires_grad_()))
    assert told == "torch's attention with the gradient of the bias, for which it may store the N x M weights"


def test_flex_is_chosen_on_cuda_for_patterns_and_soft_caps_alone():
    flex = FlexBackend()
    assert flex.reluctance(call()) == "compiling it takes longer than it saves on a CPU"
    assert (
        flex.reluctance(call("cuda", packed=True)) == "one kernel for each length would have to be compiled"
    )
    assert flex.reluctance(call("cuda")) == "torch's own kernels do as well without a pattern"
    assert flex.reluctance(call("cuda", soft_cap=1.0)) is None
    assert flex.reluctance(call("cuda", mask=Window(3, 3))) is None
    assert "compiled into the kernel" in flex.merit(call("cuda", mask=Window(3, 3)))


def test_auto_goes_down_the_list(qkv):
    assert explain(*qkv, sinks=torch.zeros(H)).chosen == "sdpa"
    assert explain(*qkv, soft_cap=3.0).chosen == "math"
    told = explain(*(x.to(torch.complex64) for x in qkv))
    assert told.chosen == "math"
    assert told.others["sdpa"] == "it needs a floating-point dtype, got torch.complex64"


def test_forcing_an_impossible_backend_says_why(qkv):
    for function in (attend, explain):
        with pytest.raises(
            ValueError, match=r"^backend 'cpu' cannot run this call: its kernels have no soft cap$"
        ):
            function(*qkv, soft_cap=2.0, backend="cpu")
        with pytest.raises(
            ValueError,
            match=r"^backend must be 'auto', 'cpu', 'varlen', 'flex', 'sdpa', 'math' or an object: got 'fast'$",
        ):
            function(*qkv, backend="fast")
    with pytest.raises(
        ValueError, match=r"^backend 'varlen' cannot run this call: it is for packed sequences"
    ):
        attend(*qkv, backend="varlen")
    assert explain(*qkv, backend="flex").chosen == "flex"  # reluctance binds auto alone


class Doubled(MathBackend):
    """Somebody's own backend: twice the result, and no bias."""

    name = "doubled"

    def refusal(self, call):
        return "it knows no bias" if call.terms.bias is not None else None

    def dense(self, q, k, v, terms):
        return 2 * super().dense(q, k, v, terms)


def test_a_backend_of_ones_own(qkv):
    torch.testing.assert_close(attend(*qkv, backend=Doubled()), 2 * attend(*qkv))
    x = torch.randn(5, H, K)
    once = attend(x, x, x, q_lengths=[2, 3])
    torch.testing.assert_close(attend(x, x, x, q_lengths=[2, 3], backend=Doubled()), 2 * once)
    assert explain(*qkv, backend=Doubled()).others == dict.fromkeys(NAMES, "doubled was asked for")
    with pytest.raises(ValueError, match=r"^backend 'doubled' cannot run this call: it knows no bias$"):
        attend(*qkv, bias=torch.zeros(N, M), backend=Doubled())
    module = MultiHeadAttention(12, 3, backend=Doubled(), bias=False)
    plain = MultiHeadAttention(12, 3, bias=False)
    plain.load_state_dict(module.state_dict())
    y = torch.randn(2, 5, 12)
    torch.testing.assert_close(module(y), 2 * plain(y))


def test_a_backend_must_say_how():
    class Empty(Backend):
        name = "empty"

    with pytest.raises(TypeError, match="dense"):
        Empty()


def test_the_call_that_a_backend_sees(qkv):
    seen = []

    class Watching(MathBackend):
        def refusal(self, call):
            seen.append(call)

    q, k, v = qkv
    attend(q, k.requires_grad_(), v, mask=Causal(), dropout=0.5, scale=0.3, backend=Watching())
    packed = [x[0].transpose(0, 1) for x in (q, k, v)]
    with torch.no_grad():
        attend(*packed, q_lengths=[5], k_lengths=[7], backend=Watching())
        attend(*packed, q_lengths=[5], k_lengths=[7], bias=ALiBi(H), backend=Watching())
    first, second, third = seen
    assert (first.packed, first.num_heads, first.num_kv_heads, first.head_dim) == (False, H, H_KV, K)
    assert (first.num_queries, first.num_keys, first.same_lengths) == (N, M, False)
    assert (first.terms.mask, first.terms.dropout, first.terms.scale, first.grad) == (
        Causal(),
        0.5,
        0.3,
        True,
    )
    assert first.dtype == torch.float32
    assert (second.packed, second.num_heads, second.num_kv_heads, second.grad) == (True, H, H_KV, False)
    assert second.terms.scale == K**-0.5
    assert third.terms.bias.shape == (H, N, M)  # drawn once for all sequences


def test_what_grad_means_in_a_call():
    bias = torch.zeros(N, M, requires_grad=True)
    assert call(bias=bias).bias_grad
    assert call(bias=ALiBi(H)).bias_grad
    assert not call(bias=bias.detach()).bias_grad
    assert not call().bias_grad
    with torch.no_grad():
        assert not call(bias=bias).bias_grad
