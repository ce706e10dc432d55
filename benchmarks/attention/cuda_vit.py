"""A training step of ViT-B/16 on a CUDA device, and the share of the device's peak that it reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.attention import learnable, steps
from benchmarks.attention.peers import seeded, vision_transformer
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Work
from benchmarks.attention.vit import Pictures, VisionTransformer

#: bf16 products in one second without sparsity, from the makers' data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}

VIT_B = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "num_classes": 1000,
}


def run(settings: Settings) -> Report:
    """A training step of ViT-B/16 in bf16: time beside timm's, and the share of the device's peak."""
    report = Report("bf16", "CUDA: training step of ViT-B/16 in bf16")
    sizes: dict[str, Any] = VIT_B | ({"depth": 1} if settings.quick else {})
    size = 2 if settings.quick else 128
    (batch,) = learnable.pictures(sizes["img_size"], 1, size, settings.seed)
    batch = Pictures(batch.values.cuda(), batch.labels.cuda())
    models = {
        "mmattn": seeded(VisionTransformer, **sizes),
        "timm": seeded(vision_transformer, "sdpa", **sizes),
    }
    if settings.compile and not settings.quick:
        models |= {f"{name} compiled": model for name, model in models.items()}
    contenders: dict[str, list[Work]] = {}
    for name, model in models.items():
        model.cuda().train()
        called = torch.compile(model) if name.endswith("compiled") else model
        step = steps.trainer(model, lambda b, called=called: called(b.values), True, "cuda")  # type: ignore[misc]
        try:
            step(batch)
        except Exception as error:  # of the compiler, or out of memory: the others still run
            report.notes.append(f"- {name} left out, {type(error).__name__}: {str(error)[:200]}")
        else:
            contenders[name] = [lambda step=step: step(batch)]  # type: ignore[misc]  # mypy cannot infer defaults
    with FlopCounterMode(display=False) as counter:
        contenders["mmattn"][0]()
    flops = counter.get_total_flops()
    timings = settings.race(contenders, repeats=30, least=10, warmup=4)
    report.add(Race(f"batch {size}", timings, "mmattn"))
    device = torch.cuda.get_device_name()
    peak = next((value for name, value in PEAK.items() if name in device), None)
    product = matrix_product_speed(settings)
    report.facts |= {"flops": flops, "peak": peak, "product": product}
    for name, timing in timings.items():
        speed = flops / timing.seconds
        share = "unknown peak" if peak is None else f"MFU {speed / peak:.1%}"
        report.notes.append(
            f"- {name}: {speed / 1e12:.0f} TFLOP/s, {share}; a large product runs at {product / 1e12:.0f} TFLOP/s"
        )
    return report


def matrix_product_speed(settings: Settings, side: int = 8192) -> float:
    """FLOP/s of a large bf16 product: what can be had in practice."""
    x = torch.randn(side, side, device="cuda", dtype=torch.bfloat16)
    timing = settings.race({"product": [lambda: x @ x]}, repeats=20, least=5, warmup=3)["product"]
    return 2 * side**3 / timing.seconds
