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


#: Examples in a batch: those that the bars are for, and one alone, which is only reported. Each attention module
#: costs a fixed time, so that it shows most where there is least to compute.
BATCHES = {"ViT-tiny": (16, 1), "small BERT": (16, 1), "wav2vec2-base": (4, 1)}


def run(budget: float = 20.0) -> Topic:
    """Race each model, plugged and not, in evaluation and in training."""
    rows, bars, facts = [], [], {}
    makers = {"ViT-tiny": vit_tiny, "small BERT": small_bert, "wav2vec2-base": wav2vec2}
    for name, make in makers.items():
        for batch in BATCHES[name]:
            host, loss = make(batch)
            plugged = copy.deepcopy(host)
            plug_in(plugged)
            for kind, work in (("forward", _forward), ("training step", _step)):
                contenders = {"host": [work(host, loss)], "plugged": [work(plugged, loss)]}
                timings: dict[str, Timing] = race(
                    contenders, repeats=60, least=5, budget=budget if batch > 1 else budget / 4, warmup=2
                )
                found = ratio(timings["plugged"], timings["host"])
                milliseconds = [1e3 * timings[side].seconds for side in ("host", "plugged")]
                rows.append([name, batch, kind, *milliseconds, f"{found.of_medians:.3f}", str(found)])
                if batch > 1:
                    label = f"plugging {name}, batch {batch}, {kind}"
                    bars.append(Bar(label, found.of_medians, LIMIT, at_least=False, note=str(found)))
                facts[f"{name}, batch {batch}, {kind}"] = {side: t.rounds for side, t in timings.items()}
    header = ["model", "batch", "work", "host, ms", "plugged, ms", "plugged over host", "by round"]
    return Topic("What plugging in costs", markdown(header, rows), bars, facts)


def vit_tiny(batch: int) -> tuple[nn.Module, Loss]:
    """timm's ViT-tiny, pictures of 224 pixels."""
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model("vit_tiny_patch16_224")
    x = torch.randn(batch, 3, 224, 224)
    return model, lambda m: m(x).square().mean()


def small_bert(batch: int) -> tuple[nn.Module, Loss]:
    """transformers' BERT, 4 layers of width 256, sequences of 64 to 128 tokens, padded."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    model: nn.Module = BertModel(config)
    tokens = torch.randint(1000, (batch, 128))
    mask = (torch.arange(128) < torch.linspace(64, 128, batch)[:, None]).long()
    return model, lambda m: m(tokens, attention_mask=mask).last_hidden_state.square().mean()


def wav2vec2(batch: int) -> tuple[nn.Module, Loss]:
    """torchaudio's wav2vec2-base, waves of 2 s."""
    import torchaudio

    torch.manual_seed(0)
    model: nn.Module = torchaudio.models.wav2vec2_base()
    waves = torch.randn(batch, 32000)
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
