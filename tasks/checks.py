"""What every data module does before training: find its files, check each of them, cut the splits."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

SPLITS = ("train", "val", "test")


class Problems:
    """Collects what is wrong with each file (or row) and says all of it in one error.

    Args:
        rule: what every file must fulfil; the first half of the error.

    Example:
        >>> problems = Problems("every clip must be readable")
        >>> problems.add("a.wav", "is empty")
        >>> problems.raise_any()
        Traceback (most recent call last):
        ValueError: every clip must be readable: got 1 that is not: a.wav (is empty)
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.found: list[tuple[str, str]] = []

    def add(self, where: object, reason: object) -> None:
        """Note that ``where`` breaks the rule; only the first line of ``reason`` is kept."""
        lines = str(reason).strip().splitlines()
        self.found.append((str(where), lines[0] if lines else type(reason).__name__))

    def raise_any(self) -> None:
        """Raise one ``ValueError`` naming all that was found."""
        if not self.found:
            return
        named = ", ".join(f"{where} ({reason})" for where, reason in self.found)
        verb = "that is not" if len(self.found) == 1 else "that are not"
        raise ValueError(f"{self.rule}: got {len(self.found)} {verb}: {named}")


def missing(layout: str, path: str | Path, download: bool | None = None) -> FileNotFoundError:
    """The error for data that are not there: the layout expected, the path and the way to get them.

    Args:
        layout: what must lie at ``path``.
        path: where it was looked for.
        download: the value of the data module's argument of this name; None where it has none.
    """
    hint = "" if download is None else " (pass download=True to fetch it)"
    return FileNotFoundError(f"{layout} must be present{hint}: got {path}")


def check_fraction(name: str, value: float) -> None:
    """Refuse a share of the data that leaves one side empty.

    Raises:
        ValueError: ``value`` lies outside (0, 1).
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1): got {value}")


def fetch(url: str, target: Path, inner: str = "", sha256: str | None = None) -> None:
    """Download a file, or an archive and unpack it, so that ``target`` appears whole or not at all.

    Args:
        url: address; ``.zip``, ``.tar.gz`` and ``.tgz`` are unpacked, anything else is kept as it is.
        target: the file or folder that is made.
        inner: folder inside the archive that becomes ``target``; all of the archive if empty.
        sha256: digest the download must have.

    Raises:
        RuntimeError: the download failed; the cause is chained.
    """
    # Work goes on beside the target and is renamed at the end: a broken run never looks like data.
    part = target.with_name(target.name + ".part")
    unpacked = target.with_name(target.name + ".unpacked")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(part), hash_prefix=sha256)
        if url.endswith(".zip"):
            with zipfile.ZipFile(part) as archive:
                archive.extractall(unpacked)
        elif url.endswith((".tar.gz", ".tgz")):
            with tarfile.open(part) as tar:
                tar.extractall(unpacked, filter="data")
        else:
            part.replace(target)
            return
        (unpacked / inner).replace(target)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise RuntimeError(f"a download must succeed before training: got {reason[0]} for {url}") from error
    finally:
        part.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)


def cut(
    labels: Sequence[str], indices: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Cut a stratified share off: ``round(fraction * n)`` examples of each label, at least one of two.

    Which examples are drawn depends on their order in ``indices`` and on ``seed`` alone.

    Args:
        labels: label of every example of the data set.
        indices: the examples to cut from.
        fraction: share that is cut off.
        seed: seed of the draw.

    Returns:
        Indices kept and indices cut off, each ascending.

    Raises:
        ValueError: ``fraction`` lies outside (0, 1).
    """
    check_fraction("the fraction of a split", fraction)
    generator = torch.Generator().manual_seed(seed)
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index in indices:
        groups[labels[index]].append(index)
    off: list[int] = []
    for label in sorted(groups):
        group = groups[label]
        count = min(max(1, round(fraction * len(group))), len(group) - 1)
        off += [group[i] for i in torch.randperm(len(group), generator=generator)[:count].tolist()]
    gone = set(off)
    return [i for i in indices if i not in gone], sorted(off)


def complete_splits(
    labels: Sequence[str],
    splits: Sequence[str],
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
) -> dict[str, list[int]]:
    """Indices of each split; a split without examples is cut from ``train``, test before val.

    Args:
        labels: label of every example, in an order that does not depend on the file system.
        splits: ``train``, ``val`` or ``test`` for every example.
        val_fraction: share of ``train`` that becomes ``val`` where there is none; None cuts nothing.
        test_fraction: share of ``train`` that becomes ``test`` where there is none; None cuts nothing.
        seed: seed of the draw.

    Raises:
        ValueError: a fraction lies outside (0, 1), or a split remains empty.
    """
    found: dict[str, list[int]] = {name: [] for name in SPLITS}
    for index, split in enumerate(splits):
        found[split].append(index)
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if fraction is not None and not found[name]:
            found["train"], found[name] = cut(labels, found["train"], fraction, seed)
    check_splits(found)
    return found


def check_splits(splits: Mapping[str, Sequence[int]]) -> None:
    """Refuse an empty split.

    Raises:
        ValueError: a split holds no example.
    """
    if not all(splits.values()):
        counts = ", ".join(f"{name}={len(indices)}" for name, indices in splits.items())
        raise ValueError(f"every split must hold at least one example: got {counts}")


def check_known(
    problems: Problems, names: Sequence[object], labels: Sequence[str], splits: Mapping[str, Sequence[int]]
) -> None:
    """Note every example of ``val`` and ``test`` whose label no training example has."""
    known = {labels[i] for i in splits["train"]}
    for split in ("val", "test"):
        for i in splits[split]:
            if labels[i] not in known:
                problems.add(names[i], f"label {labels[i]!r} of the {split} split does not occur in train")


def digest(content: Iterable[tuple[str, bytes]], class_names: Sequence[str], prepared: str = "") -> str:
    """Hexadecimal sha256 of labelled content, whatever the order and the names of the files.

    Args:
        content: label and sha256 (or the content itself) of every example.
        class_names: the classes in order.
        prepared: what is done to the content before it is handed out, such as a sample rate.
    """
    rows = sorted(hashlib.sha256(label.encode() + b"\0" + data).digest() for label, data in content)
    whole = hashlib.sha256(repr((tuple(class_names), prepared)).encode())
    for row in rows:
        whole.update(row)
    return whole.hexdigest()
