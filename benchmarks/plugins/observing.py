"""What observing costs: statistics of a long sequence, and the weights of one layer of ViT-B.

Each figure is taken in a process of its own, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bars import Bar
from benchmarks.plugins.topic import Topic, markdown
from mmattn.observation import observe

#: Tokens and heads of the long sequence, and the width of a head.
TOKENS, HEADS, WIDTH = 16_384, 8, 64


class Plain(nn.Module):
    """Nothing but the attention of a host."""

    num_heads = HEADS

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries, keys and values ``[B, H, N, K]`` to results of the same shape."""
        return F.scaled_dot_product_attention(q, k, v)


def run() -> Topic:
    """Both, as a topic of ``python -m benchmarks.plugins``."""
    bars = [*statistics(), *weights()]
    rows = [[bar.name, bar.value, bar.note] for bar in bars]
    return Topic("What observing costs", markdown(["figure", "measured", "of"], rows), bars)


def statistics() -> list[Bar]:
    """Statistics at 16,384 tokens and 8 heads: extra peak memory, and the time they take over plain attention's."""
    plain, observed = _measured("long", "plain"), _measured("long", "observed")
    times = _measured("long", "timed")
    size = f"{TOKENS:,} tokens, {HEADS} heads of {WIDTH}, float32"
    seconds = f"observed {times['observed']:.2f} s, plain {times['plain']:.2f} s"
    added = (times["observed"] - times["plain"]) / times["plain"]
    return [
        Bar("statistics: extra peak MiB", (observed["peak"] - plain["peak"]) / 2**20, 64.0, False, size),
        Bar("statistics: time / plain attention", added, 2.5, False, seconds),
    ]


def weights(batches: tuple[int, ...] = (1, 8)) -> list[Bar]:
    """Weights of one layer of ViT-B: extra peak memory as a multiple of the weights."""
    bars = []
    for batch in batches:
        plain, observed = (_measured("vit", how, batch) for how in ("plain", "observed"))
        size = 4 * batch * 12 * 197 * 197
        note = f"weights {size / 2**20:.1f} MiB; the forward pass {plain['peak'] / 2**20:.1f} MiB"
        value = (observed["peak"] - plain["peak"]) / size
        bars.append(
            Bar(f"weights of a ViT-B layer, batch {batch}: extra peak / weights", value, 1.1, False, note)
        )
    return bars


def _measured(what: str, how: str, batch: int = 1) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.plugins.observing", what, how, str(batch)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def _long(how: str, rounds: int = 3) -> dict[str, float]:
    """Peak memory by the high-water mark of the process, or times in turn, the best of some rounds."""
    model = Plain()
    inputs = torch.randn(3, 1, HEADS, TOKENS, WIDTH).unbind()
    if how != "timed":
        _run(model, how, None, False, *inputs)
        return {"peak": _high_water_mark()}
    times: dict[str, list[float]] = {"plain": [], "observed": []}
    for _ in range(rounds):
        for each, found in times.items():
            begin = time.perf_counter()
            _run(model, each, None, False, *inputs)
            found.append(time.perf_counter() - begin)
    return {each: min(found) for each, found in times.items()}


def _high_water_mark() -> int:
    """The most memory that this process held, in bytes; what getrusage says is at least what its parent held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@torch.no_grad()
def _vit(how: str, batch: int) -> dict[str, float]:
    """Peak memory by what torch allocates: the weights are too small for the high-water mark of a process."""
    import timm

    model = timm.create_model("vit_base_patch16_224").eval()
    images = torch.randn(batch, 3, 224, 224)
    _run(model, how, "blocks.5.attn", True, images)
    with torch.profiler.profile(profile_memory=True) as profile:
        kept = _run(model, how, "blocks.5.attn", True, images)
    del kept
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return {"peak": peak}


def _run(model: nn.Module, how: str, layers: str | None, weights: bool, *inputs: Tensor) -> Any:
    if how == "plain":
        return model(*inputs)
    with observe(model, layers=layers, weights=weights) as record:
        out = model(*inputs)
    return out, record


def main() -> None:
    """Print the figures of one process as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["long", "vit"])
    parser.add_argument("how", choices=["plain", "observed", "timed"])
    parser.add_argument("batch", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(_long(given.how) if given.what == "long" else _vit(given.how, given.batch)))


if __name__ == "__main__":
    main()
