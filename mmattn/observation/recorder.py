"""From the calls of a model to what is kept of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch

from mmattn.observation.calls import Call
from mmattn.observation.findings import Wanted, kept, missing, summed
from mmattn.observation.record import ObservedCall, ObservedModule
from mmattn.observation.reduction import Reduced


class RecordTooLarge(MemoryError):
    """A record would take more memory than it may."""


class Recorder:
    """Keeps what is wanted of each call, within a bound of memory; calls may come from several threads."""

    def __init__(self, modules: Mapping[str, ObservedModule], wanted: Wanted) -> None:
        self._modules = modules
        self._wanted = wanted
        self._held = 0
        self._lock = threading.Lock()

    def take(self, name: str, call: Call) -> None:
        """One more call of a module.

        Raises:
            RecordTooLarge: the record would grow beyond its bound.
            ValueError: there is no such head.
        """
        # results are plain tensors, in inference mode as well
        with torch.inference_mode(False), torch.no_grad():
            heads = self._wanted.heads_of(name, call.num_heads)
            if heads != tuple(range(call.num_heads)):
                call = call.of_heads(heads)
            module = self._modules[name]
            if module.reduced is None:
                self._keep(module, heads, call)
            else:
                self._reduce(module.reduced, heads, call)

    def _keep(self, module: ObservedModule, heads: tuple[int, ...], call: Call) -> None:
        q_lengths, k_lengths = call.q_lengths, call.k_lengths
        b, h, n, m = len(q_lengths), len(heads), max(q_lengths, default=0), max(k_lengths, default=0)
        numbers = b * h * (n * m + n) if self._wanted.weights else b * h * (4 * n + m)
        self._reserve(module.name, numbers * call.dtype.itemsize, (b, h, n, m))
        found, later = kept(call, (b, h, n, m), self._wanted)
        done = ObservedCall(
            module.name, heads, torch.tensor(q_lengths), torch.tensor(k_lengths), found,
            missing(module.name, call, self._wanted.weights), later, call.explanation,
        )  # fmt: skip
        with self._lock:
            module.calls.append(done)

    def _reduce(self, reduced: Reduced, heads: tuple[int, ...], call: Call) -> None:
        with self._lock:
            reduced.begin(heads, missing(reduced.name, call, self._wanted.weights))
        for run in call.runs:
            _, h, n, m = run.shape
            if 0 in run.shape:  # nobody looks, or there is nothing to see
                continue
            with self._lock:
                room = reduced.room(h, n, m, self._wanted.weights)
            # one sequence's weights are written at a time, beside their sum
            self._reserve(reduced.name, room, (1, h, n, m))
            found, total = summed(run, self._wanted.first_keys, self._wanted.weights and reduced.even)
            with self._lock:
                reduced.add(found, total)

    def _reserve(self, name: str, needed: int, shape: tuple[int, int, int, int]) -> None:
        with self._lock:
            if self._held + needed <= self._wanted.max_bytes:
                self._held += needed
                return
            held = self._held
        what = "weights" if self._wanted.weights else "statistics"
        raise RecordTooLarge(
            f"a record must stay within max_bytes={self._wanted.max_bytes}, choose layers or heads, reduce, or "
            f"leave weights out: got {held + needed} with the {what} of {name!r}, [B, H, N, M] = {list(shape)}"
        )
