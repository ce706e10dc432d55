"""Ways to compute attention: one file each; ``choose`` picks one, ``explain`` says why."""

from __future__ import annotations

from dataclasses import dataclass

from mmattn.backends.base import Backend, Bias, BiasFunction, Call, Mask, Terms
from mmattn.backends.cpu import Calibration, CpuBackend, use_calibration
from mmattn.backends.flex import FlexBackend
from mmattn.backends.math import MathBackend, attention_weights
from mmattn.backends.sdpa import SdpaBackend
from mmattn.backends.varlen import VarlenBackend

#: In order of preference: ``auto`` takes the first that neither refuses nor declines.
BACKENDS: tuple[Backend, ...] = (CpuBackend(), VarlenBackend(), FlexBackend(), SdpaBackend(), MathBackend())


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


def choose(call: Call, backend: str | Backend = "auto") -> Backend:
    """The backend for a call.

    Raises:
        ValueError: the name is unknown, or the backend asked for cannot run the call; the message says why.
    """
    if backend == "auto":
        for candidate in BACKENDS:
            if candidate.refusal(call) is None and candidate.reluctance(call) is None:
                return candidate
        reasons = "; ".join(f"{b.name}: {b.refusal(call) or b.reluctance(call)}" for b in BACKENDS)
        raise ValueError(f"no backend can run this call: {reasons}")
    check_name(backend)
    chosen = next(b for b in BACKENDS if b.name == backend) if isinstance(backend, str) else backend
    refusal = chosen.refusal(call)
    if refusal is not None:
        raise ValueError(f"backend {chosen.name!r} cannot run this call: {refusal}")
    return chosen


def explain(call: Call, backend: str | Backend = "auto") -> Explanation:
    """What :func:`choose` would take, and why not another.

    Raises:
        ValueError: as :func:`choose`.
    """
    chosen = choose(call, backend)
    others = [b for b in BACKENDS if b is not chosen]
    if backend != "auto":
        return Explanation(
            chosen.name, "it was asked for", {b.name: f"{chosen.name} was asked for" for b in others}
        )
    merit = chosen.merit(call)
    reasons = {
        b.name: b.refusal(call) or b.reluctance(call) or f"{chosen.name} comes first: {merit}" for b in others
    }
    return Explanation(chosen.name, merit, reasons)


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


__all__ = [
    "BACKENDS",
    "Backend",
    "Bias",
    "BiasFunction",
    "Calibration",
    "Call",
    "CpuBackend",
    "Explanation",
    "FlexBackend",
    "Mask",
    "MathBackend",
    "SdpaBackend",
    "Terms",
    "VarlenBackend",
    "attention_weights",
    "check_name",
    "choose",
    "explain",
    "use_calibration",
]
