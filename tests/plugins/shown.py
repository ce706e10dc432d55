"""A model with sites inside, called together with what its watchers are shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.plugins import plug_in
from mmattn.plugins.calls import weights_of
from mmattn.plugins.site import sites
from mmattn.plugins.swap import Report, attach

B, N, D, H = 2, 6, 16, 4


class Shown:
    """A plugged model, and the weights that its watchers are shown."""

    def __init__(self, model: nn.Module, routed: bool = True) -> None:
        self.model = model
        self.weights: list[Tensor] = []
        self.report = plug_in(model) if routed else Report()
        if not routed:
            attach(model, self.report, routed=False)
        for _, site in sites(model):
            site.watchers.append(self._look)

    def __call__(self, *args, **kwargs):
        self.weights = []
        with torch.no_grad():
            return self.model(*args, **kwargs)

    def _look(self, seen) -> None:
        self.weights.append(seen.weights.clone() if seen.weights is not None else weights_of(seen))


class Functional(nn.Module):
    """Attention by a function of q, k, v and a mask."""

    def __init__(self, rule) -> None:
        super().__init__()
        self.qkv = nn.Linear(D, 3 * D)
        self.num_heads = H
        self.rule = rule

    def forward(self, x, mask):
        q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        return self.rule(self, q, k, v, mask).transpose(1, 2).flatten(2)


class ByTorch(Functional):
    def forward(self, x, mask):
        q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
