"""Faults of hosts that batches with padding bring out, mended on request while a model is plugged in.

A repair changes what the host computes, so :func:`~mmattn.plug_in` does it only where it is named, and
:func:`~mmattn.unplug` takes it back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mmattn.plugins.find import class_name

_WAVLM = "torchaudio.models.wav2vec2.wavlm_attention.WavLMSelfAttention"
_EXTRACTOR = "torchaudio.models.wav2vec2.components.ConvLayerBlock"
_CONFORMER = "torchaudio.models.conformer.ConformerLayer"


class Repair(NamedTuple):
    """One fault.

    Attributes:
        change: what is other than in the host, for the report.
        needed: the class that a model must have for the fault to be there.
        classes: the classes whose forward is mended.
    """

    change: str
    needed: str
    classes: tuple[str, ...]


#: Faults that can be mended, all of torchaudio: its WavLM takes no lengths (github.com/pytorch/audio/issues/3700),
#: and what its Conformer (issue 4205) and the group norm of wav2vec2, HuBERT and WavLM give depends on the padding.
REPAIRS: dict[str, Repair] = {
    "wavlm_lengths": Repair(
        "lengths are taken, and hide the padding from attention and group norm", _WAVLM, (_WAVLM, _EXTRACTOR)
    ),
    "wav2vec2_padding": Repair("group norm sees valid frames only", _EXTRACTOR, (_EXTRACTOR,)),
    "conformer_padding": Repair("convolution and norms see valid frames only", _CONFORMER, (_CONFORMER,)),
}


def fitting(model: nn.Module, repair: str) -> dict[str, nn.Module]:
    """The modules of a model that a repair mends, by name.

    Raises:
        ValueError: there is no such repair, or nothing in the model to mend.
    """
    if repair not in REPAIRS:
        raise ValueError(f"repairs must be among {', '.join(REPAIRS)}: got {repair!r}")
    named = {name: (class_name(type(module)), module) for name, module in model.named_modules()}
    found = {name: module for name, (kind, module) in named.items() if kind in REPAIRS[repair].classes}
    found = {name: module for name, module in found.items() if _has_fault(module)}
    if not found or REPAIRS[repair].needed not in (kind for kind, _ in named.values()):
        raise ValueError(
            f"a repair must find its fault in the model: got {repair!r} for {type(model).__name__}"
        )
    return found


def _has_fault(module: nn.Module) -> bool:
    return class_name(type(module)) != _EXTRACTOR or isinstance(module.layer_norm, nn.GroupNorm)


def mended(kind: type[nn.Module]) -> Callable[..., Any]:
    """The forward of a class without its fault."""
    return functools.wraps(kind.forward)(_MENDED[class_name(kind)](kind.forward))


def _with_lengths(forward: Callable[..., Any]) -> Callable[..., Any]:
    """WavLM's encoder hands -10000 in ``[B, 1, N, M]`` down, its attention takes a mask ``[B, M]`` of other keys."""

    def mended_forward(
        self: nn.Module,
        query: Tensor,
        key_padding_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
    ) -> Any:
        if attention_mask is not None and key_padding_mask is None:
            numbers = attention_mask[:, 0, 0]
            key_padding_mask, attention_mask = numbers.masked_fill(numbers != 0, -torch.inf), None
        return forward(self, query, key_padding_mask, attention_mask, position_bias)

    return mended_forward


def _with_frames_of_extractor(forward: Callable[..., Any]) -> Callable[..., Any]:
    def mended_forward(self: Any, x: Tensor, length: Tensor | None) -> Any:
        if length is None:
            return forward(self, x, length)
        frames = (x.shape[-1] - self.kernel_size) // self.stride + 1
        lengths = torch.div(length - self.kernel_size, self.stride, rounding_mode="floor") + 1
        with ValidFrames(torch.arange(frames, device=x.device) < lengths[:, None]):
            return forward(self, x, length)

    return mended_forward


def _with_frames_of_conformer(forward: Callable[..., Any]) -> Callable[..., Any]:
    def mended_forward(self: nn.Module, input: Tensor, key_padding_mask: Tensor | None) -> Any:
        if key_padding_mask is None:
            return forward(self, input, key_padding_mask)
        with ValidFrames(~key_padding_mask):
            return forward(self, input, key_padding_mask)

    return mended_forward


_MENDED: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    _WAVLM: _with_lengths,
    _EXTRACTOR: _with_frames_of_extractor,
    _CONFORMER: _with_frames_of_conformer,
}


class ValidFrames(TorchFunctionMode):
    """Convolutions that find zeros behind each sequence, and norms over the valid frames alone.

    Args:
        valid: ``[B, T]``, True for the frames of the sequences; of calls with another number of frames nothing is
            known, and they run as ever.
    """

    def __init__(self, valid: Tensor) -> None:
        super().__init__()
        self.valid = valid[:, None]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        mend = _FRAMEWISE.get(func)
        x = args[0] if args else kwargs.get("input")
        if mend is None or not isinstance(x, Tensor) or x.shape[-1] != self.valid.shape[-1]:
            return func(*args, **kwargs)
        return mend(self.valid, func, *args, **kwargs)


def _conv1d(valid: Tensor, func: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return func(x.masked_fill(~valid, 0.0), *args, **kwargs)


def _group_norm(
    valid: Tensor,
    func: Callable[..., Tensor],
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean and variance of each sequence and group of channels over its valid frames."""
    parts = x.float().unflatten(1, (num_groups, -1))  # [B, groups, channels of a group, T]
    mean, variance, _ = _moments(parts, valid[:, None], (2, 3))
    out = ((parts - mean) * torch.rsqrt(variance + eps)).flatten(1, 2)
    return _scaled(out, weight, bias).to(x.dtype)


def _batch_norm(
    valid: Tensor,
    func: Callable[..., Tensor],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Mean and variance of each channel over the valid frames of the batch, running ones included."""
    if not training:
        return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, variance, count = _moments(x.float(), valid, (0, 2))
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            running_mean.lerp_(mean.flatten().to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased.flatten().to(running_var.dtype), momentum)
    return _scaled((x.float() - mean) * torch.rsqrt(variance + eps), weight, bias).to(x.dtype)


def _moments(x: Tensor, valid: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance over the valid elements of some axes, which stay as ones, and their number."""
    count = valid.expand_as(x).sum(axes, keepdim=True).clamp(min=1)
    mean = x.masked_fill(~valid, 0.0).sum(axes, keepdim=True) / count
    variance = (x - mean).masked_fill(~valid, 0.0).square().sum(axes, keepdim=True) / count
    return mean, variance, count


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight[:, None]
    return x if bias is None else x + bias[:, None]


_FRAMEWISE: dict[Any, Callable[..., Tensor]] = {
    F.conv1d: _conv1d, F.group_norm: _group_norm, F.batch_norm: _batch_norm,
}  # fmt: skip
