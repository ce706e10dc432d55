"""``mmattn explore``: a model of one's own and inputs of one's own, as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmattn.explore import explore, page
from mmattn.inference.bundle import CONFIG
from mmattn.inference.inputs import Inputs, Pictures, Sounds, Texts
from mmattn.inference.predictor import open_model
from mmattn.inference.sources import Source
from mmattn.inference.stream import first_line

if TYPE_CHECKING:
    from mmattn.explore import Exploration


@dataclass(frozen=True, eq=False)
class Subject:
    """What is explored.

    Attributes:
        model: as :func:`mmattn.explore.explore` takes it.
        inputs: how files are read.
        prepared: what was read -> what the model takes.
        options: further arguments of :func:`~mmattn.explore.explore`.
    """

    model: Any
    inputs: Inputs
    prepared: Callable[[Any], Any] = field(default=lambda item: item)
    options: Mapping[str, Any] = field(default_factory=dict)


def open_subject(
    path: Path, device: torch.device, prepared: Mapping[str, Any] | None = None, sense: str | None = None
) -> Subject:
    """A checkpoint or an exported folder of ours, or a folder that transformers or timm saved.

    Raises:
        FileNotFoundError: there is no model.
        ValueError: it cannot be explored; one sentence.
        ImportError: its library is missing.
    """
    config = _config(path)
    if "model_type" in config or "architecture" in config:
        if prepared or sense:
            given = ", ".join([*(prepared or {}), *(["sense"] if sense else [])])
            raise ValueError(f"a folder of another library says all of its model: got {given} for {path}")
        return _of_transformers(path, device) if "model_type" in config else _of_timm(path, device)
    predictor = open_model(path, device, prepared, sense)
    return Subject(predictor, predictor.inputs)


def explored(
    subject: Subject, sources: Sequence[Source], problems: list[Source], name: str
) -> list[Exploration]:
    """An exploration of each source that can be read.

    Args:
        subject: the model.
        sources: what to read.
        problems: takes those that cannot be read.
        name: what the model is called.
    """
    items, titles = [], []
    for source in sources:
        if source.problem:
            problems.append(source)
            continue
        try:
            item = source.line if source.path is None else subject.inputs.read(source.path)
        except (OSError, ValueError) as error:
            problems.append(source._replace(problem=first_line(error)))
            continue
        items.append(subject.prepared(item))
        titles.append(Path(source.name).name if source.path is None else source.path.name)
    return explore(subject.model, items, titles=titles, name=name, **subject.options) if items else []


def write(explorations: Sequence[Exploration], path: Path, name: str) -> None:
    """The page of explorations, one file that needs nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(explorations, f"What {name} looks at"), encoding="utf-8", newline="\n")


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{CONFIG} must be JSON: got {error}") from error
    return config if isinstance(config, dict) else {}


def _of_timm(folder: Path, device: torch.device) -> Subject:
    """A folder as ``timm.models.save_for_hf`` writes it."""
    try:
        import timm
    except ImportError as error:
        raise ImportError('a model of timm needs timm: pip install "mmattn[plugins]"') from error
    library: Any = timm  # only partly typed
    model = library.create_model(f"local-dir:{folder}", pretrained=True).eval().to(device)
    data = library.data.resolve_model_data_config(model)
    inputs = Pictures(data["mean"], data["std"], tuple(data["input_size"][1:]))
    names = model.pretrained_cfg.get("label_names") or ()
    return Subject(model, inputs, options={"class_names": list(names)})


def _of_transformers(folder: Path, device: torch.device) -> Subject:
    """A folder as ``save_pretrained`` writes it, with its tokenizer or preprocessor."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError('a model of transformers needs it: pip install "mmattn[plugins]"') from error
    library: Any = transformers  # only partly typed
    named = _config(folder).get("architectures") or ["AutoModel"]
    kind: Any = getattr(library, str(named[0]), None)
    if not hasattr(kind, "from_pretrained"):
        raise ValueError(f"an architecture must be one of transformers: got {named[0]!r} in {folder}")
    model = kind.from_pretrained(folder, local_files_only=True).eval().to(device)
    if model.main_input_name == "input_ids":
        tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return Subject(model, Texts(), options={"tokenizer": tokenizer})
    if model.main_input_name == "pixel_values":
        processor = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        as_they_are = Pictures((0.0, 0.0, 0.0), (1 / 255,) * 3)
        return Subject(
            model,
            as_they_are,
            lambda item: processor(item.to(torch.uint8), return_tensors="pt")["pixel_values"][0],
        )
    if model.main_input_name == "input_values":
        extractor = library.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        rate = int(extractor.sampling_rate)

        def waves(item: Any) -> Any:
            return extractor(item.numpy(), sampling_rate=rate, return_tensors="pt")["input_values"][0]

        return Subject(model, Sounds(rate), waves, {"sample_rate": rate})
    raise ValueError(f"a model must take pictures, waves or texts: got {model.main_input_name} of {folder}")
