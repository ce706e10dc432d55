"""plug_in and unplug: the core inside the modules of another library, and out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from torch import nn

from mmattn.backends import Backend, check_name
from mmattn.masks import Pattern, Window
from mmattn.plugins import classes, fast_paths
from mmattn.plugins import repairs as mending
from mmattn.plugins import verify as verification
from mmattn.plugins.find import find, what_it_says
from mmattn.plugins.interface import calls_core
from mmattn.plugins.site import KEY, Site, site_of, sites
from mmattn.plugins.verify import Sample, Snapshot

Select = str | Callable[[str, nn.Module], bool] | None


@dataclass
class Report:
    """What :func:`plug_in` did; prints as a table.

    Attributes:
        swapped: names of the modules whose attention the core computes.
        skipped: names of modules that were left alone, and why.
        changes: what the model no longer computes as its host does: a window, a repair.
        verified: whether outputs and gradients for a sample were compared.
    """

    swapped: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    verified: bool = False

    def __str__(self) -> str:
        rows = [("module", "attention"), *((name or "(the model)", "core") for name in self.swapped)]
        rows += [(name or "(the model)", f"left alone: {why}") for name, why in self.skipped.items()]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {what}" for name, what in rows]
        if self.verified:
            lines.append("outputs and gradients agree with the host's")
        return "\n".join([*lines, *(f"changed: {change}" for change in self.changes)])


def plug_in(
    model: nn.Module,
    *,
    select: Select = None,
    backend: str | Backend = "auto",
    window: Pattern | int | None = None,
    repairs: Iterable[str] = (),
    verify: Sample | None = None,
) -> Report:
    """Let the core compute the attention of a model of another library, in place.

    Parameters, their names and ``state_dict`` stay as they are. Modules that call
    ``scaled_dot_product_attention``, ``multi_head_attention_forward`` or spell out a softmax of products get a
    subclass of their own class, which catches these calls while they run. Queries without any key get zeros.

    Args:
        model: of torch.nn, timm, torchvision, torchaudio, transformers, or of your own making.
        select: a pattern of module names such as ``"blocks.*.attn"``, or a function of name and module; ``None``
            takes all that make attention calls.
        backend: as in :func:`~mmattn.attend`.
        window: a pattern put on top of the host's masks, or a number of tokens either side. It changes what the
            model computes, which the report says.
        repairs: what to mend in the host besides, which the report says: ``"wavlm_lengths"``,
            ``"wav2vec2_padding"``, ``"conformer_padding"``, see :data:`mmattn.plugins.repairs.REPAIRS`.
        verify: a sample to compare outputs and gradients with, before and after, dropout off: a tensor, a tuple
            of arguments, a mapping of keyword arguments, or a function of the model.

    Returns:
        What was swapped and what was left alone, with the reason.

    Raises:
        VerificationError: outputs or gradients differ; the model is as it was.
        ValueError: the backend or the repair does not exist, a repair finds nothing to mend, or ``verify`` is
            asked for together with a window or for a model that is plugged in already.

    Example:
        >>> import torch
        >>> model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> print(plug_in(model, verify=torch.randn(2, 5, 8)))
        module     attention
        self_attn  core
        outputs and gradients agree with the host's
        >>> unplug(model)
    """
    check_name(backend)
    pattern = Window(window, window) if isinstance(window, int) else window
    before = None if verify is None else _reference(model, verify, pattern)
    report = Report()
    try:
        if (transformers := _of_transformers(model)) is not None:
            transformers.prepare(model, lambda name, module: _selected(select, name, module))
        attach(model, report, select)
        for _, site in sites(model):
            site.routed, site.backend, site.window = True, backend, pattern
        if before is not None and verify is not None:
            verification.check(before, verification.take(model, verify))
            report.verified = True
        for repair in repairs:
            _mend(model, repair, report)
    except BaseException:
        unplug(model)
        raise
    if pattern is not None:
        report.changes.append(f"on top of its own masks, every attention sees through {pattern!r}")
    return report


def unplug(model: nn.Module) -> None:
    """Take the core out of a model: classes and settings as they were, with the current weights."""
    detach(model)
    for module in model.modules():
        classes.undress(module)
    if (transformers := _of_transformers(model)) is not None:
        transformers.restore(model)


def detach(model: nn.Module, select: Callable[[Site], bool] = lambda site: True) -> None:
    """Take sites out of the modules of a model again; repairs stay."""
    for module, site in list(sites(model)):
        if select(site):
            for name, value in site.undo.items():
                setattr(module, name, value)
            del module.__dict__[KEY]
            classes.dress(module, catching=False)
    around = set(fast_paths.around_sites(model))
    for module in model.modules():
        if fast_paths.members(classes.host_class(module)) and module not in around:
            classes.undress(module)


def attach(model: nn.Module, report: Report, select: Select = None, routed: bool = True) -> None:
    """Put sites into the attention modules of a model that have none; ``routed``: for the core to compute."""
    found = find(model)
    report.skipped.update(found.skipped)
    for name, module in found.calling.items():
        if not _selected(select, name, module):
            report.skipped[name] = "it was not selected"
            continue
        report.swapped.append(name)
        if site_of(module) is None:
            module.__dict__[KEY] = Site(name, routed, **what_it_says(module))
        classes.dress(module, catching=not calls_core(module))
    for module in fast_paths.around_sites(model):
        classes.dress(module)


def _mend(model: nn.Module, repair: str, report: Report) -> None:
    found = mending.fitting(model, repair)
    for module in found.values():
        classes.dress(module, repaired=True)
    report.changes.append(f"{mending.REPAIRS[repair].change}: {', '.join(found)}")


def _reference(model: nn.Module, sample: Sample, window: Pattern | None) -> Snapshot:
    if window is not None:
        raise ValueError(f"a window changes what a model computes, so verify cannot hold: got {window!r}")
    if any(site.routed for _, site in sites(model)):
        raise ValueError(
            "verify compares with the host: got a model that is plugged in already, unplug it first"
        )
    return verification.take(model, sample)


def _of_transformers(model: nn.Module) -> Any:
    """What is to be done with models of transformers, if there is one: only then is that library imported."""
    kinds = {type(module) for module in model.modules()}
    names = {base.__module__.partition(".")[0] for kind in kinds for base in kind.__mro__}
    return import_module("mmattn.plugins.transformers") if "transformers" in names else None


def _selected(select: Select, name: str, module: nn.Module) -> bool:
    if select is None:
        return True
    return fnmatchcase(name, select) if isinstance(select, str) else select(name, module)
