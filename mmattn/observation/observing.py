"""observe: look at the attention of a model while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn

from mmattn.observation.findings import Heads, Wanted
from mmattn.observation.record import ObservedModule, Record
from mmattn.observation.recorder import Recorder
from mmattn.observation.reduction import Reduced

Layers = str | Sequence[str] | Callable[[str, nn.Module], bool] | None


@contextmanager
def observe(
    model: nn.Module,
    *,
    weights: bool = False,
    layers: Layers = None,
    heads: Heads = None,
    reduce: str | None = None,
    max_bytes: int = 1 << 30,
    explain: bool = False,
    first_keys: int = 1,
) -> Iterator[Record]:
    """Look at every attention call of a model while the block runs.

    The model is one of ours, or of another library, plugged in or not. Its outputs are those without anybody
    looking, bit for bit, and whatever fused kernels make them keep running: the statistics are computed beside
    them from queries and keys, in memory that grows with N + M. After the block nothing remains in the model.

    Weights and statistics are those after the softmax and before dropout. Windows count as members of the batch.
    What a module calls attention for, a second time in the repeated forward pass of activation checkpointing, is
    recorded once. Under ``torch.compile`` the graph breaks at each observed call.

    Args:
        model: with attention inside.
        weights: keep all N x M weights; the statistics are then computed from them when they are read.
        layers: which modules: a pattern of names such as ``"blocks.*"``, names, or a function of name and module.
        heads: which heads: their numbers, in all modules, or by the name of the module.
        reduce: ``"mean"`` or ``"sum"`` over all sequences of all calls of a module, as they come, so that a whole
            data set takes the memory of one example; see :class:`~mmattn.observation.reduction.Reduced`.
        max_bytes: that the record may hold.
        explain: also record which backend computed each call and why.
        first_keys: how many keys from the start count towards ``sink_mass``.

    Yields:
        The record: by module name, ``.entropy`` (nats), ``.distance``, ``.sink_mass``, ``.max_logit`` ``[B, H, N]``
        and ``.received`` ``[B, H, M]`` as in :class:`~mmattn.observation.measures.Statistics`, with ``weights`` also
        ``.weights`` ``[B, H, N, M]``.

    Raises:
        ValueError: the model has no attention, or ``layers``, ``heads`` or ``reduce`` fit nothing in it.
        RecordTooLarge: while the model runs, before more than ``max_bytes`` is taken; a MemoryError.

    Example:
        >>> import torch
        >>> model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with observe(model) as record:
        ...     _ = model(torch.zeros(3, 5, 8))
        >>> record["self_attn"].entropy[0, 0].exp().round()  # five equal tokens share the weight
        tensor([5., 5., 5., 5., 5.])
    """
    from mmattn.observation.visits import attentions, visiting  # only now: it loads the plug-ins

    if reduce not in (None, "mean", "sum"):
        raise ValueError(f"reduce must be 'mean', 'sum' or None: got {reduce!r}")
    inside = getattr(model, "_orig_mod", model)  # of what torch.compile gives
    found, skipped = attentions(inside)
    if not found and not skipped:
        raise ValueError(f"the model must have attention to observe: got {type(model).__name__} without any")
    chosen = _chosen(found, layers)
    _check_heads(heads, chosen)
    skipped |= {name: "it was not selected" for name in found if name not in chosen}
    modules = {
        name: ObservedModule(name, reduced=Reduced(name, reduce == "mean") if reduce else None)
        for name in chosen
    }
    recorder = Recorder(modules, Wanted(weights, heads, max_bytes, first_keys))
    with visiting(inside, chosen, recorder.take, explain, compiled=inside is not model):
        yield Record(modules, skipped, _aliases(inside, found))


def _chosen(found: Mapping[str, nn.Module], layers: Layers) -> dict[str, nn.Module]:
    if layers is None:
        return dict(found)
    known = ", ".join(map(repr, found))
    if callable(layers):
        chosen = {name: module for name, module in found.items() if layers(name, module)}
    elif isinstance(layers, str):
        chosen = {name: module for name, module in found.items() if fnmatchcase(name, layers)}
    else:
        unknown = [name for name in layers if name not in found]
        if unknown:
            raise ValueError(f"layers must be names among {known}: got {unknown[0]!r}")
        chosen = {name: found[name] for name in found if name in layers}
    if not chosen:
        raise ValueError(f"layers must fit one of {known or 'no module'}: got {layers!r}")
    return chosen


def _check_heads(heads: Heads, chosen: Mapping[str, nn.Module]) -> None:
    unknown = [name for name in heads if name not in chosen] if isinstance(heads, Mapping) else []
    if unknown:
        known = ", ".join(map(repr, chosen))
        raise ValueError(f"heads must be given by names among {known}: got {unknown[0]!r}")


def _aliases(model: nn.Module, found: Mapping[str, nn.Module]) -> dict[str, str]:
    """Further names of modules that stand in several places."""
    first = {id(module): name for name, module in found.items()}
    named = model.named_modules(remove_duplicate=False)
    return {name: first[id(module)] for name, module in named if first.get(id(module), name) != name}
