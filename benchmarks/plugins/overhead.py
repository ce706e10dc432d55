"""What plugging in costs: forward and training step of a plugged model over those of its host, in one race."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attention.timing import Timing, race, ratio
from benchmarks.bars import Bar
from benchmarks.plugins.topic import Topic, markdown
from mmattn import plug_in

#: Time of the plugged model over that of its host.
LIMIT = 1.03

Loss = Callable[[nn.Module], Tensor]


def run(budget: float = 30.0) -> Topic:
    """Race each model, plugged and not, in evaluation and in training."""
    rows, bars, facts = [], [], {}
    for name, (model, loss) in {
        "ViT-tiny": vit_tiny(),
        "small BERT": small_bert(),
        "wav2vec2-base": wav2vec2(),
    }.items():
        host, plugged = model, copy.deepcopy(model)
        plug_in(plugged)
        for kind, work in (("forward", _forward), ("training step", _step)):
            contenders = {"host": [work(host, loss)], "plugged": [work(plugged, loss)]}
            timings: dict[str, Timing] = race(contenders, repeats=60, least=5, budget=budget, warmup=2)
            found = ratio(timings["plugged"], timings["host"])
            milliseconds = [1e3 * timings[side].seconds for side in ("host", "plugged")]
            rows.append([name, kind, *milliseconds, f"{found.of_medians:.3f}", str(found)])
            bars.append(Bar(f"plugging {name}, {kind}", found.of_medians, LIMIT, at_least=False))
            facts[f"{name}, {kind}"] = {side: timing.rounds for side, timing in timings.items()}
    header = ["model", "work", "host, ms", "plugged, ms", "plugged over host", "by round"]
    return Topic("What plugging in costs", markdown(header, rows), bars, facts)


def vit_tiny() -> tuple[nn.Module, Loss]:
    """timm's ViT-tiny, 224 pixels, 4 pictures."""
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model("vit_tiny_patch16_224")
    x = torch.randn(4, 3, 224, 224)
    return model, lambda m: m(x).square().mean()


def small_bert() -> tuple[nn.Module, Loss]:
    """transformers' BERT, 4 layers of width 256, 8 sequences of up to 128 tokens, a quarter of them padding."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    model: nn.Module = BertModel(config)
    tokens = torch.randint(1000, (8, 128))
    mask = (torch.arange(128) < torch.linspace(64, 128, 8)[:, None]).long()
    return model, lambda m: m(tokens, attention_mask=mask).last_hidden_state.square().mean()


def wav2vec2() -> tuple[nn.Module, Loss]:
    """torchaudio's wav2vec2-base, 2 waves of 2 s."""
    import torchaudio

    torch.manual_seed(0)
    model: nn.Module = torchaudio.models.wav2vec2_base()
    waves = torch.randn(2, 32000)
    return model, lambda m: m(waves)[0].square().mean()


def _forward(model: nn.Module, loss: Loss) -> Callable[[], Any]:
    def work() -> None:
        model.eval()
        with torch.no_grad():
            loss(model)

    return work


def _step(model: nn.Module, loss: Loss) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def work() -> None:
        model.train()
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()

    return work
