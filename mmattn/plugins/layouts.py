"""Where the heads of an attention module lie in its parameters."""

from __future__ import annotations

from torch import nn

from mmattn.attention import HeadGate, MultiHeadAttention
from mmattn.plugins.cuts import Block, Cut, Heads, Layout, NoLayoutError, features, heads_of
from mmattn.plugins.find import class_name
from mmattn.plugins.host_layouts import host_layout, tables
from mmattn.plugins.layout_names import NO_SLICES
from mmattn.plugins.site import HEADS
from mmattn.positions.bias import ALiBi
from mmattn.positions.relative import GridBias, RelativeBias


def layout_of(model: nn.Module, name: str) -> Layout:
    """The layout of an attention module, with the heads that are left now.

    Raises:
        NoLayoutError: it is not known, or its heads do not act on their own.
    """
    module = model.get_submodule(name)
    kind = class_name(type(module))
    if isinstance(module, MultiHeadAttention):
        return _own(module)
    if kind in NO_SLICES:
        raise NoLayoutError(NO_SLICES[kind])
    if isinstance(module, nn.MultiheadAttention):
        return _torch_nn(module, module)
    inner = getattr(module, "attention", None)
    if isinstance(inner, nn.MultiheadAttention):  # only keeps the weights of the module around
        layout = _torch_nn(module, inner)
        layout.cuts += tables(module, layout.heads)
        return layout
    return host_layout(model, name, module, kind)


def _torch_nn(module: nn.Module, holder: nn.MultiheadAttention) -> Layout:
    heads = heads_of(module)
    if "weight" not in holder.out_proj._parameters:
        raise NoLayoutError("its output projection is made anew at each call")
    width = holder.head_dim
    three = (Block(width), Block(width, True), Block(width, True))
    cuts = [
        Cut(holder, "in_proj_weight", 0, three),
        *(Cut(holder, f"{part}_proj_weight", 0, (Block(width),)) for part in "qkv"),
        Cut(holder, "in_proj_bias", 0, three),
        Cut(holder, "bias_k", 2, (Block(width),)),
        Cut(holder, "bias_v", 2, (Block(width),)),
        Cut(holder.out_proj, "weight", 1, (Block(width),)),
    ]
    return Layout([cut for cut in cuts if cut.tensor is not None], heads)


def _own(module: MultiHeadAttention) -> Layout:
    if HEADS in module.__dict__:
        heads = heads_of(module)
    else:
        heads = Heads.all(module.num_heads, module.num_kv_heads, narrow=True)
    width = module.head_dim
    pair = (Block(width, True), Block(width, True))
    if module.context_dim is None:
        cuts = features(module.qkv_proj, (Block(width), *pair), 0)
    else:
        cuts = features(module.q_proj, (Block(width),), 0) + features(module.kv_proj, pair, 0)
    cuts += features(module.out_proj, (Block(width),), 1)
    if module.sinks is not None:
        cuts.append(Cut(module, "sinks", 0, (Block(1),)))
    if isinstance(module.gate, HeadGate):
        cuts += features(module.gate.proj, (Block(module.gate.head_dim or 1),), 0)
    elif module.gate is not None:
        raise NoLayoutError(f"its gate is a {type(module.gate).__name__}, whose heads are not known")
    bias = module.position_bias
    if isinstance(bias, (RelativeBias, GridBias)):
        cuts.append(Cut(bias, "table", 1, (Block(1),)))
    elif isinstance(bias, ALiBi):
        cuts.append(Cut(bias, "slopes", 0, (Block(1),)))
    elif bias is not None:
        raise NoLayoutError(f"its position bias is a {type(bias).__name__}, whose heads are not known")
    return Layout(cuts, heads, {"num_heads": "heads", "num_kv_heads": "kv"})
