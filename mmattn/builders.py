"""From plain numbers to models: what YAML files and first-time users call."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mmattn.attention import MultiHeadAttention
from mmattn.blocks import Block, FeedForward
from mmattn.decoder import Decoder, DecoderBlock
from mmattn.encoder import Encoder
from mmattn.heads import AttentionPool, Classifier, MeanPool
from mmattn.positions.absolute import SinusoidalPositions
from mmattn.positions.rotary import RotaryPositions

Attention = Literal["softmax", "uniform"]


def build_encoder(
    embed_dim: int,
    depth: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    hidden_dropout: float | None = None,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    qk_norm: bool = False,
    positions: Literal["rotary", "sinusoidal", "none"] = "rotary",
    rotary_base: float = 10_000.0,
    attention: Attention = "softmax",
    backend: str = "auto",
) -> Encoder:
    """Build the encoder that all domains share: pre-norm blocks of self-attention and feed-forward.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        num_heads: attention heads; must divide embed_dim.
        num_kv_heads: heads of keys and values; ``None`` takes num_heads.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        dropout: on the branches.
        hidden_dropout: on the hidden features of the feed-forward layers; ``None`` takes dropout.
        attention_dropout: on the attention weights.
        drop_path: of the last block; grows linearly from 0 at the first.
        qk_norm: RMS norm of each head's queries and keys.
        positions: how the encoder knows where tokens stand.
        rotary_base: base of the rotary positions.
        attention: ``"uniform"`` is the control: same modules and parameters, all allowed keys weigh the same.
        backend: ``"auto"`` or the name of an attention backend.

    Raises:
        ValueError: a number does not fit; the message says which.

    Example:
        >>> sum(p.numel() for p in build_encoder(16, depth=2, num_heads=4).parameters())
        6592
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1: got {depth}")
    if positions not in ("rotary", "sinusoidal", "none"):
        raise ValueError(f"positions must be 'rotary', 'sinusoidal' or 'none': got {positions!r}")
    hidden = dropout if hidden_dropout is None else hidden_dropout
    rotary = RotaryPositions(rotary_base) if positions == "rotary" else None
    head_dim = embed_dim // max(num_heads, 1)
    blocks = []
    for index in range(depth):
        mha = MultiHeadAttention(
            embed_dim,
            num_heads,
            num_kv_heads=num_kv_heads,
            qk_norm=nn.RMSNorm(head_dim) if qk_norm else None,
            positions=rotary,
            dropout=attention_dropout,
            scale=_scale(attention),
            backend=backend,
        )
        mlp = FeedForward(embed_dim, int(embed_dim * mlp_ratio), hidden)
        share = index / max(depth - 1, 1)
        norms = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        blocks.append(Block(mha, mlp, *norms, dropout=dropout, drop_path=drop_path * share))
    absolute = SinusoidalPositions(embed_dim) if positions == "sinusoidal" else None
    return Encoder(blocks, nn.LayerNorm(embed_dim), absolute)


def build_decoder(
    embed_dim: int,
    depth: int,
    num_heads: int,
    *,
    num_kv_heads: int | None = None,
    context: bool = False,
    context_dim: int | None = None,
    mlp_ratio: float = 4.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    qk_norm: bool = False,
    positions: Literal["rotary", "sinusoidal", "none"] = "rotary",
    rotary_base: float = 10_000.0,
    window: int | None = None,
    backend: str = "auto",
) -> Decoder:
    """Build a decoder: pre-norm blocks of causal self-attention, cross-attention if wanted, and feed-forward.

    Args:
        embed_dim: width D of the tokens.
        depth: number of blocks.
        num_heads: attention heads; must divide embed_dim.
        num_kv_heads: heads of keys and values, in both kinds of attention; ``None`` takes num_heads.
        context: whether the blocks attend to a context, e.g. to an encoder's output.
        context_dim: width of the context; ``None`` takes embed_dim.
        mlp_ratio: hidden width of the feed-forward layers over embed_dim.
        dropout: on the branches and hidden features.
        attention_dropout: on the attention weights.
        drop_path: of the last block; grows linearly from 0 at the first.
        qk_norm: RMS norm of each head's queries and keys.
        positions: how the decoder knows where tokens stand; cross-attention has no positions of its own.
        rotary_base: base of the rotary positions.
        window: sliding-window attention over this many tokens, the token itself included; ``None``: all before.
        backend: ``"auto"`` or the name of an attention backend.

    Raises:
        ValueError: a number does not fit; the message says which.

    Example:
        >>> decoder = build_decoder(16, depth=2, num_heads=4)
        >>> sum(p.numel() for p in decoder.parameters())  # as build_encoder
        6592
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1: got {depth}")
    if positions not in ("rotary", "sinusoidal", "none"):
        raise ValueError(f"positions must be 'rotary', 'sinusoidal' or 'none': got {positions!r}")
    if context_dim is not None and not context:
        raise ValueError(f"context_dim needs context=True: got context_dim={context_dim}, context=False")
    rotary = RotaryPositions(rotary_base) if positions == "rotary" else None
    norm = nn.RMSNorm(embed_dim // max(num_heads, 1)) if qk_norm else None

    def attention(width: int | None, turned: RotaryPositions | None) -> MultiHeadAttention:
        return MultiHeadAttention(
            embed_dim, num_heads, num_kv_heads=num_kv_heads, context_dim=width, qk_norm=norm,
            positions=turned, dropout=attention_dropout, backend=backend,
        )  # fmt: skip

    blocks = []
    for index in range(depth):
        blocks.append(
            DecoderBlock(
                attention(None, rotary),
                FeedForward(embed_dim, int(embed_dim * mlp_ratio), dropout),
                nn.LayerNorm(embed_dim),
                nn.LayerNorm(embed_dim),
                attention(context_dim or embed_dim, None) if context else None,
                nn.LayerNorm(embed_dim) if context else None,
                dropout=dropout,
                drop_path=drop_path * index / max(depth - 1, 1),
            )
        )
    absolute = SinusoidalPositions(embed_dim) if positions == "sinusoidal" else None
    return Decoder(blocks, nn.LayerNorm(embed_dim), absolute, window)


def build_classifier(
    embed_dim: int,
    num_classes: int,
    *,
    pool: Literal["attention", "mean"] = "attention",
    num_heads: int = 4,
    dropout: float = 0.0,
    attention: Attention = "softmax",
) -> Classifier:
    """Build a classification head.

    Args:
        embed_dim: width D of the encoder's tokens.
        num_classes: number of classes.
        pool: ``"attention"``: a learned query attends to the tokens; ``"mean"``: their mean.
        num_heads: heads of the pooling attention.
        dropout: on the pooled features.
        attention: ``"uniform"`` makes the pooling attention the uniform control.

    Raises:
        ValueError: a number does not fit; the message says which.
    """
    if pool not in ("attention", "mean"):
        raise ValueError(f"pool must be 'attention' or 'mean': got {pool!r}")
    if pool == "mean":
        return Classifier(MeanPool(), embed_dim, num_classes, dropout)
    mha = MultiHeadAttention(embed_dim, num_heads, scale=_scale(attention))
    return Classifier(AttentionPool(mha), embed_dim, num_classes, dropout)


def _scale(attention: str) -> float | None:
    if attention not in ("softmax", "uniform"):
        raise ValueError(f"attention must be 'softmax' or 'uniform': got {attention!r}")
    return None if attention == "softmax" else 0.0
