"""What a release holds and asks for, built as a release is built."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmattn

ROOT = Path(__file__).parents[1]
EXTRAS = {"vision", "speech", "text", "tasks", "plugins", "ray", "all", "dev"}
#: Modules that are not called like their package.
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel and an sdist."""
    folder = tmp_path_factory.mktemp("release")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(release: Path) -> Path:
    (path,) = release.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"mmattn-{mmattn.__version__}.dist-info/METADATA"))


def requirements(message: Message, extra: str = "") -> list[Requirement]:
    """What the release asks for with one extra, and with the extras that this one names."""
    found = []
    for text in message.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        if requirement.marker is None and not extra:
            found.append(requirement)
        elif requirement.marker is not None and extra and requirement.marker.evaluate({"extra": extra}):
            if requirement.name == "mmattn":
                found += [each for name in requirement.extras for each in requirements(message, name)]
            else:
                found.append(requirement)
    return found


def pins(python: str) -> dict[str, str]:
    """Version of each package that constraints.txt fixes for a release of Python."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            assert "*" not in specifier.version, line
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is pinned twice for Python {python}"
            found[name] = specifier.version
    return found


def test_the_wheel_holds_mmattn_and_nothing_else(wheel_files: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_files}
    assert tops == {"mmattn", f"mmattn-{mmattn.__version__}.dist-info"}


def test_the_wheel_holds_all_of_mmattn(wheel_files: set[str]) -> None:
    package = ROOT / "mmattn"
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyo")
    }
    assert {name for name in wheel_files if name.startswith("mmattn/")} == sources
    assert "mmattn/py.typed" in sources
    assert any(name.startswith("mmattn/report/templates/") and name.endswith(".j2") for name in sources)


def test_the_wheel_holds_the_licence(wheel_files: set[str], wheel_metadata: Message) -> None:
    assert wheel_metadata["License-Expression"] == "Apache-2.0"
    assert f"mmattn-{mmattn.__version__}.dist-info/licenses/LICENSE" in wheel_files


def test_torch_is_all_that_is_needed(wheel_metadata: Message) -> None:
    assert [requirement.name for requirement in requirements(wheel_metadata)] == ["torch"]
    assert wheel_metadata["Requires-Python"] == ">=3.10"


def test_the_wheel_is_imported_with_torch_alone(wheel: Path, wheel_metadata: Message) -> None:
    needed = {canonicalize_name(Requirement(text).name) for text in metadata.requires("torch") or []}
    optional = {canonicalize_name(requirement.name) for requirement in requirements(wheel_metadata, "dev")}
    hidden = sorted(MODULES.get(name, name.replace("-", "_")) for name in optional - needed - {"torch"})
    assert {"lightning", "numpy", "PIL", "torchvision", "torchaudio", "tokenizers"} <= set(hidden)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden})); sys.path.insert(0, {str(wheel)!r})\n"
        "import mmattn; assert '.whl' in mmattn.__file__, mmattn.__file__\n"
        "for name in mmattn.__all__: getattr(mmattn, name)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_the_extras_are_the_documented_ones(wheel_metadata: Message) -> None:
    assert set(wheel_metadata.get_all("Provides-Extra", [])) == EXTRAS


@pytest.mark.parametrize("extra", ["speech", "tasks", "plugins", "all", "dev"])
def test_torchaudio_comes_with_a_torch_that_it_loads_on(wheel_metadata: Message, extra: str) -> None:
    found = requirements(wheel_metadata, extra)
    assert "torchaudio" in {requirement.name for requirement in found}
    versions = [requirement.specifier for requirement in found if requirement.name == "torch"]
    assert any("2.14.0" in specifier and "2.15.0" not in specifier for specifier in versions)


def test_the_sdist_holds_sources_and_no_data(release: Path) -> None:
    (path,) = release.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "mmattn/__init__.py",
        "tasks/__init__.py",
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
    ):
        assert needed in names
    assert not {name.split("/")[0] for name in names} & {"shared", "data", "runs", "report", ".venv", ".git"}
    assert not [name for name in names if name.endswith((".pyc", ".zip", ".wav", ".ckpt", ".gz"))]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_direct_requirement_of_dev_is_pinned(wheel_metadata: Message, python: str) -> None:
    pinned = pins(python)
    for requirement in requirements(wheel_metadata, "dev") + requirements(wheel_metadata):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin for Python {python}"
        assert version in requirement.specifier, f"{requirement} excludes the pinned {version}"


@pytest.mark.parametrize("python", PYTHONS)
def test_torch_and_its_companions_fit_each_other(python: str) -> None:
    pinned = pins(python)
    assert (pinned["torch"], pinned["torchvision"], pinned["torchaudio"]) == ("2.11.0", "0.26.0", "2.11.0")


def test_all_that_dev_draws_in_is_pinned(wheel_metadata: Message) -> None:
    pinned = pins(f"{sys.version_info.major}.{sys.version_info.minor}")
    waiting, seen = list(requirements(wheel_metadata, "dev")), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, tuple(sorted(requirement.extras)))
        if key in seen:
            continue
        seen.add(key)
        assert name in pinned, f"{name} has no pin"
        try:
            needs = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            extras = ["", *requirement.extras]
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(need)


def test_constraints_name_no_place() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert " @ " not in text
    assert not [line for line in text.splitlines() if line.startswith(("-", "/", "."))]
