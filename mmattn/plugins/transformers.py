"""transformers (Hugging Face): the core as an attention implementation, ``"mmattn"``.

Importing this module registers the attention function and the mask function under that name, so that
``model.set_attn_implementation("mmattn")`` and ``from_pretrained(..., attn_implementation="mmattn")`` work. With
the first alone, transformers would make no masks for it, and padding would be attended to.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from mmattn.plugins.find import calls
from mmattn.plugins.interface import NAME, core_attention

AttentionInterface.register(NAME, core_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # boolean, True = attend, None where is_causal says all

#: Where a model keeps what :func:`prepare` changed.
_KEY = "_mmattn_switched"

#: A model whose code asks for the name of the implementation does something else for names that it does not know.
_ASKS_FOR_SDPA = re.compile(r"_attn_implementation\s*(==|!=|in\b|not in\b)[^\n]*[\"']sdpa[\"']")


class Switched:
    """Configurations whose implementation was changed, and what it was.

    Pickles of a model hold it, so that loading them imports this module, which registers the implementation.
    """

    def __init__(self) -> None:
        self.before: list[tuple[Any, str | None]] = []

    def remember(self, config: Any) -> None:
        """Note the implementation of a configuration, if it is seen for the first time."""
        if all(known is not config for known, _ in self.before):
            self.before.append((config, config._attn_implementation))

    def back(self) -> None:
        """All as it was."""
        for config, implementation in self.before:
            config._attn_implementation_internal = implementation


def prepare(model: nn.Module, selected: Callable[[str, nn.Module], bool] | None = None) -> None:
    """Switch the models of transformers inside a model to the core, where they ask an interface for attention.

    A model is left as it is where it is not made for that (the modules that attend are then plugged like those of
    any other library), where its code does something for the implementation "sdpa" by name, and where not all of
    its attention modules are selected.

    Args:
        model: or a module around it.
        selected: given name and module, whether the core is to have it.
    """
    for name, root in _outermost(model):
        if not _all_selected(name, root, selected):
            continue
        switched = root.__dict__.setdefault(_KEY, Switched())
        for config in _configs(root):
            switched.remember(config)
        with _no_warnings():  # of classes without the interface: they take the other way
            root.set_attn_implementation(NAME)
        for part in _pretrained(root):
            if _asks_for_sdpa(type(part)):
                _undo(part, switched)


def restore(model: nn.Module) -> None:
    """Give all configurations inside a model the implementation that they had before :func:`prepare`."""
    for module in model.modules():
        switched = module.__dict__.pop(_KEY, None)
        if switched is not None:
            switched.back()


def _outermost(model: nn.Module) -> Iterator[tuple[str, PreTrainedModel]]:
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and module not in inside:
            inside.update(module.modules())
            yield name, module


def _pretrained(root: nn.Module) -> Iterator[PreTrainedModel]:
    return (module for module in root.modules() if isinstance(module, PreTrainedModel))


def _configs(root: PreTrainedModel) -> Iterator[Any]:
    """Each configuration that the switch may reach, those of parts included."""
    pending = [part.config for part in _pretrained(root)]
    while pending:
        config = pending.pop()
        yield config
        parts = (getattr(config, name, None) for name in config.sub_configs)
        pending.extend(part for part in parts if part is not None)


def _all_selected(name: str, root: nn.Module, selected: Callable[[str, nn.Module], bool] | None) -> bool:
    if selected is None:
        return True
    return all(
        selected(f"{name}.{inner}" if name and inner else name or inner, module)
        for inner, module in root.named_modules()
        if calls(type(module)) == "interface"
    )


def _undo(part: PreTrainedModel, switched: Switched) -> None:
    """Give the configurations that a model's own attention reads back what they were."""
    read = {id(module.config) for module in part.modules() if hasattr(module, "config")}
    for config, implementation in switched.before:
        if id(config) in read:
            config._attn_implementation_internal = implementation


def _asks_for_sdpa(kind: type) -> bool:
    """Whether the file of a model compares the implementation with "sdpa"."""
    source = sys.modules.get(kind.__module__)
    if source is None:
        return False
    try:
        return _ASKS_FOR_SDPA.search(inspect.getsource(source)) is not None
    except (OSError, TypeError):
        return False


@contextmanager
def _no_warnings() -> Iterator[None]:
    logger = logging.getLogger("transformers.modeling_utils")

    def drop(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
