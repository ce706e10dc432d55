"""Speech out of text with eSpeak NG, in a process of its own.

eSpeak NG (https://github.com/espeak-ng/espeak-ng) keeps its state for a whole process, and that state, its
noise source included, runs on from word to word. :func:`record` therefore starts a child process for each
list of utterances: the same list gives the same waves whatever was spoken before, forked loader workers
inherit nothing, and a fault in the C library becomes an error message.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

SAMPLE_RATE = 22050
"""Samples a second of what :func:`record` gives."""

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback; the other modes wait 20 ms a word
_NO_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report an error instead of ending the process
_UTF8 = 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Utterance(NamedTuple):
    """What to say, and how.

    Attributes:
        text: the words.
        voice: an accent, or an accent and a variant: ``"en-us"``, ``"en-us+f2"``.
        rate: words a minute, 80 to 450.
        pitch: base pitch, 0 to 100.
    """

    text: str
    voice: str
    rate: int = 175
    pitch: int = 50


def record(utterances: Sequence[Utterance]) -> list[bytes]:
    """Speak each utterance.

    Returns:
        One wave for each utterance: 16-bit samples of this machine's byte order at :data:`SAMPLE_RATE`, mono.

    Raises:
        ImportError: espeakng-loader, which brings the library and its voices, is not installed.
        RuntimeError: the library does not start, or does not know a voice or a variant.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError('SpokenCommands needs espeakng-loader: pip install "mmattn[tasks]"') from error
    library, data = espeakng_loader.get_library_path(), Path(espeakng_loader.get_data_path())
    known = {path.name for path in (data / "voices" / "!v").iterdir()}
    wanted = {utterance.voice.partition("+")[2] for utterance in utterances} - {""}
    if wanted - known:  # the library itself would speak in the plain voice instead, and say nothing
        raise RuntimeError(
            f"a voice's variant must be one that eSpeak NG knows: got {sorted(wanted - known)}"
        )
    child = subprocess.run(
        [sys.executable, "-I", __file__, str(library), str(data.parent)],
        input=json.dumps(utterances).encode(),
        capture_output=True,
        check=False,  # its last words go into the error below
    )
    if child.returncode != 0:
        reason = child.stderr.decode(errors="replace").strip().splitlines() or [f"status {child.returncode}"]
        raise RuntimeError(f"eSpeak NG must speak every utterance: {reason[-1]}")
    head, _, waves = child.stdout.partition(b"\n")
    ends = [0, *json.loads(head)]
    return [waves[start:end] for start, end in pairwise(ends)]


def _speak_all(library_path: str, data_home: str, utterances: Sequence[Utterance]) -> list[bytes]:
    library: Any = ctypes.CDLL(library_path)
    if library.espeak_Initialize(_SYNCHRONOUS, 0, data_home.encode(), _NO_EXIT) != SAMPLE_RATE:
        raise RuntimeError(f"the library and its data must fit: got {library_path}, {data_home}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else the breath in a voice follows the clock
    chunks: list[bytes] = []

    def take(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(take)  # held here: ctypes frees a callback that nothing refers to
    library.espeak_SetSynthCallback(callback)
    waves, current = [], None
    for text, voice, rate, pitch in utterances:
        if voice != current and library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"a voice must be one that it knows: got {voice!r}")
        current = voice
        library.espeak_SetParameter(_RATE, rate, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        chunks.clear()
        raw = text.encode()
        library.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        waves.append(b"".join(chunks))
    return waves


def _main() -> None:
    waves = _speak_all(sys.argv[1], sys.argv[2], json.load(sys.stdin))
    ends, total = [], 0
    for wave in waves:
        total += len(wave)
        ends.append(total)
    sys.stdout.buffer.write(json.dumps(ends).encode() + b"\n" + b"".join(waves))


if __name__ == "__main__":
    _main()
