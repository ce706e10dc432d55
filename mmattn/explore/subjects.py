"""How a model is run on an item, whatever it is: a task, an opened checkpoint, or a model of another library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.explore import media
from mmattn.explore.packing import Domain
from mmattn.explore.shown import Shown, picture_tokens, sound_tokens, text_tokens, tokenized


@dataclass(frozen=True, eq=False)
class Item:
    """One item as a model takes it.

    Attributes:
        domain: its kind.
        run: runs the model on it once.
        inputs: what the module is called with, as :func:`mmattn.relevance` takes it; ``None`` where it gives no
            scores of classes.
        shown: given how many tokens the model made of it, what they are and where they lie.
        label: index of the right class, where it is known.
        answer: the region in which it lies, in the units of the model's regions; empty where unknown.
        says: what the model gives, where it gives no classes.
    """

    domain: Domain
    run: Callable[[], Any]
    inputs: Any
    shown: Callable[[int], Shown]
    label: int | None = None
    answer: tuple[float, ...] = ()
    says: str = ""


class Subject(ABC):
    """A model with what is needed to run it on raw items.

    Attributes:
        module: that holds the attention.
        class_names: of its classes; empty where unknown.
        why_no_maps: a sentence, where there can be no rollout.
    """

    module: nn.Module
    class_names: Sequence[str] = ()
    why_no_maps: str = ""

    @abstractmethod
    def take(self, item: Any, label: int | None, answer: tuple[float, ...]) -> Item:
        """An item as the model takes it."""


class WithAdapter(Subject):
    """Adapter, encoder and head: ``module([item])`` gives logits.

    Args:
        module: with an ``adapter``.
        class_names: of its classes.
        pixels: a picture as the model takes it -> ``[C, H, W]`` (uint8).
    """

    def __init__(
        self, module: Any, class_names: Sequence[str], pixels: Callable[[Tensor], Tensor] = media.viewable
    ) -> None:
        self.module, self.class_names, self.pixels = module, class_names, pixels
        self.adapter = module.adapter

    def take(self, item: Any, label: int | None, answer: tuple[float, ...]) -> Item:
        """One call of the module."""
        item = placed(item, self.module)
        inputs = ([item],)
        return Item(
            domain_of(item), lambda: self.module(*inputs), inputs, lambda count: self.shown(item, count),
            label, answer,
        )  # fmt: skip

    def shown(self, item: Any, count: int) -> Shown:
        """By the regions that the adapter gives."""
        regions = self.adapter.regions([item])[0].cpu()
        prefix = getattr(self.adapter, "prefix_length", 0) + count - len(regions)
        regions = regions[len(regions) + prefix - count :]
        return shown_of(item, regions, prefix, self.module, self.adapter, self.pixels)


class Opened(WithAdapter):
    """What :func:`mmattn.inference.open_model` opens: it says itself where the tokens of an item lie.

    Args:
        predictor: of any kind.
    """

    def __init__(self, predictor: Any) -> None:
        self.predictor, self.kind = predictor, predictor.kind
        self.module = predictor.model
        self.adapter = getattr(predictor.model, "adapter", None) or predictor.model.source
        self.class_names = predictor.outputs.get("class_names", ())
        self.pixels = getattr(predictor.inputs, "shown", media.viewable)
        if self.kind != "classification":
            self.why_no_maps = (
                f"Rollout and relevance are of models that score classes; this one is of {self.kind}."
            )

    def take(self, item: Any, label: int | None, answer: tuple[float, ...]) -> Item:
        """Classes are scored by one call; what other kinds do with an item, they know themselves."""
        if self.kind == "classification":
            return super().take(item, label, answer)
        item = placed(item, self.module)
        says = str(self.predictor.predict([item], top=1)[0]["text"])
        looked: list[Any] = []

        def run() -> None:
            looked.append(self.predictor.look(item))

        def shown(count: int) -> Shown:
            regions = looked[-1].regions.cpu()
            return shown_of(item, regions, count - len(regions), self.module, self.adapter, self.pixels)

        return Item(domain_of(item), run, None, shown, None, answer, says)


class Foreign(Subject):
    """A model of another library, such as timm or transformers, plugged in or not.

    Args:
        module: takes a batch of pictures, of waves, or what the tokenizer gives.
        class_names: of its classes; empty takes those of its configuration, where it has one.
        tokenizer: of transformers, for texts.
        sample_rate: of sounds, in samples per second.
    """

    def __init__(
        self, module: nn.Module, class_names: Sequence[str], tokenizer: Any, sample_rate: int | None
    ) -> None:
        self.module, self.tokenizer, self.sample_rate = module, tokenizer, sample_rate
        known: Mapping[int, str] = getattr(getattr(module, "config", None), "id2label", None) or {}
        self.class_names = class_names or [known[i] for i in range(len(known)) if i in known]

    def take(self, item: Any, label: int | None, answer: tuple[float, ...]) -> Item:
        """One call with a batch of one."""
        domain = domain_of(item)
        if domain == "text":
            return self._text(item, label, answer)
        item = placed(item, self.module)
        inputs = (item[None],)

        def shown(count: int) -> Shown:
            if domain == "vision":
                return picture_tokens(
                    media.viewable(item), _grid(self.module, item, count), count, self.module
                )
            rate = self._rate()
            edges = torch.linspace(0, len(item), count + 1)
            spans = torch.stack([edges[:-1], edges[1:]], dim=1)
            return sound_tokens(item, rate, spans, media.log_spectrogram(item, rate))

        if domain == "speech":
            self._rate()
        return Item(domain, lambda: self.module(*inputs), inputs, shown, label, answer)

    def _text(self, text: str, label: int | None, answer: tuple[float, ...]) -> Item:
        if self.tokenizer is None:
            raise ValueError(f"texts need the tokenizer of their model: got none for {text[:30]!r}")
        inputs, shown = tokenized(self.tokenizer, text)
        inputs = {name: placed(x, self.module) for name, x in inputs.items()}
        return Item("text", lambda: self.module(**inputs), inputs, lambda count: shown, label, answer)

    def _rate(self) -> int:
        if self.sample_rate is None:
            raise ValueError("sounds need a sample_rate, in samples per second: got none")
        return self.sample_rate


def subject_of(
    model: Any, class_names: Sequence[str] | None, tokenizer: Any, sample_rate: int | None
) -> Subject:
    """How a model is run.

    Raises:
        ValueError: it is no model.
    """
    if hasattr(model, "predict") and hasattr(model, "look") and hasattr(model, "inputs"):
        return Opened(model)
    if not isinstance(model, nn.Module):
        raise ValueError(f"a model must be a module or an opened checkpoint: got {type(model).__name__}")
    if hasattr(getattr(model, "adapter", None), "regions"):
        return WithAdapter(model, class_names or list(getattr(model, "class_names", ())))
    return Foreign(model, class_names or (), tokenizer, sample_rate)


def domain_of(item: Any) -> Domain:
    """What an item is, by its type.

    Raises:
        ValueError: it is none of the three.
    """
    if isinstance(item, str):
        return "text"
    if isinstance(item, Tensor) and item.is_floating_point() and item.ndim in (1, 3):
        return "speech" if item.ndim == 1 else "vision"
    got = f"{item.dtype} {list(item.shape)}" if isinstance(item, Tensor) else type(item).__name__
    raise ValueError(f"an item must be a picture [C, H, W] or a wave [S] of floats, or a str: got {got}")


def placed(item: Any, module: nn.Module) -> Any:
    """A tensor on the device of a module."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return item.to(device) if isinstance(item, Tensor) else item


