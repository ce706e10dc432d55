"""Stands in for the training of a grid: light, slow enough to be killed, and deterministic."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

from tasks.compare.jobs import Job

WORK = f"{__name__}:work"
STEPS = 8


def work(job: Job, scratch: Path, result: Path, tell, threads: int) -> None:
    """Step by step, with a checkpoint after each; ``--pause`` and ``--trouble`` change how it goes."""
    settings = dict(argument.removeprefix("--").split("=") for argument in job.overrides)
    with open(scratch.parent / "begun.txt", "a") as file:
        file.write(f"{job.name} {os.getpid()}\n")
    if settings.get("trouble") == job.name.split("-")[1]:
        raise RuntimeError("it went wrong\nand more")
    _die_once(settings.get("die"), job, scratch)
    last = scratch / "last.json"
    kept = json.loads(last.read_text()) if last.exists() else {"step": 0, "state": ""}
    state, first = bytes.fromhex(kept["state"]), kept["step"]
    for step in range(first, STEPS):
        time.sleep(float(settings.get("pause", 0)))
        state = hashlib.sha256(state + f"{job.name} {job.overrides} {step}".encode()).digest()
        last.with_suffix(".part").write_text(json.dumps({"step": step + 1, "state": state.hex()}))
        last.with_suffix(".part").replace(last)
        tell((step + 1) / STEPS)
    bits = "".join(f"{byte:08b}" for byte in state)
    plain = {"domain": job.domain, "arm": job.arm, "seed": job.seed, "test": "t", "standard": "3"}
    plain |= {"correct": {"0": bits[:64], "3": bits[64:128]}, "values": {"focus/log_ratio": state[0] / 256}}
    (result / "measures.json").write_text(json.dumps(plain))


def _die_once(who: str | None, job: Job, scratch: Path) -> None:
    """A process that ends without a word, the first time or (``always``) each time."""
    if who not in (job.name.split("-")[1], "always"):
        return
    sign = scratch.parent / f"died-{job.name}"
    if who == "always" or not sign.exists():
        sign.touch()
        os.kill(os.getpid(), signal.SIGKILL)
