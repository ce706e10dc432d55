"""Ways to compute attention: one file each; ``choose`` picks one and says why."""

from __future__ import annotations

from dataclasses import dataclass

from mmattn.backends.base import Backend, Call
from mmattn.backends.math import MathBackend, attention_weights
from mmattn.backends.sdpa import SdpaBackend

#: In order of preference: ``auto`` takes the first that does not refuse.
BACKENDS: tuple[Backend, ...] = (SdpaBackend(), MathBackend())


@dataclass(frozen=True)
class Explanation:
    """Which backend runs a call, and why not the others.

    Attributes:
        chosen: name of the backend.
        reason: why it was chosen.
        others: for each other backend, why it was not.
    """

    chosen: str
    reason: str
    others: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.chosen}: {self.reason}"]
        return "\n".join(lines + [f"not {name}: {why}" for name, why in self.others.items()])


def choose(call: Call, backend: str | Backend = "auto") -> tuple[Backend, Explanation]:
    """The backend for a call, with its explanation.

    Raises:
        ValueError: the name is unknown, or the backend asked for cannot run the call; the message says why.
    """
    if backend != "auto":
        return _forced(call, backend)
    refusals: dict[str, str] = {}
    for position, candidate in enumerate(BACKENDS):
        refusal = candidate.refusal(call)
        if refusal is None:
            later = {
                b.name: f"{candidate.name} comes first: {candidate.merit(call)}"
                for b in BACKENDS[position + 1 :]
            }
            return candidate, Explanation(candidate.name, candidate.merit(call), refusals | later)
        refusals[candidate.name] = refusal
    raise ValueError("no backend can run this call: " + "; ".join(f"{k}: {v}" for k, v in refusals.items()))


def check_name(backend: str | Backend) -> None:
    """Refuse the name of a backend that does not exist.

    Raises:
        ValueError: the name is neither ``"auto"`` nor that of a backend.
    """
    names = [b.name for b in BACKENDS]
    if isinstance(backend, str) and backend not in ("auto", *names):
        raise ValueError(
            f"backend must be 'auto', {', '.join(map(repr, names))} or an object: got {backend!r}"
        )


def _forced(call: Call, backend: str | Backend) -> tuple[Backend, Explanation]:
    check_name(backend)
    if isinstance(backend, str):
        backend = next(b for b in BACKENDS if b.name == backend)
    refusal = backend.refusal(call)
    if refusal is not None:
        raise ValueError(f"backend {backend.name!r} cannot run this call: {refusal}")
    others = {b.name: f"{backend.name} was asked for" for b in BACKENDS if b.name != backend.name}
    return backend, Explanation(backend.name, "it was asked for", others)


__all__ = [
    "BACKENDS",
    "Backend",
    "Call",
    "Explanation",
    "MathBackend",
    "SdpaBackend",
    "attention_weights",
    "check_name",
    "choose",
]
