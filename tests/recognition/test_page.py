"""The page about speech recognition runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "recognition.md"


def test_the_python_of_the_page_runs(capsys):
    pytest.importorskip("tokenizers")
    pytest.importorskip("matplotlib")
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 8
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(block, namespace)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "['abc', 'cab']"
    assert f"# {said[0]}" in text
    assert said[1] == "['bac']"
    assert said[2].startswith("ab -")
    assert [line[0] for line in said[4:]] == list("cab")
    assert len(namespace["figure"].axes) == 3


def test_its_links_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            assert target[1:] in {heading.lower().replace(" ", "-") for heading in headings}
        else:
            assert (PAGE.parent / target).is_file()
