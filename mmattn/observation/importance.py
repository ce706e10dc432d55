"""How much each head matters to a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.observation.heads import attach_quietly, attention_modules, idle, mask_of, put_mask
from mmattn.plugins.cuts import Heads
from mmattn.plugins.site import HEADS, Seen, site_of, watching
from mmattn.plugins.swap import detach

Loss = Callable[[nn.Module, Any], Tensor]
Method = Literal["gradient", "leave_one_out"]


def head_importance(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    method: Method = "gradient",
    normalize: bool = False,
    select: str | Callable[[str, nn.Module], bool] | None = None,
) -> dict[str, Tensor]:
    """How much each head matters to a loss.

    The model is put into eval mode meanwhile; afterwards its modes, gradients, head masks and the state of the random
    numbers are what they were.

    Args:
        model: as for :func:`set_head_mask`.
        batches: whatever ``loss`` takes; gone through once.
        loss: of the model and a batch, a scalar; the mean over the batch, for batches of one size.
        method: ``"gradient"``: the mean over the batches of ``|d loss / d gate|`` (Michel et al. 2019, who take the
            mean over single examples: give batches of one for that). ``"leave_one_out"``: the mean rise of the loss
            when the head is masked, one forward pass per head and batch; negative where the loss falls.
        normalize: divide the importances of a layer by their l2 norm, as Michel et al. (2019) do for the gradient.
        select: a pattern of module names, or a function of name and module; ``None`` takes all attention modules.

    Returns:
        By module name, importances ``[H]`` in float32. Heads that :func:`~mmattn.prune_heads` took out have 0.

    Raises:
        ValueError: the method is unknown, there are no batches, the loss is no scalar, or the model has no attention
            module, or one that a batch does not reach.

    Example:
        >>> attention = MultiHeadAttention(embed_dim=8, num_heads=2)
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> head_importance(attention, [torch.randn(3, 5, 8)], loss)[""].shape
        torch.Size([2])
    """
    if method not in ("gradient", "leave_one_out"):
        raise ValueError(f"method must be 'gradient' or 'leave_one_out': got {method!r}")
    named = {n: m for n, m in attention_modules(model).items() if _selected(select, n, m)}
    if not named:
        raise ValueError(f"the model must have an attention module: got {type(model).__name__} without any")
    total: dict[str, Tensor] = {}
    count = 0
    counts: dict[str, int] = {}
    measured = _by_gradient if method == "gradient" else _by_leaving_out
    with _as_it_was(model, named):
        states = _random_states()
        for batch in batches:
            run = partial(_value, model, batch, loss, states)
            counts = counts or _head_counts(named, run)
            for name, one in measured(named, counts, run).items():
                total[name] = total[name] + one if name in total else one
            count += 1
    if not count:
        raise ValueError("head importance needs at least one batch: got none")
    means = {name: _numbered(named[name], value / count) for name, value in total.items()}
    return {n: v / v.norm().clamp(min=1e-20) for n, v in means.items()} if normalize else means


def _value(model: nn.Module, batch: Any, loss: Loss, states: tuple[Tensor, list[Tensor]]) -> Tensor:
    """The loss of a batch, always with the same random numbers."""
    _set_random_states(states)
    value = loss(model, batch)
    if not isinstance(value, Tensor) or value.ndim:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the loss must be a tensor without axes: got {shape}")
    return value


def _selected(select: str | Callable[[str, nn.Module], bool] | None, name: str, module: nn.Module) -> bool:
    if select is None:
        return True
    return fnmatchcase(name, select) if isinstance(select, str) else select(name, module)


@contextmanager
def _as_it_was(model: nn.Module, named: Mapping[str, nn.Module]) -> Iterator[None]:
    """Eval mode and sites while the block runs; then modes, masks, classes and random numbers as before."""
    modes = [(module, module.training) for module in model.modules()]
    masks = {name: mask_of(module) for name, module in named.items()}
    attach_quietly(model, {name for name, m in named.items() if not isinstance(m, MultiHeadAttention)})
    states = _random_states()
    model.eval()
    try:
        yield
    finally:
        for name, module in named.items():
            put_mask(module, masks[name])
        detach(model, idle)
        for module, mode in modes:
            module.training = mode
        _set_random_states(states)


def _random_states() -> tuple[Tensor, list[Tensor]]:
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), on_cuda


def _set_random_states(states: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])


def _head_counts(named: Mapping[str, nn.Module], run: Callable[[], Tensor]) -> dict[str, int]:
    """How many heads each module computes, seen in one pass over a batch."""
    found: dict[str, int] = {}

    def watcher(name: str) -> Callable[[Seen], None]:
        def note(seen: Seen) -> None:
            shown = seen.weights if seen.q is None else seen.q
            assert shown is not None
            found[name] = shown.shape[1]

        return note

    def hook(name: str) -> Any:
        def note(module: MultiHeadAttention, args: Any, out: Any) -> None:
            found[name] = module.num_heads

        return note

    with ExitStack() as stack, torch.no_grad():
        for name, module in named.items():
            site = site_of(module)
            if site is not None:
                stack.enter_context(watching(site, watcher(name)))
            else:
                stack.callback(module.register_forward_hook(hook(name)).remove)
        run()
    missed = sorted(set(named) - set(found))
    if missed:
        raise ValueError(
            f"each selected attention module must be reached by the loss: got none of its calls for {missed}"
        )
    return found


def _by_gradient(
    named: Mapping[str, nn.Module], counts: Mapping[str, int], run: Callable[[], Tensor]
) -> dict[str, Tensor]:
    gates: dict[str, Tensor] = {}
    before = {name: mask_of(module) for name, module in named.items()}
    for name, module in named.items():
        gates[name] = torch.ones(counts[name], requires_grad=True, device=_device(module))
        put_mask(module, _times(before[name], gates[name]))
    try:
        with torch.enable_grad():
            slopes = torch.autograd.grad(run(), list(gates.values()), allow_unused=True)
    finally:
        for name, module in named.items():
            put_mask(module, before[name])
    zero = {name: torch.zeros_like(gate.detach()) for name, gate in gates.items()}
    return {name: zero[name] if g is None else g.abs() for name, g in zip(gates, slopes, strict=True)}


def _by_leaving_out(
    named: Mapping[str, nn.Module], counts: Mapping[str, int], run: Callable[[], Tensor]
) -> dict[str, Tensor]:
    found = {}
    with torch.no_grad():
        whole = run()
        for name, module in named.items():
            before, rises = mask_of(module), []
            for head in range(counts[name]):
                mask = torch.ones(counts[name], device=_device(module))
                mask[head] = 0
                put_mask(module, _times(before, mask))
                rises.append((run() - whole).float())
            put_mask(module, before)
            found[name] = torch.stack(rises)
    return found


def _times(before: Tensor | None, gate: Tensor) -> Tensor:
    return gate if before is None else before.detach().to(gate) * gate


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _numbered(module: nn.Module, values: Tensor) -> Tensor:
    """Values of the heads that a module computes, by the numbers that they had at first."""
    known: Heads | None = module.__dict__.get(HEADS)
    if known is None or not known.narrow:
        return values
    return values.new_zeros(known.total).index_copy(0, torch.tensor(known.rest, device=values.device), values)
