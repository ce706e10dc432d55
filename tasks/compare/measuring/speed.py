"""How fast heads are in one step and in a loop, and attention beside recurrence over length."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmattn.report.measures import Measures
from mmattn.training.record import cpu_name
from tasks.compare.measuring.contenders import contenders, inference, training_step

Step = Callable[[], None]

_MODES: dict[str, Callable[[nn.Module, Tensor], Step]] = {"train": training_step, "infer": inference}
_SEED = 70001


@dataclass(frozen=True)
class Pace:
    """What is timed, and how often.

    Attributes:
        lengths: tokens in a sequence.
        batch: sequences.
        rounds: in each of which everything runs once, so that what disturbs the machine disturbs all alike.
        seconds: a step that is shorter is repeated within a round until it takes about so long.
        embed_dim: width D.
        depth: layers of the encoder and of the recurrent networks.
        num_heads: heads H.
        threads: numbers of threads that a training step of attention is timed with; ``None``: 1, 2, 4, ... as far as
            there are cores.

    Raises:
        ValueError: a number is below 1.
    """

    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batch: int = 4
    rounds: int = 15
    seconds: float = 0.01
    embed_dim: int = 96
    depth: int = 2
    num_heads: int = 4
    threads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        numbers = (*self.lengths, self.batch, self.rounds, self.embed_dim, self.depth, self.num_heads)
        least = min((*numbers, *(self.threads or ())))
        if least < 1:
            raise ValueError(f"Pace must have lengths, counts and sizes of at least 1: got {least}")

    def threads_or_all(self) -> tuple[int, ...]:
        """The numbers of threads to time with."""
        cores = os.cpu_count() or 1
        return self.threads or tuple(2**k for k in range(cores.bit_length()) if 2**k <= cores)


def measure_speed(pace: Pace = Pace(), *, seed: int = 0) -> Measures:
    """Time everything in interleaved rounds on this machine, with torch's present number of threads.

    Names in ``repeats`` are ``<what>/<mode>/<length>``, in seconds of one step: ``fused``, ``loop``, ``attention``,
    ``lstm``, ``gru``; ``train`` (forward and backward) and ``infer``; and ``attention_threads<k>/train/<length>``.
    Where torch sees a CUDA device, its times stand beside them as ``<what>_cuda/...``.

    Args:
        pace: what is timed, and how often.
        seed: under which the result is kept.
    """
    repeats: dict[str, list[float]] = {}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(_SEED)
        for length in pace.lengths:
            for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                steps = _steps(pace, length, device)
                repeats |= _timed(steps, pace)
            repeats |= _threaded(pace, length)
    found = {
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_device_name()
    return Measures(domain="speed", arm="speed", seed=seed, repeats=repeats, environment=found)


def _steps(pace: Pace, length: int, device: str) -> dict[str, Step]:
    """What is to be timed at a length, by name."""
    steps = {}
    for what, model in contenders(pace.embed_dim, pace.depth, pace.num_heads).items():
        x = torch.randn(pace.batch, length, pace.embed_dim).to(device)
        for mode, made in _MODES.items():
            name = what if device == "cpu" else f"{what}_{device}"
            steps[f"{name}/{mode}/{length}"] = _waiting(made(model.to(device), x), device)
    return steps


def _waiting(step: Step, device: str) -> Step:
    """On CUDA, a step that ends when its work has."""
    if device == "cpu":
        return step

    def waited() -> None:
        step()
        torch.cuda.synchronize()

    return waited


def _threaded(pace: Pace, length: int) -> dict[str, list[float]]:
    """A training step of attention with several numbers of threads."""
    model = contenders(pace.embed_dim, pace.depth, pace.num_heads)["attention"]
    step = training_step(model, torch.randn(pace.batch, length, pace.embed_dim))

    def with_threads(count: int) -> Step:
        def run() -> None:
            with _threads(count):
                step()

        return run

    counts = pace.threads_or_all()
    return _timed({f"attention_threads{n}/train/{length}": with_threads(n) for n in counts}, pace)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(steps: dict[str, Step], pace: Pace) -> dict[str, list[float]]:
    """Seconds of each step in each round; those before the first warm up and tell how often to repeat."""
    times = {}
    for name, step in steps.items():
        step()
        times[name] = max(1, round(pace.seconds / max(_seconds(step, 1), 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(pace.rounds):
        for name, step in steps.items():
            found[name].append(_seconds(step, times[name]))
    return found


def _seconds(step: Step, times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - begin) / times
