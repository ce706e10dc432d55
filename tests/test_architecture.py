"""The rooms of the library and who may use whom, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmattn
import mmattn.adapters

ROOT = Path(mmattn.__file__).parent
REPOSITORY = Path(__file__).parents[1]

#: For each room of mmattn, the rooms that it may import from, besides itself. A new room gets a line here.
MAY_IMPORT: dict[str, set[str]] = {
    "tokens": set(),
    "masks": set(),
    "dropout": set(),
    "positions": {"tokens"},
    "cache": {"tokens", "masks"},
    "backends": {"masks", "dropout"},
    "functional": {"backends", "masks"},
    "projections": {"cache", "positions", "tokens"},
    "attention": {"projections", "gates", "functional", "backends", "masks", "positions", "cache", "tokens"},
    "fused": {"attention", "backends", "masks", "positions", "dropout", "tokens"},
    "blocks": {"attention", "fused", "backends", "masks", "positions", "dropout", "cache", "tokens"},
    "encoder": {"blocks", "attention", "backends", "masks", "positions", "tokens"},
    "decoder": {"blocks", "attention", "backends", "masks", "dropout", "positions", "cache", "tokens"},
    "heads": {"attention", "dropout", "tokens"},
    "registers": {"tokens"},
    "builders": {"blocks", "encoder", "decoder", "heads", "attention", "positions", "dropout"},
    "adapters": {"tokens", "positions", "dropout"},
    "convert": {"attention", "positions"},
    "gates": set(),
    "plugins": {"attention", "functional", "backends", "masks", "positions", "tokens"},
    "observation": {"plugins", "functional", "attention", "backends", "masks", "positions", "tokens"},
    "conformer": {
        "attention", "backends", "blocks", "cache", "dropout", "encoder", "masks", "positions", "tokens",
    },
    "recognition": {
        "adapters", "attention", "blocks", "builders", "cache", "conformer", "dropout", "encoder",
        "functional", "masks", "observation", "positions", "tokens",
    },
    "language": {"adapters", "builders", "dropout", "encoder", "heads", "tokens"},
    "translation": {
        "adapters", "attention", "builders", "cache", "decoder", "dropout", "encoder", "functional", "heads",
        "masks", "observation", "positions", "tokens",
    },
    "vit": {
        "adapters", "attention", "blocks", "builders", "dropout", "encoder", "heads", "positions",
        "registers", "tokens",
    },
    "explore": {"observation"},
    "inference": {
        "adapters", "attention", "builders", "conformer", "decoder", "dropout", "encoder", "explore", "heads",
        "language", "observation", "positions", "recognition", "report", "tokens", "translation", "vit",
    },
    "__main__": {"inference"},
    "report": {"explore"},
}  # fmt: skip

#: Rooms above the library proper: only what is public, by the name under which it is public.
USES_PUBLIC_NAMES = {"training"}

SURFACE = {
    "ALiBi", "AttentionPool", "AudioFrames", "Backend", "Block", "Calibration", "Causal", "Classifier",
    "Decoder", "DecoderBlock", "DecoderState", "Encoder", "FeedForward", "GridBias", "HeadGate",
    "ImagePatches", "KVCache", "KeyLengths", "LearnedPositions", "MeanPool", "Memory",
    "MultiHeadAttention", "Neighbourhood", "Pattern", "PositionBias", "Prefix", "Registers", "RelativeBias",
    "RotaryPositions", "Segments", "SinusoidalPositions", "TextNgrams", "TextTokens", "TokenBatch",
    "Window", "attend", "attention_weights", "build_classifier", "build_decoder", "build_encoder",
    "explain", "from_additive_mask", "from_attention_mask", "from_attn_mask", "from_batch_mask",
    "from_key_padding_mask", "from_sdpa_mask", "head_importance", "ntk_base", "observe", "padding_lint",
    "plug_in", "prune_heads", "pruned_heads", "relevance", "set_head_mask", "unplug", "use_calibration",
}  # fmt: skip


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """``(module, name)`` of each import of a file, wherever it stands; None for a whole module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def resolve(module: str, name: str | None) -> str:
    """The room that an import of ours reaches; empty for the root itself."""
    if (
        module == "mmattn"
        and name is not None
        and ((ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file())
    ):
        return name
    return module.removeprefix("mmattn").strip(".").partition(".")[0]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "mmattn"


LIBRARY = [path for path in sources(ROOT) if path != ROOT / "__init__.py"]


def test_every_room_has_its_line():
    rooms = {room_of(path) for path in LIBRARY}
    assert {"tokens", "attention", "adapters", "training"} <= rooms
    assert rooms - set(MAY_IMPORT) - USES_PUBLIC_NAMES == set()


def test_the_table_has_no_circle():
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {room for room, below in MAY_IMPORT.items() if below <= done} - done
        assert ready, f"a circle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = room_of(path)
    for module, name in imports(path):
        assert not module.startswith("."), f"relative import {module!r}"
        assert module.partition(".")[0] not in ("tasks", "tests", "benchmarks"), (
            f"the library imports {module}"
        )
        if not is_ours(module) or room in USES_PUBLIC_NAMES:
            continue
        reached = resolve(module, name)
        assert reached in MAY_IMPORT[room] | {room}, f"{room} imports {module}.{name}"


@pytest.mark.parametrize(
    "path",
    [p for p in LIBRARY if room_of(p) in USES_PUBLIC_NAMES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_training_uses_public_names_and_the_run_record(path):
    public = set(mmattn.__all__) | set(mmattn.adapters.__all__)
    for module, name in imports(path):
        if not is_ours(module) or resolve(module, name) == room_of(path):
            continue
        if module.startswith("mmattn.report"):
            assert module == "mmattn.report.records", f"imports {module}"
        elif (module, name) != ("mmattn", "builders"):  # all that YAML files may name
            assert name in public, f"imports {module}.{name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_private_crosses_a_room(path):
    for module, name in imports(path):
        if is_ours(module) and resolve(module, name) != room_of(path):
            parts = [*module.split("."), name or ""]
            assert not any(part.startswith("_") for part in parts), f"imports {module}.{name}"


def test_no_task_imports_another_task():
    tasks = REPOSITORY / "tasks"
    domains = {path.name for path in tasks.iterdir() if (path / "__init__.py").is_file()} - {"compare"}
    assert {"vision", "speech", "text"} <= domains
    for path in sources(tasks):
        own = path.relative_to(tasks).parts[0]
        for module, name in imports(path):
            parts = [*module.split("."), name]
            if parts[0] != "tasks" or len(parts) < 2 or own not in domains | {"scenes.py", "checks.py"}:
                continue
            assert parts[1] not in domains - {own}, f"{path.relative_to(REPOSITORY)} imports {module}.{name}"


def test_public_surface():
    assert set(mmattn.__all__) == SURFACE
    assert list(mmattn.__all__) == sorted(mmattn.__all__)
    for name in mmattn.__all__:
        assert getattr(mmattn, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize(
    ("module", "name", "room"),
    [
        ("mmattn", "backends", "backends"),
        ("mmattn", "attend", ""),
        ("mmattn.tokens", "TokenBatch", "tokens"),
        ("mmattn.positions.rotary", "RotaryPositions", "positions"),
        ("mmattn.masks", None, "masks"),
    ],
)
def test_resolve(module, name, room):
    assert resolve(module, name) == room


def test_imports_are_found_wherever_they_stand(tmp_path):
    source = (
        "import a.b\nfrom ..c import d\nif 0:\n    from mmattn import e\ndef f():\n    import mmattn.g as h\n"
    )
    (tmp_path / "some.py").write_text(source)
    found = set(imports(tmp_path / "some.py"))
    assert found == {("a.b", None), ("..c", "d"), ("mmattn", "e"), ("mmattn.g", None)}
