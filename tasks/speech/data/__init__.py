"""Recordings to learn from."""

from tasks.speech.data.audiofolder import AudioFolder
from tasks.speech.data.commands import SpeechCommands
from tasks.speech.data.fsdd import FSDD
from tasks.speech.data.spoken import SpokenCommands

__all__ = ["FSDD", "AudioFolder", "SpeechCommands", "SpokenCommands"]
