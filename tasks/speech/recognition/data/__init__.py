"""Recordings with transcripts."""

from tasks.speech.recognition.data.digits import ConnectedDigits
from tasks.speech.recognition.data.librispeech import LibriSpeech
from tasks.speech.recognition.data.manifest import Manifest
from tasks.speech.recognition.data.spoken import SpokenSentences
from tasks.speech.recognition.data.transcribed import RecognitionData, TranscribedSet

__all__ = [
    "ConnectedDigits",
    "LibriSpeech",
    "Manifest",
    "RecognitionData",
    "SpokenSentences",
    "TranscribedSet",
]
