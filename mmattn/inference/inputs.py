"""What goes into a model: files and lines read just as the data of its training were."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor


class Inputs(ABC):
    """How raw items of one sense are read; a value that can be written into a configuration."""

    #: As it stands in a configuration.
    kind: ClassVar[str]
    #: What one of them is called.
    noun: ClassVar[str]
    #: Endings of the files that a folder is searched for.
    suffixes: ClassVar[tuple[str, ...]]
    #: Whether a file holds one item a line.
    by_line: ClassVar[bool] = False

    @abstractmethod
    def read(self, path: Path) -> Any:
        """The item of a file, ready for the model.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds no whole item.
        """

    def plain(self) -> dict[str, Any]:
        """As a configuration holds it; :func:`inputs_from` is the way back."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]  # all of them are dataclasses


@dataclass(frozen=True)
class Pictures(Inputs):
    """Pictures as floats ``[C, H, W]``: ``(pixels / 255 - mean) / std``.

    Attributes:
        mean, std: of each channel; their number is that of the channels, 1 for grey or 3 for RGB.
        size: height and width that pictures are resized to; ``None`` leaves them.
        longer_side: length that the longer side is resized to, the aspect ratio kept; ``None`` leaves it.

    Raises:
        ValueError: a value does not fit.
    """

    kind = "pictures"
    noun = "picture"
    suffixes = (".png", ".jpg", ".jpeg", ".gif", ".webp")

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    longer_side: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must be of 1 or 3 channels: got {list(self.mean)} and {list(self.std)}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0: got {list(self.std)}")
        if self.size is not None:
            object.__setattr__(self, "size", tuple(map(int, self.size)))
        if self.size is not None and self.longer_side is not None:
            raise ValueError(f"give size or longer_side, not both: got {self.size} and {self.longer_side}")
        sides = [*(self.size or ()), *(() if self.longer_side is None else (self.longer_side,))]
        if (self.size is not None and len(self.size) != 2) or min(sides, default=1) < 1:
            raise ValueError(f"a size must be a height and a width of at least 1: got {sides}")

    def read(self, path: Path) -> Tensor:
        """The picture of a file, resized and normalised."""
        return self.prepared(self.pixels(path))

    def pixels(self, path: Path) -> Tensor:
        """Upright pixels ``[C, H, W]`` (uint8) of a file.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it is no whole picture.
        """
        _require("torchvision", "vision", "reading pictures")
        from torchvision.io import ImageReadMode, decode_image

        data = path.read_bytes()
        if not data:
            raise ValueError("the file is empty")
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)  # a copy: bytes must not be written to
        mode = ImageReadMode.RGB if len(self.mean) == 3 else ImageReadMode.GRAY
        try:
            pixels: Tensor = decode_image(encoded, mode=mode, apply_exif_orientation=True)
        except RuntimeError as error:
            raise ValueError(str(error).strip().splitlines()[0]) from error
        if pixels.ndim == 4:  # of an animation the first
            pixels = pixels[0]
        return pixels if pixels.dtype == torch.uint8 else (pixels.int() // 257).to(torch.uint8)

    def prepared(self, pixels: Tensor) -> Tensor:
        """Pixels ``[C, H, W]`` (uint8) resized and normalised."""
        height, width = pixels.shape[-2:]
        wanted = self.size
        if self.longer_side is not None:
            factor = self.longer_side / max(height, width)
            wanted = max(1, round(height * factor)), max(1, round(width * factor))
        if wanted is not None and wanted != (height, width):
            from torchvision.transforms import v2

            pixels = v2.functional.resize(pixels, list(wanted), antialias=True)
        shift, scale = (torch.tensor(row).view(-1, 1, 1) for row in (self.mean, self.std))
        return pixels.float().mul(1 / (255 * scale)).sub_(shift / scale)

    def shown(self, item: Tensor) -> Tensor:
        """Pixels ``[C, H, W]`` (uint8) of a prepared picture."""
        shift, scale = (torch.tensor(row).view(-1, 1, 1) for row in (self.mean, self.std))
        return ((item.cpu() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Sounds(Inputs):
    """Sounds as mono waves ``[S]`` in [-1, 1] at one rate.

    Attributes:
        sample_rate: samples per second; other rates are resampled.
    """

    kind = "sounds"
    noun = "sound"
    suffixes = (".wav", ".flac", ".ogg", ".mp3")

    sample_rate: int

    def __post_init__(self) -> None:
        if self.sample_rate < 1:
            raise ValueError(f"sample_rate must be at least 1: got {self.sample_rate}")

    def read(self, path: Path) -> Tensor:
        """The wave of a file, its channels averaged, resampled by torchaudio."""
        _require("soundfile", "speech", "reading sounds")
        import soundfile

        data = path.read_bytes()
        _check_riff(data)
        try:
            with soundfile.SoundFile(path) as file:
                rate, expected = file.samplerate, file.frames
                samples = file.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(error.error_string) from error
        if not len(samples):
            raise ValueError("holds no sample")
        if len(samples) < expected:
            raise ValueError(f"holds {len(samples)} of {expected} samples")
        wave = torch.from_numpy(samples).mean(dim=1)
        if not bool(wave.isfinite().all()):
            raise ValueError("holds samples that are not finite")
        return wave if rate == self.sample_rate else _resampler(rate, self.sample_rate)(wave)


@dataclass(frozen=True)
class Texts(Inputs):
    """Texts, one a line."""

    kind = "texts"
    noun = "text"
    suffixes = (".txt",)
    by_line = True

    def read(self, path: Path) -> str:
        """The whole of a file as one text (UTF-8)."""
        return path.read_text(encoding="utf-8-sig")


def inputs_from(plain: Mapping[str, Any]) -> Inputs:
    """Inputs as a configuration holds them.

    Raises:
        ValueError: there is no such kind, or its values do not fit.

    Example:
        >>> inputs_from({"kind": "sounds", "sample_rate": 8000})
        Sounds(sample_rate=8000)
    """
    kinds = {kind.kind: kind for kind in (Pictures, Sounds, Texts)}
    values = dict(plain)
    name = values.pop("kind", None)
    if name not in kinds:
        raise ValueError(f"a kind of inputs must be one of {', '.join(kinds)}: got {name!r}")
    try:
        made: Inputs = kinds[name](**values)
    except TypeError as error:
        raise ValueError(f"{name} must have the fields that they take: got {error}") from error
    return made


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> Any:
    """torchaudio's filter from one rate to another, computed once for each pair."""
    from torchaudio.transforms import Resample

    return Resample(source, target)


def _check_riff(data: bytes) -> None:
    """Compare a WAV file with the length in its header, which libsndfile passes over in silence."""
    if not data:
        raise ValueError("the file is empty")
    stated = int.from_bytes(data[4:8], "little")
    # 0 and all ones stand for an unknown length; the last odd byte's padding is often left out
    if data[:4] == b"RIFF" and 0 < stated < 0xFFFFFFFF and len(data) + 1 < stated + 8:
        raise ValueError(f"holds {len(data)} of {stated + 8} bytes")


def _require(module: str, extra: str, purpose: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{purpose} needs {module}: pip install "mmattn[{extra}]"')
