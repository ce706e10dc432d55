"""Whether a model computes the same before and after plugging in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

#: Largest differences, over the largest number of the tensor: of outputs, and of gradients.
OUTPUTS, GRADIENTS = 1e-5, 1e-4
#: What the tolerances grow by in dtypes of fewer digits.
_COARSER = {torch.bfloat16: 4096.0, torch.float16: 512.0}

Sample = Tensor | tuple[Any, ...] | Mapping[str, Any] | Callable[[nn.Module], Any]


class VerificationError(RuntimeError):
    """A plugged model computes something else than its host."""


@dataclass
class Snapshot:
    """What a model gives for a sample.

    Attributes:
        outputs: all floating-point tensors of the result, by place.
        gradients: by parameter name, of a fixed weighted sum of the outputs; no entry where there is none.
    """

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def take(model: nn.Module, sample: Sample) -> Snapshot:
    """Outputs and gradients for a sample, with dropout off; leaves gradients, modes and random numbers alone."""
    with _evaluating(model), torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        outputs = _tensors(_called(model, sample))
        weights = torch.Generator().manual_seed(0)
        loss = sum(
            (x.float() * torch.randn(x.shape, generator=weights).to(x.device)).sum()
            for x in outputs.values()
            if x.requires_grad
        )
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        grads: dict[str, Tensor] = {}
        if isinstance(loss, Tensor) and named:
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            grads = {name: g for name, g in zip(named, found, strict=True) if g is not None}
    return Snapshot({name: x.detach() for name, x in outputs.items()}, grads)


def check(before: Snapshot, after: Snapshot) -> None:
    """Compare two snapshots.

    Numbers that were NaN before are left out: a query without any key is NaN in some hosts, and zero in the core.

    Raises:
        VerificationError: they differ by more than 1e-5 (outputs) or 1e-4 (gradients) of the largest number;
            in half precision by what its digits allow.
    """
    for what, limit, old, new in (
        ("outputs", OUTPUTS, before.outputs, after.outputs),
        ("gradients", GRADIENTS, before.gradients, after.gradients),
    ):
        if old.keys() != new.keys():
            raise VerificationError(
                f"plugging in must keep the {what}: got {sorted(new.keys() ^ old.keys())} in one of two runs"
            )
        # a gradient that is zero but for rounding, such as that of a bias of keys, has no scale of its own
        floor = 1e-2 * max(map(_largest, old.values()), default=0.0)
        for name, x in old.items():
            allowed = limit * _COARSER.get(x.dtype, 1.0)
            found = difference(x, new[name], max(_largest(x), floor))
            if not found <= allowed:
                raise VerificationError(
                    f"plugging in must keep the {what} to {allowed:.0e} of their scale: got {found:.1e} in {name}"
                )


def difference(old: Tensor, new: Tensor, scale: float | None = None) -> float:
    """The largest difference over the largest number of ``old``; infinite where shapes differ or NaN appears."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return float("inf")
    known = ~old.isnan()
    old, new = old[known].double(), new[known].double()
    if not old.numel():
        return 0.0
    gap = (old - new).abs().masked_fill(old == new, 0.0)  # infinities that agree
    worst = float(gap.max())
    scale = _largest(old) if scale is None else scale
    return float("inf") if worst != worst else worst / max(scale, torch.finfo(torch.float32).tiny)


def _largest(x: Tensor) -> float:
    finite = x[x.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _called(model: nn.Module, sample: Sample) -> Any:
    if isinstance(sample, Tensor):
        return model(sample)
    if isinstance(sample, tuple):
        return model(*sample)
    if isinstance(sample, Mapping):
        return model(**sample)
    return sample(model)


def _tensors(result: Any) -> dict[str, Tensor]:
    """The floating-point tensors of a result, by place."""
    if isinstance(result, Mapping):
        return {f"{k}.{n}".strip("."): x for k, v in result.items() for n, x in _tensors(v).items()}
    leaves = tree_flatten(result)[0]
    found = {}
    for place, leaf in enumerate(leaves):
        inner = leaf if isinstance(leaf, Tensor) else getattr(leaf, "values", None)
        if isinstance(inner, Tensor) and inner.is_floating_point() and not inner.is_nested:
            found[f"output {place}"] = inner
    return found


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
