"""What one model saw in one item, as plain data that goes into a file and into a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from mmattn.explore.packing import Domain, weights_from

FORMAT = 1


@dataclass(frozen=True)
class Layer:
    """The attention of one module.

    Attributes:
        name: of the module.
        title: shown to the reader, such as ``block 2`` or ``pooling``.
        shape: heads, queries and keys.
        weights: ``[H, N, M]``, packed; see :func:`~mmattn.explore.packing.packed_weights`. Keys are the tokens of the
            exploration, each row adds up to about 1, or to less where something else was attended to.
        queries: names of the queries, where these are not the tokens themselves.
        importance: of each head to the answer; ``None`` where it was not measured.
        mass: of each head the share of attention on the relevant tokens, the mean over its queries; ``None`` where no
            tokens are known to be relevant.

    Raises:
        ValueError: one sentence, the rule and then the value.
    """

    name: str
    title: str
    shape: tuple[int, int, int]
    weights: str
    queries: list[str] = field(default_factory=list)
    importance: list[float] | None = None
    mass: list[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        heads, rows, _ = self.shape
        for name in ("importance", "mass"):
            values = getattr(self, name)
            if values is not None and (len(values) != heads or not all(map(math.isfinite, values))):
                raise ValueError(
                    f"{name} must have one finite number for each of {heads} heads: got {values}"
                )
        if self.queries and len(self.queries) != rows:
            raise ValueError(f"queries must have one name for each of {rows}: got {len(self.queries)}")


@dataclass(frozen=True)
class TokenMap:
    """How much each token counts for the answer, by all layers together.

    Attributes:
        name: ``rollout`` or ``relevance``.
        values: one share for each token, in [0, 1], all together 1.
        of: what the answer is, such as the name of a class; empty where it does not matter.
    """

    name: str
    values: list[float]
    of: str = ""


@dataclass(frozen=True)
class Exploration:
    """One item as one model saw it.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``.
        title: what the item is called, such as ``Test scene 3``.
        tokens: each as text: a piece of the sentence with the spaces in front of it, or words for its place.
        regions: where each token lies: ``[top, left, bottom, right]`` in pixels, ``[start, stop]`` in seconds, empty
            for tokens without a place, such as a class token. Of texts all are empty.
        layers: in the order in which the model runs them.
        model: what the model is called.
        true_label, predicted_label: names of classes, or what the model gave; empty where unknown.
        probability: of the predicted label.
        relevant: for each token whether the answer lies in it; empty where unknown.
        answer: regions in which the answer lies, of the same form as ``regions``.
        maps: rollout and relevance, as far as there are any.
        image: the picture or the spectrogram (grey, loud is dark) as a ``data:`` address.
        size: of the picture, height and width in pixels; of a sound, seconds and highest frequency in Hz.
        sound: the wave as a ``data:`` address; empty where there is none.
        notes: sentences on what is not shown as it is, and why.
        format: of this file.

    Raises:
        ValueError: one sentence, the rule and then the value.
    """

    domain: Domain
    title: str
    tokens: list[str]
    regions: list[list[float]]
    layers: list[Layer]
    model: str = ""
    true_label: str = ""
    predicted_label: str = ""
    probability: float | None = None
    relevant: list[bool] = field(default_factory=list)
    answer: list[list[float]] = field(default_factory=list)
    maps: list[TokenMap] = field(default_factory=list)
    image: str = ""
    size: tuple[float, float] = (0.0, 0.0)
    sound: str = ""
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        if self.format != FORMAT:
            raise ValueError(f"an exploration must be of format {FORMAT}: got {self.format}")
        if self.domain not in get_args(Domain):
            raise ValueError(f"domain must be one of {', '.join(get_args(Domain))}: got {self.domain!r}")
        if not self.layers:
            raise ValueError(f"an exploration must have a layer: got none of {self.title!r}")
        count = len(self.tokens)
        for name in ("regions", "relevant"):
            found = len(getattr(self, name))
            if found != count and (found or name == "regions"):
                raise ValueError(f"{name} must be one for each of {count} tokens: got {found}")
        for layer in self.layers:
            if layer.shape[2] != count or (not layer.queries and layer.shape[1] != count):
                raise ValueError(f"a layer must be of {count} tokens: got {layer.shape} of {layer.name!r}")
        for each in self.maps:
            if len(each.values) != count:
                raise ValueError(f"a map must have {count} values: got {len(each.values)} of {each.name!r}")

    def weights(self, layer: int) -> Any:
        """Weights ``[H, N, M]`` (float32) of a layer, as exactly as they are kept: to 1/510 of a row's largest."""
        found = self.layers[layer]
        return weights_from(found.weights, found.shape)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def save(explorations: Sequence[Exploration], path: str | Path) -> Path:
    """Write explorations into one JSON file and give its path; equal ones give equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([each.plain() for each in explorations], allow_nan=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    return path


def load(path: str | Path) -> list[Exploration]:
    """Read what :func:`save` wrote.

    Raises:
        ValueError: naming the file, where it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, list):
            raise ValueError(f"it must be a list: got {type(found).__name__}")
        return [_exploration(each) for each in found]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} must hold explorations: got {error}") from error


def _exploration(plain: Any) -> Exploration:
    values = _of(Exploration, plain)
    values["layers"] = [Layer(**_of(Layer, each)) for each in values["layers"]]
    values["maps"] = [TokenMap(**_of(TokenMap, each)) for each in values.get("maps", [])]
    return Exploration(**values)


def _of(kind: type[Any], plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError(f"{kind.__name__} must be an object: got {type(plain).__name__}")
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(plain) - known)
    if unknown:
        raise ValueError(f"{kind.__name__} must have known fields: got {unknown[0]!r}")
    return dict(plain)
