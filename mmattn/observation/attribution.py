"""Relevance of input tokens by attention: rollout and gradient x attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmattn.observation.explicit import Attended, explicit
from mmattn.observation.follower import follow
from mmattn.observation.propagation import Fusion, Method, propagated
from mmattn.observation.token_flow import Flow, Placed, covered_places
from mmattn.tokens import TokenBatch

Target = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
Rows = int | Sequence[int] | Literal["mean"] | None


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each input token counts.

    Attributes:
        parts: by the module that tokens enter (the encoder, the decoder), their scores ``[B, N]``; packed
            sequences have zeros behind their end.
        modules: names of the modules whose attention was used, in the order of their calls.
        grids: height and width of those that enter as a picture ``[B, height, width, D]``.
    """

    parts: dict[str, Tensor]
    modules: list[str]
    grids: dict[str, tuple[int, int]]

    @property
    def scores(self) -> Tensor:
        """``[B, N]``: of the tokens that enter the first attention of the model."""
        return next(iter(self.parts.values()))

    def grid(self, size: tuple[int, int] | None = None) -> Tensor:
        """The scores of patches as pictures ``[B, height, width]``; tokens before them (class, registers) left out.

        Args:
            size: height and width; ``None`` where the model has its tokens in a grid, or takes as many prefix
                tokens as make the rest the largest square.

        Raises:
            ValueError: there are fewer tokens than places.
        """
        count = self.scores.shape[1]
        known = self.grids.get(next(iter(self.parts)))
        side = int(count**0.5)
        height, width = size or known or (side, side)
        if height * width > count:
            raise ValueError(
                f"a grid must have at most {count} places, one per token: got {height} x {width}"
            )
        grid: Tensor = self.scores[:, count - height * width :].unflatten(1, (height, width))
        return grid


def relevance(
    model: nn.Module,
    x: Any,
    target: Target = None,
    *,
    method: Method = "rollout",
    rows: Rows = None,
    heads: Fusion = "mean",
) -> Relevance:
    """How much each input token counts for the output, by the attention on its way there.

    ``"rollout"`` multiplies the weights of all layers, the residual path taken as half of each (Abnar and Zuidema
    2020). ``"gradient"`` weighs every weight by the gradient of the target and adds layer by layer what is positive:
    ``R + mean_heads((grad A * A)+) R``, and for cross-attention the rule with normalised maps of both sides (Chefer
    et al. 2021, "Generic attention-model explainability", equations 5, 6, 8 to 11).

    Works for models of torch.nn, timm, torchvision, torchaudio and transformers, plugged in or not, and for our own
    modules, packed or dense. Tokens are followed through windows, shifts, padding and merging by running the model
    with its attention results set to zero. Where several tokens become one, its relevance goes to them in equal
    parts; what goes to padding is lost. The model is run once more with its attention step by step, which takes
    memory for all weights and ``[B, N, N]`` numbers; it stays as it was.

    Args:
        model: in eval mode, float32 or float64.
        x: a tensor, a TokenBatch, a tuple of arguments, or a mapping of keyword arguments.
        target: of ``"gradient"``: a class for all examples, one for each, or a function from the model's output
            to ``[B]`` scores; ``None`` takes the class with the largest logit. Of ``"rollout"`` it is unused but
            for telling which tokens the output is read from.
        method: ``"rollout"`` or ``"gradient"``.
        rows: the tokens whose relevance is given: a number or numbers of tokens, ``"mean"`` over all, or ``None``:
            those that the output is read from (the class token, all that a mean is taken of, the query of a
            pool), which a gradient tells.
        heads: how rollout takes heads together: ``"mean"``, ``"max"`` or ``"min"``.

    Returns:
        Scores ``[B, N]`` and the modules that were used.

    Raises:
        ValueError: the model is in training mode, has no attention, mixes tokens by something else than attention, or
            it cannot be told which token stands where in a call; the message names the module and says why.

    Example:
        >>> model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
        >>> found = relevance(model, torch.randn(3, 5, 8))
        >>> found.scores.shape, found.modules
        (torch.Size([3, 5]), ['layers.0.self_attn', 'layers.1.self_attn'])
    """
    if method not in ("rollout", "gradient"):
        raise ValueError(f"method must be 'rollout' or 'gradient': got {method!r}")
    if heads not in ("mean", "max", "min"):
        raise ValueError(f"heads must be 'mean', 'max' or 'min': got {heads!r}")
    training = next((name for name, part in model.named_modules() if part.training), None)
    if training is not None:
        raise ValueError(
            f"relevance needs a model in eval mode: got {training or 'the model'!r} in training mode"
        )
    with torch.inference_mode(False), torch.enable_grad():
        flow = follow(model, lambda: _run(model, x), first_tensor)
        weights, gradients = _weights(model, x, target, method, flow)
    with torch.no_grad():
        matrix, columns = propagated(flow, weights, gradients if method == "gradient" else None, heads)
        read = _read_rows(flow, gradients, rows)
        parts = _parts(flow, matrix[read], flow.owner[read], columns)
    shown = [s for s in flow.sources if s.shown]
    return Relevance(
        parts,
        list(dict.fromkeys(call.name for call in flow.calls)),
        {s.name: s.grid for s in shown if s.grid is not None},
    )


