"""The core as an attention function of transformers: its arguments and rules, in the core's terms."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.backends import Mask, Terms
from mmattn.masks import Causal, Window
from mmattn.masks.patterns import Align
from mmattn.plugins.calls import HostCall, both, in_autocast, run, straight, weights_of
from mmattn.plugins.find import calls
from mmattn.plugins.site import Site, site_of

#: The name that models ask for.
NAME = "mmattn"

#: Keyword arguments that change nothing here: they are for the model around the attention, the mask was made from
#: them, or they choose among the kernels of another implementation.
HARMLESS: frozenset[str] = frozenset(
    {
        "cache_position", "deterministic", "labels", "layer_idx", "logits_to_keep", "max_length_k", "max_length_q",
        "mm_token_type_ids", "num_items_in_batch", "output_attentions", "output_hidden_states",
        "output_router_logits", "position_embeddings", "position_ids", "read_index", "return_dict", "return_loss",
        "seq_idx", "token_type_ids", "use_cache", "write_index",
    }
)  # fmt: skip

#: Where packed sequences begin. A mask carries that, if there is one.
_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k")


def calls_core(module: nn.Module) -> bool:
    """Whether a module gets its attention function from transformers' interface, and that is the core's."""
    config = getattr(module, "config", None)
    return getattr(config, "_attn_implementation", None) == NAME and calls(type(module)) == "interface"


def core_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the core, under the rules of transformers' ``sdpa_attention_forward``.

    Args:
        module: that calls; its :class:`~mmattn.plugins.site.Site`, if it has one, says how.
        query: ``[B, H, N, K]``.
        key, value: ``[B, H_kv, M, K]``; the values may have another width.
        attention_mask: broadcasts to ``[B, H, N, M]``: boolean, True = attend, or numbers added to the logits.
        dropout: probability of dropping a weight.
        scaling: factor on the logits; ``None`` is ``K ** -0.5``.
        is_causal: ``None`` asks the module, which is causal if it does not say. It holds where there is no mask and
            more than one query; the first query then stands beside the first key.
        position_bias: added to the logits (T5).
        softcap: of the logits (Gemma 2).
        s_aux: ``[H]``: sinks (gpt-oss).
        sliding_window: a query sees keys less than this number of tokens away. It is applied where there is no
            mask, since masks carry it.
        cache: of continuous batching; keys and values are put into it.
        **kwargs: ``output_attentions``; others must be None, or known to be harmless.

    Returns:
        ``[B, N, H, K_v]``, and the weights ``[B, H, N, M]`` if the model is asked for them, before dropout and
        head masks. Queries without any key get zeros.

    Raises:
        ValueError: a keyword argument would change the result, or the mask is neither boolean nor floating-point.

    Example:
        >>> q = k = v = torch.randn(2, 4, 7, 8)
        >>> out, weights = core_attention(nn.Module(), q, k, v, None, output_attentions=True)
        >>> out.shape, weights.shape
        (torch.Size([2, 7, 4, 8]), torch.Size([2, 4, 7, 7]))
    """
    _check_known(module, kwargs, attention_mask)
    site = site_of(module) or Site(type(module).__name__)
    plain = cache is None and position_bias is None and softcap is None and s_aux is None
    if (
        plain
        and (attention_mask is None or attention_mask.dtype == torch.bool)
        and not _wanted(module, kwargs)
    ):
        seen: Mask = attention_mask
        if seen is None:
            seen = _pattern(module, query.shape[2], is_causal, sliding_window)
        done = straight(site, query, key, value, seen, scaling, dropout)
        if done is not None:
            return _tokens_first(done), None
    if cache is not None:
        key, value = _stored(module, key, value, cache, kwargs)
    q, k, v = in_autocast(query, key, value)
    if q.shape[0] != k.shape[0]:  # learned queries, shared by the batch
        q = q.expand(k.shape[0], *q.shape[1:])
    mask, bias = _mask(module, q, attention_mask, position_bias, is_causal, sliding_window)
    if site.window is not None:
        mask = both(mask, site.window, q, k)
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    call = HostCall(q, k, v, Terms(scale, mask, bias, softcap, _sinks(s_aux, q), dropout), _tokens_first)
    out = run(site, call)
    return out, weights_of(call).to(query.dtype) if _wanted(module, kwargs) else None


def _mask(
    module: nn.Module,
    q: Tensor,
    attention_mask: Tensor | None,
    bias: Tensor | None,
    is_causal: bool | None,
    sliding_window: int | None,
) -> tuple[Mask, Tensor | None]:
    """Who sees whom, and what is added to the logits."""
    if attention_mask is None:
        return _pattern(module, q.shape[2], is_causal, sliding_window), bias
    if attention_mask.dtype == torch.bool:
        return attention_mask, bias
    if not attention_mask.is_floating_point():
        raise ValueError(f"an attention mask must be boolean or floating-point: got {attention_mask.dtype}")
    return None, attention_mask if bias is None else bias + attention_mask


def _pattern(
    module: nn.Module, num_queries: int, is_causal: bool | None, sliding_window: int | None
) -> Causal | Window | None:
    """What is seen of the keys where there is no mask."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    # a single query stands behind the keys of a cache, and sees all of them
    align: Align = "top-left" if num_queries > 1 else "bottom-right"
    if sliding_window is not None and sliding_window > 0:
        return Window(sliding_window - 1, 0 if causal else sliding_window - 1, align)
    return Causal("top-left") if causal and num_queries > 1 else None


def _sinks(s_aux: Tensor | None, q: Tensor) -> Tensor | None:
    if s_aux is None:
        return None
    if s_aux.numel() != q.shape[1]:
        raise ValueError(f"s_aux must be one for each of {q.shape[1]} heads: got shape {list(s_aux.shape)}")
    return s_aux.reshape(-1)


def _tokens_first(out: Tensor) -> Tensor:
    return out.transpose(1, 2).contiguous()


def _check_known(module: nn.Module, kwargs: dict[str, Any], attention_mask: Tensor | None) -> None:
    for name, value in kwargs.items():
        if value is None or value is False or name in HARMLESS:
            continue
        if name in _PACKED:
            if attention_mask is None and isinstance(value, Tensor) and value.numel() > 2:
                raise ValueError(
                    f"packed sequences need a mask, such as transformers makes from position_ids: "
                    f"got {name} of {value.numel() - 1} sequences without one in {type(module).__name__}"
                )
            continue
        raise ValueError(
            f"attention by mmattn must know each keyword argument that it is given: "
            f"got {name!r} from {type(module).__name__}"
        )


def _stored(
    module: nn.Module, key: Tensor, value: Tensor, cache: Any, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Keys and values with those that a paged cache holds; other caches were updated by the module."""
    paged = sys.modules.get("transformers.generation.continuous_batching.cache")
    if paged is None or not isinstance(cache, paged.PagedAttentionCache):
        return key, value
    stored: tuple[Tensor, Tensor] = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    return stored


def _wanted(module: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether the model is asked for its weights: by an argument, its config, or transformers' recorder of outputs.

    Some modules keep the argument to themselves (GPT-2), so that only the recorder knows.
    """
    config = getattr(module, "config", None)
    if kwargs.get("output_attentions") or getattr(config, "output_attentions", False):
        return True
    recorder = sys.modules.get("transformers.utils.output_capturing")
    collected = None if recorder is None else recorder._active_collector.get()
    return collected is not None and any(name.endswith("attentions") for name in collected)
