"""From raw pictures, waves and strings to packed tokens."""

from mmattn.adapters.audio import AudioFrames
from mmattn.adapters.bands import BandNormFrames
from mmattn.adapters.base import Adapter
from mmattn.adapters.image import ImagePatches
from mmattn.adapters.ngrams import TextNgrams
from mmattn.adapters.text import TextTokens

__all__ = ["Adapter", "AudioFrames", "BandNormFrames", "ImagePatches", "TextNgrams", "TextTokens"]
