"""Scripted situations: what ``explain`` must choose, and the words that must stand in its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention.settings import Report, Settings
from benchmarks.bars import Bar
from mmattn import Backend, Causal, Window, explain
from mmattn.backends import Call, Terms

PROMISED = 12


@dataclass(frozen=True)
class Situation:
    """One call of ``explain`` and what it must say.

    Attributes:
        name: the situation in words.
        call: gives the explanation, or raises where a forced backend refuses.
        chosen: the backend that must be chosen; ``None`` where the call must be refused.
        words: must stand in the reason, in the refusal of ``other``, or in the error.
        other: a backend that is not chosen, whose reason is looked at.
        device: it is skipped on other devices; ``None`` is any.
    """

    name: str
    call: Callable[[str], Any]
    chosen: str | None
    words: str
    other: str | None = None
    device: str | None = None

    def problem(self, device: str) -> str | None:
        """What is wrong with the answer, or ``None``."""
        try:
            explanation = self.call(device)
        except ValueError as error:
            said, chosen = str(error), None
        else:
            chosen = explanation.chosen
            said = explanation.reason if self.other is None else explanation.others.get(self.other, "")
        if chosen != self.chosen:
            return f"chose {chosen}, not {self.chosen}"
        return None if self.words in said else f"said {said!r}, without {self.words!r}"


def dense(
    device: str, batch: int = 2, heads: int = 4, length: int = 16, head_dim: int = 8
) -> tuple[Any, ...]:
    """q, k and v ``[B, H, L, K]``."""
    return tuple(torch.randn(batch, heads, length, head_dim, device=device) for _ in range(3))


def packed(device: str, tokens: int = 16, heads: int = 4, head_dim: int = 8) -> tuple[Any, ...]:
    """q, k and v ``[T, H, K]``."""
    return tuple(torch.randn(tokens, heads, head_dim, device=device) for _ in range(3))


def grads(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same, wanting gradients."""
    return tuple(x.requires_grad_() for x in tensors)


class Own(Backend):
    """A backend of one's own that takes float64 alone."""

    name = "own"

    def refusal(self, call: Call) -> str | None:
        return None if call.dtype == torch.float64 else f"it needs float64, got {call.dtype}"

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        return v


CPU: dict[str, Any] = {"device": "cpu"}
SITUATIONS = (
    Situation("dense, nothing special", lambda d: explain(*dense(d)), "cpu", "the kernel 'flash'", **CPU),
    Situation(
        "training in bfloat16, short sequences",
        lambda d: explain(*grads(tuple(x.bfloat16() for x in dense(d, length=64)))),
        "cpu",
        "the kernel 'plain'",
        **CPU,
    ),
    Situation(
        "the reason for a kernel is its time on this machine",
        lambda d: explain(*dense(d, length=64)),
        "cpu",
        "ms at 64 keys",
        **CPU,
    ),
    Situation(
        "dropped weights",
        lambda d: explain(*grads(dense(d)), dropout=0.1),
        "cpu",
        "the only kernel for such a call",
        **CPU,
    ),
    Situation(
        "packed and causal",
        lambda d: explain(*packed(d), mask=Causal(), q_lengths=[9, 7]),
        "cpu",
        "grouped by length",
        **CPU,
    ),
    Situation(
        "a long window",
        lambda d: explain(*dense(d, length=2048), mask=Window(64, 64)),
        "cpu",
        "blocks",
        **CPU,
    ),
    Situation("a soft cap", lambda d: explain(*dense(d), soft_cap=30.0), "math", "no soft cap", "cpu", **CPU),
    Situation(
        "sinks",
        lambda d: explain(*dense(d), sinks=torch.zeros(4)),
        "sdpa",
        "no sinks",
        "cpu",
        **CPU,
    ),
    Situation("integers", lambda d: explain(*(x.long() for x in dense(d))), "math", "floating-point", "sdpa"),
    Situation(
        "dense, math asked for", lambda d: explain(*dense(d), backend="math"), "math", "it was asked for"
    ),
    Situation(
        "FlexAttention asked to train on a CPU",
        lambda d: explain(*grads(dense(d, head_dim=16)), backend="flex"),
        None,
        "no backward pass on a CPU",
        **CPU,
    ),
    Situation(
        "varlen asked for on a CPU",
        lambda d: explain(*packed(d), q_lengths=[9, 7], backend="varlen"),
        None,
        "it runs on CUDA, got cpu",
        **CPU,
    ),
    Situation(
        "varlen asked for a dense call",
        lambda d: explain(*dense(d), backend="varlen"),
        None,
        "packed sequences",
    ),
    Situation(
        "why not flex on a CPU", lambda d: explain(*dense(d, head_dim=16)), "cpu", "a CPU", "flex", **CPU
    ),
    Situation(
        "a backend that does not exist",
        lambda d: explain(*dense(d), backend="magic"),
        None,
        "backend must be 'auto'",
    ),
    Situation(
        "a backend of one's own",
        lambda d: explain(*(x.double() for x in dense(d)), backend=Own()),
        "own",
        "it was asked for",
    ),
    Situation(
        "a backend of one's own that refuses",
        lambda d: explain(*dense(d), backend=Own()),
        None,
        "it needs float64",
    ),
)


def run(settings: Settings) -> Report:
    """How many situations are answered rightly."""
    report = Report("explain", "Situations that explain() was asked about")
    situations = [s for s in SITUATIONS if s.device in (None, settings.device)]
    problems = {s.name: s.problem(settings.device) for s in situations}
    right = sum(problem is None for problem in problems.values())
    report.notes += [f"- {name}: {problem or 'right'}" for name, problem in problems.items()]
    report.facts["situations"] = {name: problem or "right" for name, problem in problems.items()}
    report.bars.append(Bar("situations that explain() answers rightly", right, PROMISED))
    report.bars.append(Bar("situations that it answers wrongly", len(situations) - right, 0, False))
    return report
