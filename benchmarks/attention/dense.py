"""One layer of dense self-attention, forward and training step, in fp32 without dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.attention.peers import ATTENTION_LAYERS, seeded
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Ratio, Timing, Work, geometric_mean, ratio
from benchmarks.bars import Bar

#: (B, L, D, H)
SHAPES = ((64, 65, 192, 3), (16, 197, 384, 6), (32, 128, 256, 8), (8, 512, 256, 4), (1, 2048, 256, 4))
QUICK_SHAPES = ((2, 5, 12, 3),)
EACH, MEAN = 1.03, 1.0


def run(settings: Settings) -> Report:
    """Ours against the fastest peer on each shape."""
    report = Report("dense", "Dense self-attention layer, fp32")
    ratios = []
    for shape in QUICK_SHAPES if settings.quick else SHAPES:
        if not settings.wants(str(shape)):
            continue
        for kind, race in measure(shape, settings).items():
            setting = f"{kind}, (B, L, D, H) = {shape}"
            report.add(Race(setting, race, "mmattn"))
            peer, compared = against_fastest(race)
            ratios.append(compared.of_medians)
            note = f"against {peer}; {compared}"
            report.bars.append(Bar(f"{setting}: ours / fastest peer", ratios[-1], EACH, False, note))
    if ratios:
        mean = geometric_mean(ratios)
        report.bars.append(Bar(f"geometric mean of these {len(ratios)}", mean, MEAN, False))
    return report


def against_fastest(timings: dict[str, Timing]) -> tuple[str, Ratio]:
    """The peer that is fastest beside ours of the same biases, and our time over its time."""
    compared = {
        name: ratio(timings["mmattn, no bias" if name == "x-transformers" else "mmattn"], timing)
        for name, timing in timings.items()
        if not name.startswith("mmattn")
    }
    peer = max(compared, key=lambda name: compared[name].of_medians)
    return peer, compared[peer]


def measure(shape: tuple[int, int, int, int], settings: Settings) -> dict[str, dict[str, Timing]]:
    """Timings of all layers, forward and training step."""
    batch, length, embed_dim, num_heads = shape
    torch.manual_seed(settings.seed)
    x = torch.randn(batch, length, embed_dim, device=settings.device, requires_grad=True)
    cotangent = torch.randn_like(x)
    layers = {
        name: seeded(build, embed_dim, num_heads, seed=settings.seed).to(settings.device)
        for name, build in ATTENTION_LAYERS.items()
    }
    forwards = {name: [_forward(layer.eval(), x.detach())] for name, layer in layers.items()}
    found = {"forward": settings.race(forwards, repeats=200, least=20, warmup=3)}
    steps = {name: [_step(layer.train(), x, cotangent)] for name, layer in layers.items()}
    found["step"] = settings.race(steps, repeats=200, least=20, warmup=3)
    return found


def _forward(layer: nn.Module, x: Tensor) -> Work:
    @torch.no_grad()
    def work() -> Tensor:
        out: Tensor = layer(x)
        return out

    return work


def _step(layer: nn.Module, x: Tensor, cotangent: Tensor) -> Work:
    """Forward, and backward to the input and all weights."""

    def work() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(cotangent)

    return work
