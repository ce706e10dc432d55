"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "timm", "transformers", "x-transformers")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def facts(device: str = "cpu") -> dict[str, object]:
    """Versions, threads, and what the processor or the device can do."""
    found: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **_processor(Path("/proc/cpuinfo")),
    }
    if device == "cuda":
        found["cuda"] = {"device": torch.cuda.get_device_name(), "version": torch.version.cuda}
    return found


def _processor(path: Path) -> dict[str, object]:
    """Name and those of ``FLAGS`` that Linux lists; elsewhere what Python knows."""
    if not path.exists():
        return {"processor": platform.processor(), "flags": []}
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    return {"processor": fields.get("model name", ""), "flags": [flag for flag in FLAGS if flag in flags]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
