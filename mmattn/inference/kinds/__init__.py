"""The kinds of models that can be exported and used. A further one is a class and a line here."""

from __future__ import annotations

from mmattn.inference.kind import Kind
from mmattn.inference.kinds.classification import ClassificationKind
from mmattn.inference.kinds.language import LanguageKind
from mmattn.inference.kinds.recognition import RecognitionKind
from mmattn.inference.kinds.translation import TranslationKind

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (ClassificationKind(), RecognitionKind(), TranslationKind(), LanguageKind())
}


def kind_of(name: str) -> Kind:
    """The kind of a configuration.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in KINDS:
        raise ValueError(f"a kind must be one of {', '.join(KINDS)}: got {name!r}")
    return KINDS[name]
