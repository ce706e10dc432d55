"""Who may attend to whom, and the masks of other libraries as ours. True = may attend."""

from mmattn.masks.base import And, Band, Or, Pairs, Pattern
from mmattn.masks.importers import (
    from_additive_mask,
    from_attention_mask,
    from_attn_mask,
    from_batch_mask,
    from_key_padding_mask,
    from_sdpa_mask,
)
from mmattn.masks.patterns import (
    Causal,
    KeyLengths,
    Neighbourhood,
    Prefix,
    Segments,
    Window,
)

__all__ = [
    "And",
    "Band",
    "Causal",
    "KeyLengths",
    "Neighbourhood",
    "Or",
    "Pairs",
    "Pattern",
    "Prefix",
    "Segments",
    "Window",
    "from_additive_mask",
    "from_attention_mask",
    "from_attn_mask",
    "from_batch_mask",
    "from_key_padding_mask",
    "from_sdpa_mask",
]
