"""What `import mmattn` loads and changes, seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

OPTIONAL = {
    "torchaudio",
    "torchvision",
    "lightning",
    "timm",
    "tokenizers",
    "transformers",
    "sklearn",
    "matplotlib",
    "PIL",
    "torchmetrics",
    "jsonargparse",
    "jinja2",
    "yaml",
    "soundfile",
    "scipy",
    "pandas",
}

PROGRAM = """
import json, os, sys
import torch
settings = lambda: [
    torch.get_num_threads(), torch.get_default_dtype().itemsize, torch.are_deterministic_algorithms_enabled(),
    torch.get_rng_state().sum().item(), torch.get_float32_matmul_precision(), sorted(os.environ),
]
before, loaded = settings(), set(sys.modules)
import mmattn
new = {name.partition(".")[0] for name in set(sys.modules) - loaded}
ours = sorted(name for name in sys.modules if name.startswith("mmattn"))
print(json.dumps([sorted(new), before == settings(), ours]))
"""


def test_import_loads_nothing_optional_and_changes_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.partition("[")[0]
    assert not done.stderr
    loaded, unchanged, ours = json.loads(done.stdout)
    assert "mmattn" in loaded
    assert OPTIONAL.isdisjoint(loaded)
    assert unchanged
    assert not [
        name
        for name in ours
        if name.startswith(("mmattn.training", "mmattn.report", "mmattn.plugins", "mmattn.observation"))
    ]
