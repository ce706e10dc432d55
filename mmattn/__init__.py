"""mmattn: one multi-head attention core for pictures, speech and text."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from mmattn.observation import (
        head_importance,
        observe,
        padding_lint,
        prune_heads,
        pruned_heads,
        relevance,
        set_head_mask,
    )
    from mmattn.plugins import plug_in, unplug

__version__ = "0.1.0"

#: Loaded when they are first asked for: they are for looking into models, and many who train one never do.
_LATER = {
    "head_importance": "mmattn.observation",
    "observe": "mmattn.observation",
    "padding_lint": "mmattn.observation",
    "plug_in": "mmattn.plugins",
    "prune_heads": "mmattn.observation",
    "pruned_heads": "mmattn.observation",
    "relevance": "mmattn.observation",
    "set_head_mask": "mmattn.observation",
    "unplug": "mmattn.plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


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
    "head_importance",
    "ntk_base",
    "observe",
    "padding_lint",
    "plug_in",
    "prune_heads",
    "pruned_heads",
    "relevance",
    "set_head_mask",
    "unplug",
    "use_calibration",
]
