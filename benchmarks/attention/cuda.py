"""Topics with other opponents on a CUDA device: flash and cuDNN kernels, FlexAttention, varlen; in bf16."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.attention import cuda_vit
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Timing, Work, fastest, ratio
from benchmarks.attention.windows import Attention, flex, masked_sdpa
from benchmarks.bars import Bar
from mmattn import Causal, Window, attend

#: (B, H, L, K)
DENSE = ((64, 12, 197, 64), (16, 16, 1024, 64), (4, 16, 4096, 128), (1, 16, 16384, 128))
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
DENSE_PROMISED, PACKED_PROMISED = 0.95, 1.8


class Inputs(NamedTuple):
    """q, k, v with gradients, and the cotangent of the result."""

    q: Tensor
    k: Tensor
    v: Tensor
    cotangent: Tensor


def inputs(*shape: int, seed: int = 0) -> Inputs:
    """Random bf16 tensors of one shape."""
    torch.manual_seed(seed)
    q, k, v, cotangent = (torch.randn(*shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    return Inputs(q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), cotangent)


def works(attention: Attention, x: Inputs) -> dict[str, list[Work]]:
    """Forward without gradients, and forward with backward."""

    @torch.no_grad()
    def forward() -> Tensor:
        return attention(x.q, x.k, x.v)

    def step() -> None:
        x.q.grad = x.k.grad = x.v.grad = None
        attention(x.q, x.k, x.v).backward(x.cotangent)

    return {"forward": [forward], "training step": [step]}


def compare(
    ways: dict[str, Attention], x: Inputs, settings: Settings, report: Report, setting: str
) -> dict[str, dict[str, Timing]]:
    """Race all that can run these inputs, forward and training step; the rest is noted with its reason."""
    able: dict[str, dict[str, list[Work]]] = {}
    for name, way in ways.items():
        made = works(way, x)
        try:
            made["training step"][0]()
        except (RuntimeError, NotImplementedError) as error:
            report.notes.append(f"- {name} left out of {setting}: {str(error).splitlines()[0]}")
        else:
            able[name] = made
    found = {}
    for kind in ("forward", "training step"):
        found[kind] = settings.race(
            {name: made[kind] for name, made in able.items()}, 100, least=20, warmup=5
        )
        report.add(Race(f"{kind}, {setting}", found[kind], "mmattn"))
    return found


def kernel(name: str, causal: bool) -> Attention:
    """torch's fused attention held to one kernel."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(KERNELS[name]):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return call


def dense(settings: Settings) -> Report:
    """attend() against the bare kernels: the share of their throughput that it reaches."""
    report = Report("dense", "CUDA: dense attention in bf16 against bare kernels")
    for shape in DENSE[:1] if settings.quick else DENSE:
        b, h, length, k = shape
        x = inputs(*shape, seed=settings.seed)
        for causal in (False, True):
            setting = f"(B, H, L, K) = {shape}{', causal' if causal else ''}"
            ways: dict[str, Attention] = {name: kernel(name, causal) for name in KERNELS}
            mask = Causal() if causal else None
            ways["mmattn"] = lambda q, k, v, mask=mask: attend(q, k, v, mask=mask)  # type: ignore[misc]  # default
            for kind, timings in compare(ways, x, settings, report, setting).items():
                raw = fastest({name: t for name, t in timings.items() if name != "mmattn"})
                compared = ratio(timings[raw], timings["mmattn"])
                # two products forward, five more backward
                flops = (
                    4 * b * h * length**2 * k * (0.5 if causal else 1.0) * (1.0 if kind == "forward" else 3.5)
                )
                speed = flops / timings["mmattn"].seconds / 1e12
                note = f"of {raw}; ours {speed:.0f} TFLOP/s; {compared}"
                name = f"{kind}, {setting}: share of the fastest kernel's throughput"
                report.bars.append(Bar(name, compared.of_medians, DENSE_PROMISED, True, note))
    return report