def shown_of(
    item: Any,
    regions: Tensor,
    prefix: int,
    module: nn.Module,
    adapter: Any,
    pixels: Callable[[Tensor], Tensor],
) -> Shown:
    """What the tokens of an item are, by the regions of those that have one; ``prefix`` others come first."""
    if isinstance(item, str):
        return text_tokens(item, regions, prefix)
    if item.ndim == 3:
        return picture_tokens(pixels(item), regions, prefix + len(regions), module)
    with torch.no_grad():
        log_mel = adapter.spectrum(item)
    return sound_tokens(item, adapter.sample_rate, regions, log_mel, prefix)


def _grid(module: nn.Module, picture: Tensor, count: int) -> Tensor:
    """Boxes ``[rows * columns, 4]`` of patches: as the model says, or as many square ones as there are tokens for."""
    height, width = picture.shape[-2:]
    said = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if said is not None and said[0] * said[1] <= count:
        rows, columns = said
    else:
        sides = [s for s in range(1, min(height, width) + 1) if (height // s) * (width // s) <= count]
        # of several that leave equally many tokens over the one that divides the picture
        best = min(sides, key=lambda s: (count - (height // s) * (width // s), height % s + width % s, s))
        rows, columns = height // best, width // best
    top, left = torch.arange(rows) * height / rows, torch.arange(columns) * width / columns
    corners = torch.cartesian_prod(top, left)
    return torch.cat([corners, corners + torch.tensor([height / rows, width / columns])], dim=1)
