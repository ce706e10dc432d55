"""mmattn: one multi-head attention core for pictures, speech and text."""

from mmattn.adapters.audio import AudioFrames
from mmattn.adapters.image import ImagePatches
from mmattn.adapters.ngrams import TextNgrams
from mmattn.adapters.text import TextTokens
from mmattn.attention import HeadGate, MultiHeadAttention
from mmattn.backends import Backend, Calibration, use_calibration
from mmattn.blocks import Block, FeedForward
from mmattn.builders import build_classifier, build_decoder, build_encoder
from mmattn.cache import KVCache, Memory
from mmattn.decoder import Decoder, DecoderBlock, DecoderState
from mmattn.encoder import Encoder
from mmattn.functional import attend, attention_weights, explain
from mmattn.heads import AttentionPool, Classifier, MeanPool
from mmattn.masks import (
    Causal,
    KeyLengths,
    Neighbourhood,
    Pattern,
    Prefix,
    Segments,
    Window,
    from_additive_mask,
    from_attention_mask,
    from_attn_mask,
    from_batch_mask,
    from_key_padding_mask,
    from_sdpa_mask,
)
from mmattn.positions import (
    ALiBi,
    GridBias,
    LearnedPositions,
    PositionBias,
    RelativeBias,
    RotaryPositions,
    SinusoidalPositions,
    ntk_base,
)
from mmattn.registers import Registers
from mmattn.tokens import TokenBatch

__version__ = "0.1.0"

__all__ = [
    "ALiBi",
    "AttentionPool",
    "AudioFrames",
    "Backend",
    "Block",
    "Calibration",
    "Causal",
    "Classifier",
    "Decoder",
    "DecoderBlock",
    "DecoderState",
    "Encoder",
    "FeedForward",
    "GridBias",
    "HeadGate",
    "ImagePatches",
    "KVCache",
    "KeyLengths",
    "LearnedPositions",
    "MeanPool",
    "Memory",
    "MultiHeadAttention",
    "Neighbourhood",
    "Pattern",
    "PositionBias",
    "Prefix",
    "Registers",
    "RelativeBias",
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
    "build_decoder",
    "build_encoder",
    "explain",
    "from_additive_mask",
    "from_attention_mask",
    "from_attn_mask",
    "from_batch_mask",
    "from_key_padding_mask",
    "from_sdpa_mask",
    "ntk_base",
    "use_calibration",
]
