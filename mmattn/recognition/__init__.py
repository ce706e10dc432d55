"""Speech recognition by connectionist temporal classification (CTC), on the shared encoder."""

from mmattn.recognition.alignment import AlignedUnit, align
from mmattn.recognition.ctc import check_fits, ctc_loss, tokens_needed
from mmattn.recognition.decoding import Hypothesis, beam_search, greedy
from mmattn.recognition.drawing import draw_alignment
from mmattn.recognition.recognizer import SpeechRecognizer
from mmattn.recognition.streaming import Heard, Stream
from mmattn.recognition.units import BPEUnits, CharacterUnits, Units

__all__ = [
    "AlignedUnit",
    "BPEUnits",
    "CharacterUnits",
    "Heard",
    "Hypothesis",
    "SpeechRecognizer",
    "Stream",
    "Units",
    "align",
    "beam_search",
    "check_fits",
    "ctc_loss",
    "draw_alignment",
    "greedy",
    "tokens_needed",
]
