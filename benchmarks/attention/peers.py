"""The contenders: attention layers and encoders of other libraries, each behind one signature.

The libraries are imported when a contender is built; ``torch`` has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmattn import MultiHeadAttention

#: How a peer computes attention: torch's fused function, or products and a softmax.
How = Literal["sdpa", "plain"]


def load(module: str) -> Any:
    """Import a peer.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0].replace("_", "-")
        raise SystemExit(f"the benchmark needs {package}, which is not installed: {error}") from error


# One attention layer, [B, L, D] -> [B, L, D] -------------------------------------------------------------------


class TorchAttention(nn.Module):
    """torch.nn.MultiheadAttention as self-attention without weights."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class BertAttention(nn.Module):
    """transformers' BERT self-attention with its output projection, without norm and dropout."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        bert = load("transformers.models.bert.modeling_bert")
        self.attention = bert.BertSelfAttention(bert_config(embed_dim, num_heads, "sdpa", 0.0))
        self.dense = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.attention(x)[0])
        return out


def _timm_attention(embed_dim: int, num_heads: int) -> nn.Module:
    layer: nn.Module = load("timm.layers").Attention(embed_dim, num_heads, qkv_bias=True)
    return layer


def _x_attention(embed_dim: int, num_heads: int) -> nn.Module:
    module = load("x_transformers.x_transformers")
    layer: nn.Module = module.Attention(
        embed_dim, heads=num_heads, dim_head=embed_dim // num_heads, flash=True
    )
    return layer


def _attention_without_bias(embed_dim: int, num_heads: int) -> nn.Module:
    return MultiHeadAttention(embed_dim, num_heads, bias=False)


#: (embed_dim, num_heads) -> layer. x-transformers' projections have no bias, so ours has none beside it.
ATTENTION_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "mmattn": MultiHeadAttention,
    "mmattn, no bias": _attention_without_bias,
    "torch.nn": TorchAttention,
    "timm": _timm_attention,
    "transformers": BertAttention,
    "x-transformers": _x_attention,
}

# Encoders, ([B, L, D], mask [B, L] with True = real token) -> [B, L, D] ----------------------------------------


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder, pre-norm."""

    def __init__(self, embed_dim: int, depth: int, num_heads: int, dropout: float, how: How) -> None:
        super().__init__()
        kind = nn.TransformerEncoderLayer if how == "sdpa" else _PlainLayer
        layer = kind(embed_dim, num_heads, 4 * embed_dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(
            layer, depth, norm=nn.LayerNorm(embed_dim), enable_nested_tensor=False
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.encoder(x, src_key_padding_mask=~mask)
        return out


class _PlainLayer(nn.TransformerEncoderLayer):
    """Asks for the weights, which torch.nn then computes by products and a softmax."""

    def _sa_block(
        self, x: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None, is_causal: bool = False
    ) -> Tensor:
        x = self.self_attn(
            x, x, x, attn_mask=attn_mask, key_padding_mask=key_padding_mask,
            need_weights=True, average_attn_weights=False, is_causal=is_causal,
        )[0]  # fmt: skip
        out: Tensor = self.dropout1(x)
        return out


class BertEncoder(nn.Module):
    """transformers' BertModel on given embeddings, without its pooler."""

    def __init__(self, embed_dim: int, depth: int, num_heads: int, dropout: float, how: How) -> None:
        super().__init__()
        bert = load("transformers.models.bert.modeling_bert")
        config = bert_config(embed_dim, num_heads, "sdpa" if how == "sdpa" else "eager", dropout, depth)
        self.model = bert.BertModel(config, add_pooling_layer=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.model(inputs_embeds=x, attention_mask=mask).last_hidden_state
        return out


class XEncoder(nn.Module):
    """x-transformers' Encoder."""

    def __init__(self, embed_dim: int, depth: int, num_heads: int, dropout: float, how: How) -> None:
        super().__init__()
        self.encoder = load("x_transformers.x_transformers").Encoder(
            dim=embed_dim,
            depth=depth,
            heads=num_heads,
            attn_dim_head=embed_dim // num_heads,
            attn_flash=how == "sdpa",
            attn_dropout=dropout,
            # its counterpart of the dropout on the attention branch
            attn_sublayer_dropout=dropout,
            ff_dropout=dropout,
            ff_sublayer_dropout=dropout,
            verbose=False,
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.encoder(x, mask=mask)
        return out


#: (embed_dim, depth, num_heads, dropout, how) -> encoder.
ENCODERS: dict[str, Callable[[int, int, int, float, How], nn.Module]] = {
    "torch.nn": TorchEncoder,
    "transformers": BertEncoder,
    "x-transformers": XEncoder,
}


class PaddedClassifier(nn.Module):
    """An encoder of a peer, the mean of its real tokens, a linear layer: ``[B, L, D]`` to ``[B, classes]``."""

    def __init__(self, encoder: nn.Module, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = nn.Linear(embed_dim, classes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask``: ``[B, L]``, True = real token."""
        weights = (mask / mask.sum(1, keepdim=True)).unsqueeze(-1)
        logits: Tensor = self.linear((self.encoder(x, mask) * weights).sum(1))
        return logits


def bert_config(embed_dim: int, num_heads: int, attention: str, dropout: float, depth: int = 1) -> Any:
    """transformers' configuration of a BERT with our sizes."""
    return load("transformers").BertConfig(
        vocab_size=2,
        hidden_size=embed_dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=4 * embed_dim,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=1024,
        attn_implementation=attention,
    )


def vision_transformer(how: How, **sizes: Any) -> nn.Module:
    """timm's VisionTransformer; ``sizes`` as it calls them."""
    layers = load("timm.layers")
    fused = layers.use_fused_attn()
    layers.set_fused_attn(how == "sdpa")
    try:
        model: nn.Module = load("timm.models.vision_transformer").VisionTransformer(**sizes)
    finally:
        layers.set_fused_attn(bool(fused))
    return model


def count_parameters(module: nn.Module) -> int:
    """Numbers that an optimiser moves."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def seeded(build: Callable[..., nn.Module], *args: Any, seed: int = 0, **kwargs: Any) -> nn.Module:
    """Build a module from a seed."""
    torch.manual_seed(seed)
    return build(*args, **kwargs)