def packed(settings: Settings) -> Report:
    """Packed sequences at half fill: attend(), bare varlen, and padded fused attention with a mask."""
    from torch.nn.attention.varlen import varlen_attn

    size, longest, heads, head_dim = (4, 64, 2, 32) if settings.quick else (32, 1024, 16, 64)
    # evenly from 1 to the longest: half of the padded batch is padding
    lengths = torch.linspace(1, longest, size).round().long()
    total = int(lengths.sum())
    report = Report(
        "encoder", f"CUDA: packed attention in bf16, {total / (size * longest):.0%} of the padding real"
    )
    ends = F.pad(lengths.cumsum(0), (1, 0)).to("cuda", torch.int32)
    allowed = (torch.arange(longest) < lengths[:, None]).cuda()

    def varlen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = varlen_attn(q, k, v, ends, ends, longest, longest)
        assert isinstance(out, Tensor)
        return out

    def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = [x.new_zeros(size, longest, heads, head_dim) for x in (q, k, v)]
        for into, x in zip(wide, (q, k, v), strict=True):
            into[allowed] = x
        dense_q, dense_k, dense_v = (x.transpose(1, 2) for x in wide)
        out = F.scaled_dot_product_attention(dense_q, dense_k, dense_v, attn_mask=allowed[:, None, None])
        return out.transpose(1, 2)[allowed]

    sizes = lengths.tolist()
    ways: dict[str, Attention] = {
        "mmattn": lambda q, k, v: attend(q, k, v, q_lengths=sizes),
        "varlen": varlen,
        "padding, SDPA, unpadding": padded,
    }
    x = inputs(total, heads, head_dim, seed=settings.seed)
    for kind, timings in compare(ways, x, settings, report, "packed").items():
        _bar(report, timings, "padding, SDPA, unpadding", f"packed, {kind}", PACKED_PROMISED)
    # what a model with padded batches pays: nothing is packed or unpadded
    wide = inputs(size, heads, longest, head_dim, seed=settings.seed)
    bare: Attention = lambda q, k, v: F.scaled_dot_product_attention(  # noqa: E731  # one of two short ways
        q, k, v, attn_mask=allowed[:, None, None]
    )
    ours = works(ways["mmattn"], x)
    for kind, work in works(bare, wide).items():
        timings = settings.race({"mmattn": ours[kind], "padded SDPA": work}, 100, least=20, warmup=5)
        report.add(Race(f"{kind}, padded all along", timings, "mmattn"))
        _bar(report, timings, "padded SDPA", f"packed, padded all along, {kind}", PACKED_PROMISED)
    return report


def windows(settings: Settings) -> Report:
    """Windows against a dense mask and compiled FlexAttention, which trains here."""
    side, heads, head_dim = 256, 16, 64
    report = Report("windows", f"CUDA: window of {side} either side in bf16")
    for length in (512,) if settings.quick else (4096, 16384):
        ways: dict[str, Attention] = {
            "mmattn": lambda q, k, v: attend(q, k, v, mask=Window(side, side)),
            "SDPA with a dense mask": masked_sdpa(length, side, "cuda"),
        }
        if settings.compile:
            ways["compiled FlexAttention"] = flex(length, side, "cuda")
        x = inputs(1, heads, length, head_dim, seed=settings.seed)
        for kind, timings in compare(ways, x, settings, report, f"L={length}").items():
            for opponent in [name for name in timings if name != "mmattn"]:
                limit = 1 / 1.05 if "Flex" in opponent else 4.0
                _bar(report, timings, opponent, f"window, L={length}, {kind}", limit)
    return report


def _bar(report: Report, timings: dict[str, Timing], opponent: str, name: str, limit: float) -> None:
    compared = ratio(timings[opponent], timings["mmattn"])
    report.bars.append(Bar(f"{name}: {opponent} / ours", compared.of_medians, limit, True, str(compared)))


#: What runs instead of the topic's own module.
RUNS: dict[str, Callable[[Settings], Report]] = {
    "dense": dense,
    "encoder": packed,
    "windows": windows,
    "bf16": cuda_vit.run,
}
