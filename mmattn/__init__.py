"""mmattn: one multi-head attention core for pictures, speech and text."""

from mmattn.adapters.audio import AudioFrames
from mmattn.adapters.image import ImagePatches
from mmattn.adapters.ngrams import TextNgrams
from mmattn.adapters.text import TextTokens
from mmattn.attention import MultiHeadAttention
from mmattn.backends import Backend
from mmattn.blocks import Block, FeedForward
from mmattn.builders import build_classifier, build_encoder
from mmattn.encoder import Encoder
from mmattn.functional import attend, attention_weights, explain
from mmattn.heads import AttentionPool, Classifier, MeanPool
from mmattn.masks import (
    Causal,
    KeyLengths,
    Pattern,
    Segments,
    Window,
    from_attention_mask,
    from_key_padding_mask,
)
from mmattn.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from mmattn.tokens import TokenBatch

__version__ = "0.1.0"

__all__ = [
    "AttentionPool",
    "AudioFrames",
    "Backend",
    "Block",
    "Causal",
    "Classifier",
    "Encoder",
    "FeedForward",
    "ImagePatches",
    "KeyLengths",
    "LearnedPositions",
    "MeanPool",
    "MultiHeadAttention",
    "Pattern",
    "RotaryPositions",
    "Segments",
    "SinusoidalPositions",
    "TextNgrams",
    "TextTokens",
    "TokenBatch",
    "Window",
    "attend",
    "attention_weights",
    "build_classifier",
    "build_encoder",
    "explain",
    "from_attention_mask",
    "from_key_padding_mask",
]
