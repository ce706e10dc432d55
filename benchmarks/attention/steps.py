"""Training steps, the same for every contender: zero gradients, forward, loss, backward, fused AdamW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.attention.data import Batch
from benchmarks.attention.peers import ENCODERS, How, PaddedClassifier
from benchmarks.attention.timing import Timing, Work, fastest, ratio
from mmattn import TokenBatch, build_classifier, build_encoder

CLASSES, DEPTH, HEADS = 10, 4, 4


class Labelled(Protocol):
    """A batch whose items have a class."""

    @property
    def labels(self) -> Tensor:
        """``[B]``."""
        ...


B = TypeVar("B", bound=Labelled)


def autocast(bf16: bool, device: str = "cpu") -> AbstractContextManager[object]:
    """bfloat16 autocast, or nothing."""
    return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()


def trainer(
    model: nn.Module, forward: Callable[[B], Tensor], bf16: bool, device: str = "cpu", lr: float = 1e-4
) -> Callable[[B], Tensor]:
    """One training step of a model: batch to loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)

    def step(batch: B) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        with autocast(bf16, device):
            loss = F.cross_entropy(forward(batch), batch.labels.to(device))
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


class PackedClassifier(nn.Module):
    """Our encoder, mean of each sequence, linear layer."""

    def __init__(self, embed_dim: int, dropout: float, hidden_dropout: float | None = None) -> None:
        super().__init__()
        self.encoder = build_encoder(
            embed_dim, DEPTH, HEADS, dropout=dropout, hidden_dropout=hidden_dropout,
            attention_dropout=dropout, positions="none",
        )  # fmt: skip
        self.head = build_classifier(embed_dim, CLASSES, pool="mean")

    def forward(self, batch: Batch) -> Tensor:
        """``[B, classes]``; the token batch is made anew, as in a real step."""
        logits: Tensor = self.head(self.encoder(TokenBatch(batch.values, batch.lengths)))
        return logits


def ours(
    embed_dim: int, dropout: float, bf16: bool, seed: int = 0, device: str = "cpu", hidden: bool = True
) -> Callable[[Batch], Tensor]:
    """A training step of our 4-block encoder; ``hidden``: whether hidden features are dropped too."""
    torch.manual_seed(seed)
    model = PackedClassifier(embed_dim, dropout, None if hidden else 0.0).to(device).train()
    return trainer(model, model, bf16, device)


#: What is added to the name of ours where hidden features are not dropped: BERT drops none.
NO_HIDDEN = ", no hidden dropout"


def ours_in_all_precisions(
    embed_dim: int, dropout: float, seed: int, device: str
) -> dict[str, Callable[[Batch], Tensor]]:
    """Ours in fp32 and bf16, and, with dropout, with hidden features dropped and not."""
    return {
        f"mmattn {precision}{'' if hidden else NO_HIDDEN}": ours(
            embed_dim, dropout, precision == "bf16", seed, device, hidden
        )
        for precision in ("fp32", "bf16")
        for hidden in ((True, False) if dropout else (True,))
    }


def nearest(timings: Mapping[str, Timing]) -> tuple[str, str]:
    """The peer that comes nearest to ours, and ours of the same dropout places: ``(peer, ours)``.

    BERT drops no hidden features, so ours drops none beside it; beside all others it does.
    """
    pairs = []
    for name in timings:
        if name.startswith("mmattn"):
            continue
        alike = [
            key
            for key in timings
            if key.startswith("mmattn") and (name.startswith("transformers") or NO_HIDDEN not in key)
        ]
        mine = fastest({key: timings[key] for key in alike})
        pairs.append((ratio(timings[name], timings[mine]).of_medians, name, mine))
    _, peer_name, mine = min(pairs)
    return peer_name, mine


def peer(
    name: str,
    embed_dim: int,
    dropout: float,
    bf16: bool = False,
    how: How = "sdpa",
    *,
    compiled: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Callable[[Batch], Tensor]:
    """A training step of a peer's 4-block encoder; ``compiled``: with ``torch.compile(dynamic=True)``."""
    torch.manual_seed(seed)
    encoder = ENCODERS[name](embed_dim, DEPTH, HEADS, dropout, how)
    model: nn.Module = PaddedClassifier(encoder, embed_dim, CLASSES).to(device).train()
    run = torch.compile(model, dynamic=True) if compiled else model
    return trainer(model, lambda batch: run(*batch.padded), bf16, device)


def items(step: Callable[[Batch], Tensor], batches: list[Batch]) -> list[Work]:
    """The step on each batch, as items of a race."""
    return [lambda batch=batch: step(batch) for batch in batches]  # type: ignore[misc]  # mypy cannot infer it