def _run(model: nn.Module, x: Any) -> Any:
    if isinstance(x, Mapping):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def first_tensor(output: Any) -> Tensor:
    """The logits of an output, or its first floating tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, TokenBatch):
        return output.values
    if isinstance(output, Mapping):
        output = (output["logits"],) if "logits" in output else tuple(output.values())
    for part in output if isinstance(output, (tuple, list)) else ():
        if isinstance(part, (Tensor, TokenBatch)):
            return first_tensor(part)
    raise ValueError(f"relevance needs a tensor among the model's outputs: got {type(output).__name__}")


def _weights(
    model: nn.Module, x: Any, target: Target, method: Method, flow: Flow
) -> tuple[list[Tensor], list[Tensor]]:
    """The weights of all calls, and the gradients of the target by them."""
    seen: list[Attended] = []

    def use(call: Attended) -> Tensor:
        if not call.weights.requires_grad:
            call.weights.requires_grad_()
        seen.append(call)
        return call.weights

    with explicit(model, use, lambda call: None):
        score = _score(_run(model, x), target, method)
    made = [(call.name, call.weights.shape) for call in seen]
    if made != [(call.name, call.shape) for call in flow.calls]:
        raise ValueError(
            "relevance needs a model that makes the same calls in each run: got others the second time"
        )
    weights = [call.weights for call in seen]
    found = torch.autograd.grad(score, weights, allow_unused=True)
    gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    for call, gradient in zip(flow.calls, gradients, strict=True):
        _check_unknown(call, gradient)
    return [w.detach() for w in weights], gradients


def _check_unknown(call: Placed, gradient: Tensor) -> None:
    """That queries which no token stands for, as those of padding, have results that nobody reads."""
    known = covered_places(call.q, call.shape[0] * call.shape[2])
    lost = int(((gradient != 0).any(-1).any(1).flatten().cpu() & ~known).sum())
    if lost:
        raise ValueError(
            f"relevance must know which token stands where: got {call.name!r}, of which {lost} queries come from no "
            f"token that enters a module, and the output depends on their results"
        )


def _score(output: Any, target: Target, method: Method) -> Tensor:
    """What is derived by the weights."""
    if callable(target) and not isinstance(target, Tensor):
        chosen: Tensor = target(output)
        return chosen.sum()
    logits = first_tensor(output)
    if target is None and method == "rollout":
        draw = torch.Generator().manual_seed(0)  # only tells which tokens the output is read from
        return (logits * torch.randn(logits.shape, generator=draw, dtype=torch.float64).to(logits)).sum()
    if logits.ndim != 2:
        raise ValueError(
            "a target must be a function of the output where that is not logits [B, C]: "
            f"got shape {list(logits.shape)}"
        )
    if target is None:
        return logits.amax(-1).sum()
    classes = torch.as_tensor(target, device=logits.device).expand(len(logits))
    if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise ValueError(f"a target must be one of {logits.shape[1]} classes: got {classes.tolist()}")
    return logits.gather(1, classes[:, None]).sum()


def _read_rows(flow: Flow, gradients: list[Tensor], rows: Rows) -> Tensor:
    """``[U]``: of which tokens the relevance is given: among those that are queries of the last call."""
    last = flow.calls[-1]
    sources = flow.source[last.q >= 0].unique()
    mine = torch.isin(flow.source, sources)
    if rows is None:
        read = torch.zeros_like(mine)
        for index, (call, gradient) in enumerate(zip(flow.calls, gradients, strict=True)):
            used = (gradient != 0).any(-1).any(1).flatten().cpu()
            here = mine & (flow.last == index)
            read[here] = used[call.q[here]]
        if not read.any():
            raise ValueError("rows must be given where the output depends on no attention: got rows=None")
        return read
    if rows == "mean":
        return mine
    wanted = torch.as_tensor(rows).reshape(-1)
    count = int(flow.position[mine].max()) + 1
    if int(wanted.min()) < 0 or int(wanted.max()) >= count:
        raise ValueError(f"rows must be numbers of {count} tokens: got {wanted.tolist()}")
    return mine & torch.isin(flow.position, wanted)


def _parts(flow: Flow, matrix: Tensor, owner: Tensor, columns: list[int]) -> dict[str, Tensor]:
    """The mean of the rows of each example, cut into sources."""
    examples = int(flow.owner.max()) + 1
    owner = owner.to(matrix.device)
    sums = matrix.new_zeros(examples, matrix.shape[1]).index_add(0, owner, matrix)
    mean = sums / owner.bincount(minlength=examples).clamp(min=1)[:, None]
    parts: dict[str, Tensor] = {}
    for source, begin in zip(flow.sources, columns, strict=True):
        if source.shown:
            name = source.name
            while name in parts:
                name += "'"
            parts[name] = mean[:, begin : begin + source.width]
    return parts
