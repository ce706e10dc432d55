"""Small randomly initialised models of the host libraries, and what must hold for each of them.

The files of each library have ``CASES: list[Case]``; a model is built when it is asked for.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.plugins.zoo.case import Case

#: Libraries, and the files that have their cases.
LIBRARIES = {
    "timm": ("zoo_timm", "zoo_timm_hybrids"),
    "torchvision": ("zoo_torchvision",),
    "torch": ("zoo_torch",),
    "transformers": ("zoo_transformers",),
}


def cases(*libraries: str) -> list[Case]:
    """The cases of the libraries named, or of all."""
    return [
        case
        for library in libraries or LIBRARIES
        for file in LIBRARIES[library]
        for case in import_module(f"benchmarks.plugins.zoo.{file}").CASES
    ]
