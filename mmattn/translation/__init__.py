"""Translation: encoder-decoder models from texts to texts, and beam search.

What a translator attended to is in :mod:`mmattn.translation.alignment`.
"""

from mmattn.translation.beam import Hypothesis, Steps, beam_search
from mmattn.translation.loss import linear_cross_entropy
from mmattn.translation.stepping import DecoderSteps
from mmattn.translation.translator import Translator

__all__ = ["DecoderSteps", "Hypothesis", "Steps", "Translator", "beam_search", "linear_cross_entropy"]
