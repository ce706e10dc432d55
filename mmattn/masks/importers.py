"""Masks of other libraries as ours: boolean ``[B, H, N, M]``, or broadcasting to it, True = may attend.

Each importer is named after the argument that it imports. All but :func:`from_sdpa_mask` and
:func:`from_key_padding_mask` look at the values of the mask, which on an accelerator waits for it.
A query that may attend to nothing gets zeros in mmattn, whatever its library makes of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# What wav2vec2 of fairseq and torchaudio adds to a masked logit; every other library adds less.
_MASKED_FROM = -1e4


def from_key_padding_mask(mask: Tensor) -> Tensor:
    """torch.nn's ``key_padding_mask`` ``[B, M]`` (True = ignore) as a mask ``[B, 1, 1, M]`` (True = attend).

    The same argument has the same meaning in SpeechBrain and in torchaudio's Conformer and WavLM.

    Raises:
        ValueError: the mask is not a boolean ``[B, M]``.

    Example:
        >>> from_key_padding_mask(torch.tensor([[False, False, True]])).int().tolist()
        [[[[1, 1, 0]]]]
    """
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(
            f"key_padding_mask must be boolean [B, M], True = ignore: got {mask.dtype} {list(mask.shape)}"
        )
    return ~mask[:, None, None, :]


def from_attn_mask(mask: Tensor, num_heads: int | None = None) -> Tensor:
    """torch.nn's ``attn_mask`` (True = ignore, numbers are added) as a mask (True = attend).

    The same argument has the same meaning in SpeechBrain.

    Args:
        mask: ``[N, M]``, or ``[B * H, N, M]`` with the heads of each sequence side by side.
        num_heads: H, needed with three axes alone.

    Returns:
        ``[1, 1, N, M]`` or ``[B, H, N, M]``.

    Raises:
        ValueError: the shape is another, or numbers hold a bias, as in :func:`from_additive_mask`.

    Example:
        >>> from_attn_mask(torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)).int().tolist()
        [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    """
    if mask.ndim == 3:
        if num_heads is None or num_heads < 1 or len(mask) % num_heads:
            raise ValueError(
                f"attn_mask [B * H, N, M] needs num_heads that divides B * H: "
                f"got num_heads={num_heads} for shape {list(mask.shape)}"
            )
        mask = mask.unflatten(0, (len(mask) // num_heads, num_heads))
    elif mask.ndim == 2:
        mask = mask[None, None]
    else:
        raise ValueError(f"attn_mask must be [N, M] or [B * H, N, M]: got shape {list(mask.shape)}")
    if mask.dtype == torch.bool:
        return ~mask
    return from_additive_mask(mask)


def from_sdpa_mask(mask: Tensor) -> Tensor:
    """A boolean ``attn_mask`` of torch's ``scaled_dot_product_attention`` (True = attend), checked.

    This is mmattn's own meaning, so the mask comes back as it is, with four axes. It is also that of timm,
    TorchMultimodal and x-transformers' ``attn_mask``, and of what FlexAttention's ``create_mask`` makes of a
    ``mask_mod``. Three axes are ``[H, N, M]`` here, as they broadcast; :func:`from_batch_mask` takes ``[B, N, M]``.

    Args:
        mask: ``[N, M]``, ``[H, N, M]`` or ``[B, H, N, M]``, where 1 may stand for B, H, N and M.

    Raises:
        ValueError: the mask is not boolean or has another number of axes.

    Example:
        >>> from_sdpa_mask(torch.ones(3, 3, dtype=torch.bool).tril()).int().tolist()
        [[[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    """
    if mask.dtype != torch.bool or not 2 <= mask.ndim <= 4:
        raise ValueError(
            f"attn_mask must be boolean [N, M], [H, N, M] or [B, H, N, M], True = attend: "
            f"got {mask.dtype} {list(mask.shape)}"
        )
    return mask[(None,) * (4 - mask.ndim)]


def from_batch_mask(mask: Tensor) -> Tensor:
    """A mask ``[B, N, M]`` or ``[B, 1, M]`` (1 or True = attend) as ``[B, 1, N, M]`` or ``[B, 1, 1, M]``.

    ESPnet and torchtune give their attention such a mask.

    Raises:
        ValueError: the mask has not three axes or holds other values than 0 and 1.

    Example:
        >>> from_batch_mask(torch.tensor([[[1, 1, 0]]])).int().tolist()
        [[[[1, 1, 0]]]]
    """
    if mask.ndim != 3 or not _zeros_and_ones(mask):
        raise ValueError(f"mask must be [B, N, M] or [B, 1, M] of 0 and 1: got shape {list(mask.shape)}")
    return mask[:, None] == 1


def from_attention_mask(mask: Tensor) -> Tensor:
    """Hugging Face's ``attention_mask`` ``[B, M]`` (1 = attend) as a mask ``[B, 1, 1, M]`` (True = attend).

    A boolean is taken as well: x-transformers' ``mask`` and ``context_mask``, timm's ``patch_valid``.

    Raises:
        ValueError: the mask is not ``[B, M]`` or holds other values than 0 and 1.

    Example:
        >>> from_attention_mask(torch.tensor([[1, 1, 0]])).int().tolist()
        [[[[1, 1, 0]]]]
    """
    if mask.ndim != 2 or not _zeros_and_ones(mask):
        raise ValueError(f"attention_mask must be [B, M] of 0 and 1: got shape {list(mask.shape)}")
    return mask[:, None, None, :] == 1


def from_additive_mask(mask: Tensor) -> Tensor:
    """Numbers to add to the logits, 0 = attend and very negative = ignore, as a mask (True = attend).

    Hugging Face's four-axis masks (0 and the lowest number of the dtype), torchaudio's wav2vec2 (0 and -1e4),
    torch's own float masks (0 and -inf). Values of -1e4 and below, as the mask's dtype rounds it, are ignored.

    Args:
        mask: ``[N, M]``, ``[H, N, M]`` or ``[B, H, N, M]``, where 1 may stand for B, H, N and M.

    Returns:
        The same with four axes.

    Raises:
        ValueError: the mask is not of floating-point numbers, has another number of axes, or holds anything
            between: then it is a bias.

    Example:
        >>> from_additive_mask(torch.tensor([[0.0, 0.0, -1e4]])).int().tolist()
        [[[[1, 1, 0]]]]
    """
    if not mask.is_floating_point() or not 2 <= mask.ndim <= 4:
        raise ValueError(
            f"an additive mask must be floating-point [N, M], [H, N, M] or [B, H, N, M]: "
            f"got {mask.dtype} {list(mask.shape)}"
        )
    attend = mask == 0
    # the threshold is rounded as the masks are: -1e4 is -9984 in bfloat16
    other = mask[~(attend | (mask <= torch.tensor(_MASKED_FROM, dtype=mask.dtype, device=mask.device)))]
    if other.numel():
        raise ValueError(
            f"an additive mask must hold 0 and values up to -1e4 alone (pass other numbers as bias=): "
            f"got {other[0].item():g}"
        )
    return attend[(None,) * (4 - mask.ndim)]


def _zeros_and_ones(mask: Tensor) -> bool:
    return mask.dtype == torch.bool or bool(((mask == 0) | (mask == 1)).all())
