"""Attention modules of Hugging Face's transformers, by the names of their attributes."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import nn

from mmattn.attention import MultiHeadAttention
from mmattn.convert.assembly import affine, assemble, copied
from mmattn.convert.projections import from_projections
from mmattn.positions import RelativeBias, RotaryPositions


class Layout(NamedTuple):
    """How a family of models names the parts of its attention."""

    #: the projections of queries, keys and values: one, two (queries; keys and values) or three
    project_in: tuple[str, ...]
    #: the output projection, by all names in use; it may live elsewhere
    out: tuple[str, ...]
    #: the factor on the logits where the module names none; ``None`` is ``K ** -0.5``
    scale: float | None = None


LAYOUTS = (
    # BART, CLIP, Gemma, gpt-oss, Llama, Mistral, OPT, Phi, Qwen, SigLIP, ViT, wav2vec 2, Whisper, ...
    Layout(("q_proj", "k_proj", "v_proj"), ("o_proj", "out_proj", "dense")),
    # ALBERT, BERT, ELECTRA, RoBERTa, older ViT
    Layout(("query", "key", "value"), ("dense",)),
    # DistilBERT, XLM
    Layout(("q_lin", "k_lin", "v_lin"), ("out_lin",)),
    # T5
    Layout(("q", "k", "v"), ("o",), scale=1.0),
    # GPT-2: cross-attention, then self-attention
    Layout(("q_attn", "c_attn"), ("c_proj",)),
    Layout(("c_attn",), ("c_proj",)),
)

_HEADS = ("num_heads", "num_attention_heads", "n_heads")
_HEAD_DIM = ("head_dim", "attention_head_size", "key_value_proj_dim")
_SCALE = ("scaling", "scale")
# in this order: where a module has several, the first is that of the weights
_DROPOUT = ("attention_dropout", "attn_dropout", "dropout")
_NORMS = ("q_norm", "k_norm")
_TURNED = ("rotary_ndims", "rotary_dim")


def from_transformers(
    module: nn.Module,
    out: nn.Module | None = None,
    *,
    positions: RotaryPositions | None = None,
) -> MultiHeadAttention:
    """An attention module of Hugging Face's transformers as ours; :data:`LAYOUTS` lists the names it goes by.

    Grouped heads, the scale, dropout of the weights, norms for each head (Qwen 3), a soft cap (Gemma 2), sinks
    (gpt-oss) and the learned bias of T5's first layer are carried; its other layers get it as ``bias`` of the call.
    Causal and sliding-window masks belong to the call: ``mask=Causal() & Window(n - 1, 0)``.
    GPT-2's ``Conv1D`` is transposed. Where only some of queries, keys and values have a bias (BEiT, Whisper), it is
    zeros in the others.

    Args:
        module: the module that projects and attends.
        out: the output projection where the module has none: BERT's ``attention.output.dense``.
        positions: for a model that turns queries and keys, of which the module knows nothing. Llama and most
            others: ``RotaryPositions(base=config.rope_parameters["rope_theta"], interleaved=False)``.

    Raises:
        TypeError: a projection is no plain ``nn.Linear``, as in a quantised or adapted model.
        ValueError: the names fit no layout, ``out`` is missing or left over, ``positions`` are missing or others
            than the model's, or the module has parts that ours lacks. Dropout after the output projection is
            among those: set its ``p`` to 0 and apply it to the result.

    Example:
        >>> from transformers import ViTConfig
        >>> from transformers.models.vit.modeling_vit import ViTAttention
        >>> config = ViTConfig(hidden_size=8, num_attention_heads=2, attn_implementation="eager")
        >>> theirs, x = ViTAttention(config).eval(), torch.randn(3, 5, 8)
        >>> torch.allclose(from_transformers(theirs)(x), theirs(x)[0], atol=1e-6)
        True
    """
    kind = type(module).__name__
    layout = next((x for x in LAYOUTS if all(_layer(module, name) for name in x.project_in)), None)
    if layout is None:
        known = ", ".join("/".join(x.project_in) for x in LAYOUTS)
        raise ValueError(f"from_transformers knows modules with {known}: got {kind}")
    out_name = next((name for name in layout.out if _layer(module, name)), None)
    if (out is None) == (out_name is None):
        raise ValueError(
            f"out must be given where the module has no output projection, and only there: "
            f"got out={out if out is None else type(out).__name__} for {kind} with {out_name}"
        )
    _check_parts(module, {*layout.project_in, *layout.out})
    _check_turns(module, positions)
    layers = [getattr(module, name) for name in layout.project_in]
    out = getattr(module, out_name) if out is None and out_name is not None else out
    assert out is not None
    return _assembled(module, layers, out, layout.scale, positions)


def _assembled(
    module: nn.Module,
    layers: list[nn.Module],
    out: nn.Module,
    scale: float | None,
    positions: RotaryPositions | None,
) -> MultiHeadAttention:
    heads = _first(module, _HEADS) or _first(getattr(module, "config", module), _HEADS)
    if heads is None:
        raise ValueError(f"{type(module).__name__} must name its heads: got none of {', '.join(_HEADS)}")
    dropout = _first(module, _DROPOUT)
    options: dict[str, Any] = {
        "positions": positions,
        "dropout": dropout.p if isinstance(dropout, nn.Dropout) else float(dropout or 0.0),
        "scale": _first(module, _SCALE, scale),
        "q_norm": getattr(module, "q_norm", None),
        "k_norm": getattr(module, "k_norm", None),
        "sinks": getattr(module, "sinks", None),
        "soft_cap": getattr(module, "attn_logit_softcapping", None),
        "position_bias": _relative_bias(module),
        "training": module.training,
    }
    if len(layers) == 3:
        q, k, v = layers
        of_q, of_k = affine("q", q).weight, affine("k", k).weight
        head_dim = _first(module, _HEAD_DIM, len(of_q) // heads)
        if len(of_q) != heads * head_dim:
            raise ValueError(f"q must have {heads * head_dim} outputs and no gate: got {len(of_q)}")
        return from_projections(q, k, v, out, heads, len(of_k) // head_dim, **options)
    parts = [affine(f"projection {i}", layer) for i, layer in enumerate(layers)]
    return assemble(
        parts,
        affine("out", out),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=_first(module, _HEAD_DIM),
        **options,
    )


def _relative_bias(module: nn.Module) -> RelativeBias | None:
    learned = getattr(module, "relative_attention_bias", None)
    if learned is None:
        return None
    with torch.random.fork_rng(devices=[]):  # its first values are drawn and thrown away
        bias = RelativeBias(
            learned.weight.shape[1],
            num_buckets=learned.weight.shape[0],
            max_distance=_first(module, ("relative_attention_max_distance",)),
            bidirectional=not getattr(module, "is_decoder", False),
        ).to(learned.weight.device)
    bias.table = copied(learned.weight)
    return bias


def _layer(module: nn.Module, name: str) -> bool:
    """Whether the module has a part of this name."""
    return isinstance(getattr(module, name, None), nn.Module)


def _first(module: nn.Module, names: tuple[str, ...], default: Any = None) -> Any:
    return next((getattr(module, name) for name in names if getattr(module, name, None) is not None), default)


def _check_parts(module: nn.Module, layers: set[str]) -> None:
    """Refuse every part that would be lost."""
    kind = type(module).__name__
    of_weights = next((name for name in _DROPOUT if getattr(module, name, None) is not None), "")
    known = layers | {of_weights, "relative_attention_bias"}
    head_dim = _first(module, _HEAD_DIM)
    for name, part in module.named_children():
        if name in _NORMS and all(p.numel() == head_dim for p in part.parameters()):
            continue
        lost = part.p > 0 if isinstance(part, nn.Dropout) else not isinstance(part, nn.Identity)
        if lost and name not in known:
            raise ValueError(f"from_transformers cannot carry {name} of {kind}: got {part}")
    own = {*module._parameters, *module._buffers} - {"sinks"}
    for name in sorted(name for name in own if getattr(module, name) is not None):
        raise ValueError(f"from_transformers cannot carry {name} of {kind}: got a tensor")
    clip = getattr(getattr(module, "config", None), "clip_qkv", None)
    if clip is not None:
        raise ValueError(f"from_transformers cannot carry clip_qkv of {kind}: got clip_qkv={clip}")


def _check_turns(module: nn.Module, positions: RotaryPositions | None) -> None:
    """Refuse positions other than the model's, as far as the module tells; the order of features it does not."""
    kind = type(module).__name__
    turned = _first(module, _TURNED)
    turns = "position_embeddings" in inspect.signature(module.forward).parameters or turned is not None
    if turns and positions is None:
        raise ValueError(f"{kind} turns queries and keys: pass positions=RotaryPositions(...)")
    if positions is None:
        return
    if not turns:
        raise ValueError(f"{kind} does not turn queries and keys: got positions={positions}")
    head_dim = _first(module, _HEAD_DIM)
    rope = getattr(getattr(module, "config", None), "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear"):
        raise ValueError(f"from_transformers cannot carry the rope_type of {kind}: got {rope['rope_type']}")
    turned = turned or int(head_dim * rope.get("partial_rotary_factor", 1.0))
    for name, ours, theirs in (
        ("base", positions.base, rope.get("rope_theta", positions.base)),
        ("rotary_dim", positions.rotary_dim or head_dim, turned),
        ("interpolation", positions.interpolation, rope.get("factor", 1.0)),
    ):
        if ours != theirs:
            raise ValueError(f"positions must have {name}={theirs} for this {kind}: got {name}={ours}")
