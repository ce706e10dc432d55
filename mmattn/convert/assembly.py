"""What all conversions share: copied weights, and a MultiHeadAttention put together from them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmattn.attention import MultiHeadAttention


class Affine(NamedTuple):
    """Weight ``[out, in]`` and bias ``[out]`` of a projection."""

    weight: nn.Parameter
    bias: nn.Parameter | None


def copied(tensor: Tensor, like: Tensor | None = None) -> nn.Parameter:
    """A parameter of its own with these values; ``requires_grad`` is that of the tensor, or of another one."""
    of = tensor if like is None else like
    return nn.Parameter(tensor.detach().clone(), requires_grad=of.requires_grad)


def affine(name: str, layer: nn.Module) -> Affine:
    """Copies of the weight and the bias of an ``nn.Linear``, or of transformers' ``Conv1D``, which is its transpose.

    Raises:
        TypeError: the layer computes something else: an adapter, a quantised or a parametrised projection.
    """
    kind = type(layer)
    if "forward" in vars(layer) or parametrize.is_parametrized(layer):
        raise TypeError(f"{name} must be a plain nn.Linear: got one whose forward or weight is replaced")
    if isinstance(layer, nn.Linear) and kind.forward is nn.Linear.forward:
        return Affine(copied(layer.weight), None if layer.bias is None else copied(layer.bias))
    if kind.__name__ == "Conv1D" and kind.__module__.partition(".")[0] == "transformers":
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        return Affine(copied(weight.t(), like=weight), copied(bias))
    raise TypeError(f"{name} must be an nn.Linear: got {kind.__name__}")


def stacked(names: str, parts: Sequence[Affine]) -> Affine:
    """One projection that gives the outputs of all parts; a bias that only some have is zero in the others.

    Raises:
        ValueError: only some of the parts are frozen.
    """
    if len(parts) == 1:
        return parts[0]
    weights = [part.weight for part in parts]
    biases = [part.bias for part in parts if part.bias is not None]
    for kind, of_kind in (("weights", weights), ("biases", biases)):
        states = [x.requires_grad for x in of_kind]
        if len(set(states)) > 1:
            raise ValueError(f"the {kind} of {names} must be all frozen or all trained: got {states}")
    weight = nn.Parameter(torch.cat([w.detach() for w in weights]), requires_grad=weights[0].requires_grad)
    if not biases:
        return Affine(weight, None)
    filled = [w.detach().new_zeros(len(w)) if b is None else b.detach() for w, b in parts]
    return Affine(weight, nn.Parameter(torch.cat(filled), requires_grad=biases[0].requires_grad))


def put(layer: nn.Linear, values: Affine) -> None:
    """Give a layer these very parameters; without a bias among them it has none afterwards."""
    layer.weight = values.weight
    layer.register_parameter("bias", values.bias)


def assemble(
    project_in: Sequence[Affine],
    out: Affine,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    training: bool,
    scale: float | None = None,
    q_norm: nn.Module | None = None,
    k_norm: nn.Module | None = None,
    sinks: Tensor | None = None,
    **options: Any,
) -> MultiHeadAttention:
    """A MultiHeadAttention with these weights.

    Args:
        project_in: one projection of queries, keys and values, or two: the queries', and that of keys and values.
        out: the output projection.
        num_heads, num_kv_heads, head_dim: as in MultiHeadAttention.
        training: the mode of the result.
        scale: factor on the logits.
        q_norm, k_norm: copied.
        sinks: ``[H]``, copied.
        options: handed to MultiHeadAttention.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if sinks is not None:
        options["sinks"] = True
    # on "meta" nothing is drawn, so that the global random state stays as it was
    with torch.device("meta"):
        module = MultiHeadAttention(
            project_in[0].weight.shape[1],
            num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            context_dim=project_in[1].weight.shape[1] if len(project_in) == 2 else None,
            scale=None if scale == head_dim**-0.5 else scale,
            **options,
        )
    layers = [module.qkv_proj] if len(project_in) == 1 else [module.q_proj, module.kv_proj]
    for layer, values in zip([*layers, module.out_proj], [*project_in, out], strict=True):
        put(layer, values)
    if q_norm is not None:
        module.q_norm = copy.deepcopy(q_norm)
    if k_norm is not None:
        module.k_norm = copy.deepcopy(k_norm)
    if sinks is not None:
        module.sinks = copied(sinks)
    return module.train(training)


def split(module: MultiHeadAttention) -> tuple[Affine, Affine, Affine]:
    """Copies of the projections of queries, keys and values."""
    widths = [module.num_heads * module.head_dim, *[module.num_kv_heads * module.head_dim] * 2]
    fused = module.context_dim is None
    names = ["qkv_proj"] if fused else ["q_proj", "kv_proj"]
    cuts = [widths] if fused else [widths[:1], widths[1:]]
    parts: list[Affine] = []
    for name, sizes in zip(names, cuts, strict=True):
        weight, bias = affine(name, getattr(module, name))
        weights = [copied(w, like=weight) for w in weight.split(sizes)]
        biases = [None] * len(sizes) if bias is None else [copied(b, like=bias) for b in bias.split(sizes)]
        parts += [Affine(w, b) for w, b in zip(weights, biases, strict=True)]
    q, k, v = parts
    return q, k, v


def check_kind(caller: str, module: nn.Module, kind: type[nn.Module]) -> None:
    """Refuse a module of another class, and a subclass that computes something of its own."""
    if type(module).forward is not kind.forward or "forward" in vars(module):
        raise TypeError(f"{caller} takes {kind.__name__} with its own forward: got {type(module).__name__}")


def check_carried(caller: str, module: nn.Module, *carried: str) -> None:
    """Refuse a MultiHeadAttention that has what the other library cannot express; ``carried`` names what it can."""
    if not isinstance(module, MultiHeadAttention):
        raise TypeError(f"{caller} takes a MultiHeadAttention: got {type(module).__name__}")
    uneven = module.num_heads * module.head_dim != module.embed_dim
    has = {
        "num_kv_heads": module.num_kv_heads if module.num_kv_heads != module.num_heads else None,
        "head_dim": module.head_dim if uneven else None,
        "qk_norm": None if type(module.q_norm) is type(module.k_norm) is nn.Identity else module.q_norm,
    }
    for name in ("context_dim", "scale", "soft_cap", "sinks", "positions", "position_bias", "gate"):
        has[name] = getattr(module, name, None)
    for name, value in has.items():
        if value is not None and name not in carried:
            shown = type(value).__name__ if isinstance(value, nn.Module | Tensor) else value
            raise ValueError(f"{caller} cannot carry {name}: got {name}={shown}")
