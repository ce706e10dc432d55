"""Weights of other libraries' attention as a :class:`~mmattn.attention.MultiHeadAttention`, and back.

Every conversion copies: nothing is shared with the module it came from. Values, dtype, device, training mode and
``requires_grad`` are kept, outputs are equal to rounding, and what cannot be carried is refused by its name.
Three things are left to the caller, since here they belong to a call: masks (pass ``mask=Causal()`` where the other
module was causal by itself), hooks, and coordinates. The module is batch-first.

A projection of ours has a bias where the one that it came from has one, so a converted module may have a bias in
``out_proj`` alone, which no argument of MultiHeadAttention gives; its state fits a module converted alike.
"""

from mmattn.convert.projections import Projections, from_projections, to_projections
from mmattn.convert.timm import from_timm, to_timm
from mmattn.convert.torch_nn import from_torch_nn, to_torch_nn
from mmattn.convert.transformers import from_transformers
from mmattn.convert.x_transformers import from_x_transformers, to_x_transformers

__all__ = [
    "Projections",
    "from_projections",
    "from_timm",
    "from_torch_nn",
    "from_transformers",
    "from_x_transformers",
    "to_projections",
    "to_timm",
    "to_torch_nn",
    "to_x_transformers",
]
