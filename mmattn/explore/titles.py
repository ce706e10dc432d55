"""What layers are called: in the words of a reader, not of a module tree."""

from __future__ import annotations

import re
from collections.abc import Sequence


def layer_titles(names: Sequence[str], pools: Sequence[bool]) -> list[str]:
    """Titles of attention modules in the order in which they run.

    Args:
        names: of the modules.
        pools: whether the queries of each are no tokens of the item.

    Example:
        >>> layer_titles(["encoder.blocks.0.attention", "encoder.blocks.1.attention", "head.pool"], [0, 0, 1])
        ['block 1', 'block 2', 'pooling']
        >>> layer_titles(["encoder.0.self_attn", "decoder.0.self_attn"], [False, False])
        ['encoder block 1', 'decoder block 1']
    """
    families = [re.sub(r"\d+", "#", name) for name in names]
    blocks = list(dict.fromkeys(family for family, pool in zip(families, pools, strict=True) if not pool))
    seen: dict[str, int] = {}
    titles = []
    for family, pool in zip(families, pools, strict=True):
        count = seen[family] = seen.get(family, 0) + 1
        if pool:
            titles.append("pooling" if families.count(family) == 1 else f"pooling {count}")
        else:
            words = _apart(family, blocks)
            titles.append(f"{words} {count}" if words.endswith("block") else f"{words} block {count}".strip())
    return titles


def _apart(family: str, families: Sequence[str]) -> str:
    """The words of a family that not all have."""
    if len(families) == 1:
        return ""
    common = set.intersection(*(set(each.split(".")) for each in families))
    words = [word for word in family.split(".") if word not in common and word != "#"]
    return " ".join(word.replace("_", " ") for word in words)
