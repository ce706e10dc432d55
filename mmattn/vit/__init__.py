"""Vision transformers on packed tokens: pictures of several resolutions and aspect ratios in one batch.

:func:`build_vit` makes one of :data:`PRESETS`, :func:`from_timm` and :func:`from_torchvision` make one of other
people's weights. ``import mmattn.vit.timm_models`` registers the presets with timm.
"""

from mmattn.vit.head import PictureHead
from mmattn.vit.model import VisionTransformer
from mmattn.vit.of_timm import from_timm, timm_state, to_timm
from mmattn.vit.of_torchvision import from_torchvision, to_torchvision, torchvision_state
from mmattn.vit.positions import GridPositions
from mmattn.vit.presets import PRESETS, VitPreset, build_vit
from mmattn.vit.states import read_state
from mmattn.vit.tokens import PictureTokens
from mmattn.vit.trunk import encoder_of, tokens_of

__all__ = [
    "PRESETS",
    "GridPositions",
    "PictureHead",
    "PictureTokens",
    "VisionTransformer",
    "VitPreset",
    "build_vit",
    "encoder_of",
    "from_timm",
    "from_torchvision",
    "read_state",
    "timm_state",
    "to_timm",
    "to_torchvision",
    "tokens_of",
    "torchvision_state",
]
