"""Conformer: blocks that attend and convolve over time (Gulati et al. 2020), for offline and streaming use."""

from mmattn.conformer.block import ConformerBlock
from mmattn.conformer.convolution import Past, TimeConvolution
from mmattn.conformer.encoder import Conformer, ConformerState, build_conformer

__all__ = ["Conformer", "ConformerBlock", "ConformerState", "Past", "TimeConvolution", "build_conformer"]
