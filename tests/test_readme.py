"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    said = capsys.readouterr().out.strip()
    assert said.startswith("TokenBatch(2 sequences, 112 tokens, lengths 16..96, values [112, 128] float32")
    assert said.split(", values")[0] in README
    assert "outputs and gradients agree with the host's" in said
    assert namespace["record"]["blocks.1.attn"].entropy.shape == (2, 3, 17)


@pytest.mark.parametrize("path", sorted({*re.findall(r"(?:\(|--config )([\w/]+\.(?:md|png|yaml))", README)}))
def test_files_that_the_readme_names_are_there(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("page", ["attention.md", "masks.md", "plugins.md", "use.md"])
def test_the_python_of_a_page_runs(page):
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert blocks
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
