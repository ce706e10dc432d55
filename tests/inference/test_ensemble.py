"""Several classifiers as one: the mean of their probabilities, and what does not go together."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from mmattn.inference import Ensemble, Predictor, open_model
from mmattn.inference.command import main
from tests.inference.made import Made


@pytest.fixture
def members(text: Made) -> list[Predictor]:
    """One model, and two of which nothing but the weights of the head differs."""
    made = [open_model(text.checkpoint) for _ in range(3)]
    for seed, member in enumerate(made[1:]):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in member.model.head.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return made


def shares(rows: list[dict[str, Any]]) -> torch.Tensor:
    names = sorted(rows[0]["probabilities"])
    return torch.tensor([[row["probabilities"][name] for name in names] for row in rows])


def test_probabilities_are_the_mean_of_those_of_the_members(members: list[Predictor], text: Made) -> None:
    together = Ensemble(members).predict(text.items)
    each = torch.stack([shares(member.predict(text.items)) for member in members])
    assert (each[0] - each[1]).abs().max() > 0.05
    assert (shares(together) - each.mean(0)).abs().max() < 2e-6  # rows are rounded to six digits
    for row in together:
        assert row["label"] == next(iter(row["probabilities"]))
        assert list(row["probabilities"].values()) == sorted(row["probabilities"].values(), reverse=True)
    assert Ensemble(members[:1]).predict(text.items) == members[0].predict(text.items)
    assert [list(row["probabilities"]) for row in Ensemble(members).predict(text.items, top=1)] == [
        [row["label"]] for row in together
    ]
    assert Ensemble(members).predict([]) == []


def test_the_first_looks(members: list[Predictor]) -> None:
    look, first = Ensemble(members).look("a warm film"), members[0].look("a warm film")
    assert torch.equal(look.weights, first.weights)


def test_what_does_not_go_together_is_refused(members: list[Predictor], speech: Made, vision: Made) -> None:
    with pytest.raises(ValueError, match=r"^an ensemble needs at least one model: got none$"):
        Ensemble([])
    other = copy.copy(members[1])
    other.outputs = {**other.outputs, "class_names": ["good", "bad"]}
    with pytest.raises(ValueError, match=r"must have the same classes: got good, bad and bad, good$"):
        Ensemble([members[0], other])
    other.outputs, other.kind = members[0].outputs, "translation"
    with pytest.raises(ValueError, match=r"^an ensemble is of classification models: got translation$"):
        Ensemble([members[0], other])
    heard = open_model(speech.checkpoint)
    slower = copy.copy(heard)
    slower.inputs = replace(heard.inputs, sample_rate=8000)
    with pytest.raises(ValueError, match=r"^models of an ensemble must read files alike: got .*8000.*4000"):
        Ensemble([heard, slower])
    with pytest.raises(ValueError, match=r"^top must be at least 1: got 0$"):
        Ensemble(members).predict(["x"], top=0)


def test_the_command_averages(text: Made, members: list[Predictor], tmp_path: Path, capsys: Any) -> None:
    second = tmp_path / "second.ckpt"
    checkpoint = torch.load(text.checkpoint, weights_only=True)
    for name, value in members[1].model.head.state_dict().items():
        assert checkpoint["state_dict"][f"head.{name}"].shape == value.shape
        checkpoint["state_dict"][f"head.{name}"] = value
    torch.save(checkpoint, second)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(text.items) + "\n", encoding="utf-8")
    assert main(["predict", str(text.checkpoint), str(lines), "--ensemble", str(second)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Ensemble(members[:2]).predict(text.items)
    assert [row["source"] for row in found] == text.items
    assert (shares(found) - shares(expected)).abs().max() < 2e-6
