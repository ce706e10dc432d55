"""Options of torch.nn's attention, masks and small models that several tests go through."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

B, N, M, D, H = 3, 5, 7, 24, 4
PAD = torch.arange(M) >= torch.tensor([7, 5, 3])[:, None]
SELF_PAD = torch.arange(N) >= torch.tensor([5, 4, 2])[:, None]
HIDDEN = torch.rand(N, M, generator=torch.Generator().manual_seed(3)) < 0.3
HIDDEN[:, 0] = False
OF_HEADS = torch.rand(B * H, N, M, generator=torch.Generator().manual_seed(4)) < 0.3
OF_HEADS[..., 0] = False
FLOAT = torch.randn(N, M, generator=torch.Generator().manual_seed(5))

MODULES = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "kdim and vdim": {"kdim": 10, "vdim": 14},
    "no bias": {"bias": False},
    "add_bias_kv": {"add_bias_kv": True},
    "add_zero_attn": {"add_zero_attn": True},
    "everything": {"kdim": 10, "vdim": 14, "add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
}
MASKS = {
    "no mask": {},
    "padding": {"key_padding_mask": PAD},
    "padding in numbers": {"key_padding_mask": PAD * -3.0},
    "mask": {"attn_mask": HIDDEN},
    "mask in numbers": {"attn_mask": FLOAT},
    "mask for each head": {"attn_mask": OF_HEADS},
    "numbers for each head": {"attn_mask": OF_HEADS * -2.0},
    "mask and padding": {"attn_mask": HIDDEN, "key_padding_mask": PAD},
    "numbers and padding": {"attn_mask": FLOAT, "key_padding_mask": PAD * -3.0},
    "heads and padding": {"attn_mask": OF_HEADS, "key_padding_mask": PAD},
}


def inputs(options: dict, batched: bool = True) -> list[torch.Tensor]:
    widths = (D, options.get("kdim", D), options.get("vdim", D))
    found = []
    for tokens, width in zip((N, M, M), widths, strict=True):
        x = torch.randn(tokens, B, width) if batched else torch.randn(tokens, width)
        found.append((x.transpose(0, 1) if options.get("batch_first") and batched else x).requires_grad_())
    return found


def layer(norm_first: bool = False, batch_first: bool = True, kind=nn.TransformerEncoderLayer, **more):
    options = {"dropout": 0.0, "batch_first": batch_first, "norm_first": norm_first} | more
    return kind(D, H, 32, **options)


def encoder(depth: int = 2, **options) -> nn.TransformerEncoder:
    part = layer(**options)
    return nn.TransformerEncoder(
        part, depth, enable_nested_tensor=not part.norm_first and part.self_attn.batch_first
    )


class Classifier(nn.Module):
    """Two encoder layers of torch.nn between two linear ones; layers may be checkpointed."""

    def __init__(self, dropout: float = 0.0, reentrant: bool | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(6, D)
        layer = nn.TransformerEncoderLayer(D, H, 32, dropout=dropout, batch_first=True)
        self.layers = nn.ModuleList([layer, copy.deepcopy(layer)])
        self.head = nn.Linear(D, 3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x) if self.reentrant is None else checkpoint(layer, x, use_reentrant=self.reentrant)
        return self.head(x.mean(1))
