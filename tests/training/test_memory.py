"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
import torch
from mmattn.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()] + [
        ("rest", ctypes.c_size_t * 5)
    ]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
before = mallinfo().hblkhd
block = torch.empty(30 << 20, dtype=torch.uint8)
print(mallinfo().hblkhd - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt and mallinfo2 are glibc's")
def test_large_blocks_come_from_the_heap_and_stay_there():
    taken = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True).stdout)
        for how in ("default", "keep")
    }
    assert taken["default"] >= 30 << 20  # from the system, to which they go back
    assert taken["keep"] == 0
