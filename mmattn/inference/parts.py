"""From a configuration to modules: constructor calls as plain data, of a closed list of parts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

#: Where each part lives that a configuration may name. Nothing else is imported or called, whoever wrote the file:
#: a name that is not here is refused before anything is imported.
PARTS: dict[str, str] = {
    "Classification": "mmattn.inference.classification",
    "ImagePatches": "mmattn.adapters.image",
    "AudioFrames": "mmattn.adapters.audio",
    "BandNormFrames": "mmattn.adapters.bands",
    "TextTokens": "mmattn.adapters.text",
    "TextNgrams": "mmattn.adapters.ngrams",
    "ByteTokenizer": "mmattn.adapters.text",
    "BPETokenizer": "mmattn.adapters.text",
    "build_encoder": "mmattn.builders",
    "build_decoder": "mmattn.builders",
    "build_classifier": "mmattn.builders",
    "Encoder": "mmattn.encoder",
    "Block": "mmattn.blocks",
    "FeedForward": "mmattn.blocks",
    "MultiHeadAttention": "mmattn.attention",
    "HeadGate": "mmattn.gates",
    "RotaryPositions": "mmattn.positions.rotary",
    "SinusoidalPositions": "mmattn.positions.absolute",
    "LearnedPositions": "mmattn.positions.absolute",
    "ALiBi": "mmattn.positions.bias",
    "RelativeBias": "mmattn.positions.relative",
    "GridBias": "mmattn.positions.relative",
    "AttentionPool": "mmattn.heads",
    "MeanPool": "mmattn.heads",
    "Classifier": "mmattn.heads",
    "Registers": "mmattn.registers",
    "build_conformer": "mmattn.conformer.encoder",
    "SpeechRecognizer": "mmattn.recognition.recognizer",
    "CharacterUnits": "mmattn.recognition.units",
    "BPEUnits": "mmattn.recognition.units",
    "Translator": "mmattn.translation.translator",
    "MaskedLanguageModel": "mmattn.language.model",
    "TokenVocabulary": "mmattn.language.vocabulary",
    "WordVocabulary": "mmattn.language.vocabulary",
    "build_vit": "mmattn.vit.presets",
}
#: Parts of torch that our own take as arguments.
OF_TORCH = ("torch.nn.LayerNorm", "torch.nn.RMSNorm", "torch.nn.modules.normalization.LayerNorm",
            "torch.nn.modules.normalization.RMSNorm")  # fmt: skip


def is_part(value: Any) -> bool:
    """Whether a value of a configuration stands for a constructor call."""
    return isinstance(value, Mapping) and "class_path" in value


def check(value: Any) -> None:
    """Refuse a configuration that names anything but known parts, however deep, before any of them is built.

    Raises:
        ValueError: a class path is not in the list.
    """
    if is_part(value):
        locate(value["class_path"])
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        check(part)


def locate(class_path: Any) -> tuple[str, str]:
    """Module and name of a part.

    Raises:
        ValueError: it is not in the list.

    Example:
        >>> locate("mmattn.ImagePatches")
        ('mmattn.adapters.image', 'ImagePatches')
        >>> locate("os.system")
        Traceback (most recent call last):
        ValueError: a part must be one of mmattn's: got 'os.system'
    """
    module, _, name = str(class_path).rpartition(".")
    if class_path in OF_TORCH:
        return module, name
    home = PARTS.get(name)
    # as a user may name it: from the package, from a room, or from the file
    if home is not None and module and f"{home}.".startswith(f"{module}."):
        return home, name
    close = difflib.get_close_matches(name, PARTS, n=1) if module.startswith("mmattn") else []
    hint = f", did you mean '{PARTS[close[0]]}.{close[0]}'?" if close else ""
    raise ValueError(f"a part must be one of mmattn's: got {class_path!r}{hint}")


def build(value: Any) -> Any:
    """What a configuration says: parts are built from the inside out, all else stays as it is.

    Raises:
        ValueError: a part is not in the list, or does not take its arguments.
        ImportError: a part needs a package that is missing.

    Example:
        >>> build({"class_path": "mmattn.RotaryPositions", "init_args": {"base": 100.0}})
        RotaryPositions(base=100)
    """
    check(value)
    return _built(value)


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    if not is_part(value):
        return {name: _built(part) for name, part in value.items()}
    module, name = locate(value["class_path"])
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"init_args must be a mapping: got {arguments!r} for {name}")
    part = getattr(import_module(module), name)
    try:
        return part(**{key: _built(argument) for key, argument in arguments.items()})
    except TypeError as error:  # an argument that there is not, or one of the wrong type
        raise ValueError(f"{name} must get arguments that it takes: got {error}") from error


def argument(part: Mapping[str, Any], name: str) -> Any:
    """What a part's configuration gives for an argument, or else its default.

    Example:
        >>> argument({"class_path": "mmattn.ImagePatches", "init_args": {"embed_dim": 8}}, "in_channels")
        3
    """
    given = part.get("init_args") or {}
    if name in given:
        return given[name]
    module, attribute = locate(part["class_path"])
    return inspect.signature(getattr(import_module(module), attribute)).parameters[name].default
