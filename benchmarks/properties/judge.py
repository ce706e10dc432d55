"""Is a backend right on a case? Against the formula in float64, to a bound that follows from the rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import flex_attention

from benchmarks.properties.cases import Case
from benchmarks.properties.inputs import Call, Inputs
from mmattn import Backend, attend, attention_weights, explain
from mmattn.backends import FlexBackend

#: What is tested on a CPU; FlexAttention as its plain twin, which is forward alone there.
BACKENDS: dict[str, str | Backend] = {
    "cpu": "cpu", "sdpa": "sdpa", "math": "math", "flex": FlexBackend(compiled=False),
}  # fmt: skip


def runs_on(case: Case, inputs: Inputs, name: str) -> bool:
    """Whether the backend takes the case."""
    if name == "flex" and (case.grad or inputs.dtype == torch.float64):
        return False
    call = inputs.call(inputs.dtype, case.grad)
    try:
        explain(call.q, call.k, call.v, **call.options, backend=BACKENDS[name])
    except ValueError as error:
        if "cannot run this call" in str(error):
            return False
        raise
    return True


def check(case: Case, names: tuple[str, ...] = tuple(BACKENDS)) -> list[str]:
    """Run the case on every backend that takes it.

    Returns:
        Their names.

    Raises:
        AssertionError: a result or a gradient is wrong; the message says which.
    """
    inputs = Inputs(case)
    takers = [name for name in names if runs_on(case, inputs, name)]
    if not takers:
        return []
    want, bound = _formula(inputs), _bound(inputs)
    for name in takers:
        with eager_flex():
            got = _run(inputs, BACKENDS[name])
        assert got["out"].dtype == inputs.dtype, f"{name}: the result is {got['out'].dtype}"
        for what, right in want.items():
            _compare(f"{name}: {what}", got[what], right, bound[what])
    return takers


def _compare(what: str, got: Tensor, want: Tensor, bound: Tensor) -> None:
    assert got.shape == want.shape, f"{what}: shape {list(got.shape)} for {list(want.shape)}"
    assert got.isfinite().all(), f"{what}: {int((~got.isfinite()).sum())} of {got.numel()} are not finite"
    over = (got.double() - want).abs() - bound
    if over.numel() and over.max() > 0:
        at = int(over.argmax())
        place = [int(x) for x in torch.unravel_index(torch.tensor(at), over.shape)]
        found, right, room = (x.flatten()[at].item() for x in (got, want, bound))
        raise AssertionError(f"{what} at {place}: {found:.6g} for {right:.6g}, off by more than {room:.2g}")


def _run(inputs: Inputs, backend: str | Backend) -> dict[str, Tensor]:
    """The result and the gradients of all leaves."""
    case = inputs.case
    call = inputs.call(inputs.dtype, case.grad)
    with torch.set_grad_enabled(case.grad):
        out = attend(call.q, call.k, call.v, **call.options, backend=backend)
    if case.grad:
        out.backward(inputs.grad.to(out.dtype))
    return _named(out, call)


def _formula(inputs: Inputs) -> dict[str, Tensor]:
    """The same by ``math`` in float64, sequence by sequence, with zeros for what must not be looked at."""
    call = inputs.call(torch.float64, inputs.case.grad, clean=True)
    out = torch.zeros(inputs.shapes[0], dtype=torch.float64)
    for q, k, v, options, rows in inputs.pieces(call):
        part = attend(q, k, v, **options, backend="math")
        part = part[0].transpose(0, 1) if inputs.case.packed else part
        if inputs.case.grad:
            part.backward(inputs.grad[rows])
        out[rows] = part.detach()
    return _named(out, call)


def _named(out: Tensor, call: Call) -> dict[str, Tensor]:
    named = {"out": out.detach()}
    for name, leaf in call.leaves.items():
        if leaf.requires_grad:
            named[f"gradient of {name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return named


def _bound(inputs: Inputs) -> dict[str, Tensor]:
    """How far rounding may take each number from the right one.

    A logit is off by at most ``step`` times the sum of its terms' absolute values, and a weight by as much in
    relation to itself. All else is sums of products, off by ``step`` times the same sums of absolute values.
    """
    call = inputs.call(torch.float64, inputs.case.grad, clean=True)
    longest = max(*inputs.tokens, inputs.case.head_dim)
    # half precision adds up in float32; else the errors of a sum grow like a random walk
    roundings = 3.0 if inputs.dtype.itemsize == 2 else 4.0 + longest**0.5
    step = roundings * torch.finfo(inputs.dtype).eps
    out = torch.zeros(inputs.shapes[0], dtype=torch.float64)
    for q, k, v, options, rows in inputs.pieces(call):
        part = _absolute(q, k, v, options, inputs.grad[rows], step)
        out[rows] = part[0].transpose(0, 1) if inputs.case.packed else part
    # what is small beside its neighbours has their rounding in float16, whose numbers end at 6e-8
    floor = torch.finfo(inputs.dtype).tiny
    found = _named(out, call)
    return {what: x + (step**2 * x.max() if x.numel() else 0.0) + floor for what, x in found.items()}


def _absolute(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any], grad: Tensor, step: float) -> Tensor:
    """The bound of the results of a dense call; those of the gradients are added to the leaves."""
    bias = _drawn_bias(q, k, options)
    with torch.no_grad():
        grad = (grad if grad.ndim == 4 else grad.transpose(0, 1)[None]).abs()
        groups = q.shape[1] // k.shape[1]
        a, b, c = q.abs(), *(x.abs().repeat_interleave(groups, 1) for x in (k, v))
        scale = q.shape[-1] ** -0.5 if options["scale"] is None else abs(options["scale"])
        weights = attention_weights(q, k, **options)
        off = _off(weights, scale * a @ b.mT, bias, options.get("sinks"), step)
        of_weights = grad @ c.mT
        mean = (weights * of_weights).sum(-1, keepdim=True)
        mean_off = (off * of_weights).sum(-1, keepdim=True)
        of_logits = off * (of_weights + mean) + weights * (mean_off + step * (of_weights + mean))
        found = [
            (q, scale * of_logits @ b),
            (k, (scale * of_logits.mT @ a).unflatten(1, (-1, groups)).sum(2)),
            (v, (off.mT @ grad).unflatten(1, (-1, groups)).sum(2)),
        ]
        if bias is not None:
            found.append(
                (bias, of_logits.sum_to_size(bias.shape) if bias.numel() else torch.zeros_like(bias))
            )
        if options.get("sinks") is not None:
            of_sinks = (1 - weights.sum(-1, keepdim=True)).clamp(min=0) * (mean_off + mean * step)
            of_sinks = of_sinks + off.sum(-1, keepdim=True) * mean
            found.append((options["sinks"], of_sinks.sum((0, 2, 3))))
    wanted = [(x, sums) for x, sums in found if x.requires_grad]
    if wanted:
        torch.autograd.backward([x for x, _ in wanted], [sums for _, sums in wanted])
    return off @ c


def _off(weights: Tensor, logits: Tensor, bias: Tensor | None, sinks: Tensor | None, step: float) -> Tensor:
    """How far each weight may be off, from the absolute sums of the logits' terms."""
    if bias is not None:
        logits = logits + bias.masked_fill(bias == -torch.inf, 0.0).abs()
    mean = (weights * logits).sum(-1, keepdim=True)
    if sinks is not None:
        mean = mean + (1 - weights.sum(-1, keepdim=True)) * sinks.abs()[:, None, None]
    return weights * (step * (1 + logits + mean)).clamp(max=50).expm1()


def _drawn_bias(q: Tensor, k: Tensor, options: dict[str, Any]) -> Tensor | None:
    bias, n, m = options.get("bias"), q.shape[2], k.shape[2]
    if bias is None or isinstance(bias, Tensor):
        return bias
    q_coords, k_coords = options.get("q_coords"), options.get("k_coords")
    q_coords = torch.arange(m - n, m)[:, None] if q_coords is None else q_coords
    k_coords = torch.arange(m)[:, None] if k_coords is None else k_coords
    drawn: Tensor = bias(q_coords, k_coords)
    return drawn


@contextmanager
def eager_flex() -> Iterator[None]:
    """FlexAttention's plain twin itself, which otherwise is traced anew for every shape."""
    name = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    before = getattr(flex_attention, name, False)
    setattr(flex_attention, name, True)
    try:
        yield
    finally:
        setattr(flex_attention, name, before)
