"""Attention inside a window: against a dense mask, compiled FlexAttention, and itself at another length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Timing, Work, ratio
from benchmarks.bars import Bar
from mmattn import Window, attend

HEADS, HEAD_DIM, SIDE, LENGTH, SHORT, LONG = 4, 64, 256, 4096, 2048, 32768

#: (q, k, v), each [1, H, L, K], to [1, H, L, K].
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def run(settings: Settings) -> Report:
    """Forward, training step and growth, on one thread of a CPU.

    FlexAttention compiled for a CPU corrupts memory with several threads (seen with torch 2.11), so nobody gets
    more than one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(settings)
    finally:
        torch.set_num_threads(threads)


def _measured(settings: Settings) -> Report:
    length, side, short, long = (64, 8, 32, 64) if settings.quick else (LENGTH, SIDE, SHORT, LONG)
    title = f"Window of {side} either side, {HEADS} heads of {HEAD_DIM}, batch 1, one thread"
    report = Report("windows", title)
    window = Window(side, side)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, mask=window)

    opponents = {"SDPA with a dense mask": masked_sdpa(length, side, settings.device)}
    if settings.compile and not settings.quick:
        opponents["compiled FlexAttention"] = flex(length, side, settings.device)
    forwards = {name: [forward(fn, length, settings)] for name, fn in {"mmattn": ours, **opponents}.items()}
    timings = settings.race(forwards, repeats=60, least=10, warmup=3)
    _add(report, f"forward, L={length}", timings)
    _bar(report, timings, "SDPA with a dense mask", "forward", 4.5)
    if "compiled FlexAttention" in timings:
        _bar(report, timings, "compiled FlexAttention", "forward", 1.4)
    elif not settings.quick:
        report.notes.append("- compiled FlexAttention left out: --no-compile")
    trained = {"mmattn": ours, "SDPA with a dense mask": opponents["SDPA with a dense mask"]}
    timings = settings.race(
        {name: [training_step(fn, length, settings)] for name, fn in trained.items()},
        repeats=30,
        least=8,
        warmup=2,
    )
    _add(report, f"training step, L={length}", timings)
    _bar(report, timings, "SDPA with a dense mask", "training step", 4.0)
    for kind, make in (("forward", forward), ("training step", training_step)):
        timings = settings.race(
            {f"L={n}": [make(ours, n, settings)] for n in (short, long)}, repeats=20, least=5, warmup=2
        )
        report.add(Race(f"mmattn, {kind}", timings, f"L={short}"))
        compared = ratio(timings[f"L={long}"], timings[f"L={short}"])
        name = f"window, {kind}: time at L={long} / L={short}, over {long // short}"
        report.bars.append(
            Bar(name, compared.of_medians / (long // short), 1.1, False, f"{compared}, undivided")
        )
    return report


def masked_sdpa(length: int, side: int, device: str) -> Attention:
    """torch's fused attention with a boolean ``[L, L]`` mask, made beforehand."""
    at = torch.arange(length, device=device)
    mask = (at[:, None] - at).abs() <= side
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flex(length: int, side: int, device: str) -> Attention:
    """Compiled FlexAttention with a block mask made beforehand; on a CPU it has no backward."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= side

    blocks = create_block_mask(near, None, None, length, length, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = compiled(q, k, v, block_mask=blocks)
        assert isinstance(out, Tensor)
        return out

    return call


def tensors(length: int, settings: Settings, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random q, k, v and cotangent ``[1, H, L, K]``."""
    torch.manual_seed(settings.seed)
    return [torch.randn(1, HEADS, length, HEAD_DIM, device=settings.device, dtype=dtype) for _ in range(4)]


def forward(attention: Attention, length: int, settings: Settings) -> Work:
    """One call without gradients."""
    q, k, v, _ = tensors(length, settings)

    @torch.no_grad()
    def work() -> Tensor:
        return attention(q, k, v)

    return work


def training_step(attention: Attention, length: int, settings: Settings) -> Work:
    """Forward, and backward to q, k and v."""
    *inputs, cotangent = tensors(length, settings)
    q, k, v = (x.requires_grad_() for x in inputs)

    def work() -> None:
        q.grad = k.grad = v.grad = None
        attention(q, k, v).backward(cotangent)

    return work


def _add(report: Report, setting: str, timings: dict[str, Timing]) -> None:
    report.add(Race(setting, timings, "mmattn"))


def _bar(report: Report, timings: dict[str, Timing], opponent: str, kind: str, limit: float) -> None:
    compared = ratio(timings[opponent], timings["mmattn"])
    report.bars.append(
        Bar(f"window, {kind}: {opponent} / ours", compared.of_medians, limit, True, str(compared))
    )
