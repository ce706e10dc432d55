"""Decoding one token after another: keys and values cached, against computing all positions again."""

from __future__ import annotations

from typing import Any

import torch

import mmattn
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import ratio
from benchmarks.bars import Bar

DIM, DEPTH, HEADS, STEPS, BATCHES, PROMISED = 256, 4, 4, 512, (1, 8), 20.0


def run(settings: Settings) -> Report:
    """Time and agreement of both ways."""
    embed_dim, depth, steps = (16, 1, 5) if settings.quick else (DIM, DEPTH, STEPS)
    report = Report("decoding", f"Decoding {steps} tokens, D={embed_dim}, {depth} blocks, fp32")
    torch.manual_seed(settings.seed)
    # looked up here, so that the other topics run without it
    decoder = mmattn.build_decoder(embed_dim, depth, HEADS, context=False).to(settings.device).eval()
    for batch in BATCHES:
        x = torch.randn(batch, steps, embed_dim, device=settings.device)
        works: dict[str, list[Any]] = {
            "mmattn cached": [lambda x=x: cached(decoder, x)],
            "recomputing": [lambda x=x: recomputed(decoder, x)],
        }
        timings = settings.race(works, repeats=5, least=2, warmup=0)
        report.add(Race(f"batch {batch}", timings, "mmattn cached", ("s", 1.0)))
        compared = ratio(timings["recomputing"], timings["mmattn cached"])
        name = f"decoding {steps} tokens, batch {batch}: recomputing / cached"
        report.bars.append(Bar(name, compared.of_medians, PROMISED, True, str(compared)))
        with torch.no_grad():
            difference = (cached(decoder, x) - decoder(x)).abs().max().item()
        report.facts[f"largest difference, batch {batch}"] = difference
        report.notes.append(f"- batch {batch}: cached and full differ by at most {difference:.1e}")
    return report


@torch.no_grad()
def cached(decoder: Any, x: torch.Tensor) -> torch.Tensor:
    """Step by step with a cache, ``[B, N, D]`` to the same."""
    state = decoder.start(batch_size=len(x), capacity=x.shape[1])
    return torch.cat([decoder.step(x[:, i : i + 1], state) for i in range(x.shape[1])], dim=1)


@torch.no_grad()
def recomputed(decoder: Any, x: torch.Tensor) -> torch.Tensor:
    """At each step the whole prefix, of which the last token is kept."""
    return torch.cat([decoder(x[:, : i + 1])[:, -1:] for i in range(x.shape[1])], dim=1)
