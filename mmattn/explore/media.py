"""Pictures and sounds as addresses that hold them: PNG and WAV, equal for equal data."""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from torch import Tensor
from torch.nn import functional as F

#: Bytes of a wave beyond which it is kept at a lower rate.
MOST_SOUND = 200_000
#: Samples a second below which speech is hard to understand.
LEAST_RATE = 8000


def picture(pixels: Tensor) -> str:
    """A picture ``[C, H, W]`` (uint8; C = 1 grey or 3 red, green, blue) as a ``data:`` address.

    Raises:
        ValueError: it has other channels, or is not uint8.
    """
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.dtype != torch.uint8:
        raise ValueError(f"a picture must be uint8 [1 or 3, H, W]: got {pixels.dtype} {list(pixels.shape)}")
    channels, height, width = pixels.shape
    rows = pixels.cpu().permute(1, 2, 0).reshape(height, width * channels)
    differences = rows.clone()
    differences[:, channels:] -= rows[:, :-channels]  # PNG's filter 1: what is left of it taken off
    packed = min((_deflated(rows, 0), _deflated(differences, 1)), key=len)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return _address("image/png", b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks))


def viewable(values: Tensor) -> Tensor:
    """A picture of floats ``[C, H, W]`` as uint8 with 1 or 3 channels: as it is where it lies in [0, 1] but for
    noise, otherwise stretched from its least to its largest value."""
    values = values.detach().float().cpu()
    if values.shape[0] not in (1, 3):
        values = values.mean(0, keepdim=True)
    low, high = float(values.min()), float(values.max())
    if low < -0.25 or high > 1.25:
        values = (values - low) / max(high - low, 1e-9)
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def spectrogram(log_values: Tensor) -> str:
    """A spectrogram ``[frames, bands]``, lowest band first, in grey: loud is dark, the faintest 2 % are white."""
    values = log_values.detach().float().cpu().T.flip(0)
    low, high = float(values.flatten().kthvalue(max(1, values.numel() // 50)).values), float(values.max())
    loud = ((values - low) / max(high - low, 1e-9)).clamp(0, 1)
    return picture(((1 - loud) * 255).round().to(torch.uint8)[None])


def log_spectrogram(wave: Tensor, rate: int) -> Tensor:
    """Log power ``[frames, bands]`` of a wave ``[S]``, for models that do not show theirs: windows of 32 ms every
    10 ms, bands up to half the rate."""
    size, hop = max(16, rate * 32 // 1000), max(1, rate // 100)
    wave = F.pad(wave.detach().float().cpu(), (0, max(0, size - len(wave))))
    found = torch.stft(
        wave, size, hop, window=torch.hann_window(size), return_complex=True, pad_mode="constant"
    )
    power = found.abs().square()
    return F.adaptive_avg_pool1d(power.T, min(80, len(power))).clamp(min=1e-7).log()


def sound(wave: Tensor, rate: int) -> str:
    """A wave ``[S]`` in [-1, 1] as a ``data:`` address: 16 bits a sample, its rate halved while it is too long."""
    wave = wave.detach().float().cpu()
    while 2 * len(wave) > MOST_SOUND and rate >= 2 * LEAST_RATE:
        wave, rate = F.avg_pool1d(wave[None], 2)[0], rate // 2
    samples = (wave.clamp(-1, 1) * 32767).round().to(torch.int64) % 65536
    data = bytes(torch.stack([samples % 256, samples // 256], 1).to(torch.uint8).flatten().tolist())
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, 1, rate, 2 * rate, 2, 16,
                       b"data", len(data))  # fmt: skip
    return _address("audio/wav", head + data)


def _deflated(rows: Tensor, kind: int) -> bytes:
    marked = torch.cat([rows.new_full((len(rows), 1), kind), rows], dim=1)
    return zlib.compress(bytes(marked.flatten().tolist()), 9)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
