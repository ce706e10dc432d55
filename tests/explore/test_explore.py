"""What is explored of our own models is what they do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn import head_importance, observe, relevance
from mmattn.explore import Exploration, TokenMap, explore, load, right_and_wrong, save
from tests.explore.made import SPEECH, TEXT, Labelled, Tiny, seeded

LAYERS = ["encoder.blocks.0.attention", "encoder.blocks.1.attention", "head.pool.attention"]


def test_a_picture_is_explored_as_the_model_sees_it(vision: Tiny, picture: Labelled) -> None:
    with torch.no_grad(), observe(vision, weights=True) as record:
        logits = vision([picture.item])
    (found,) = explore(vision, [picture], titles=["a scene"], name="tiny")
    assert (found.domain, found.title, found.model, found.size) == ("vision", "a scene", "tiny", (12, 16))
    assert [layer.name for layer in found.layers] == LAYERS
    assert [layer.title for layer in found.layers] == ["block 1", "block 2", "pooling"]
    assert [layer.queries for layer in found.layers] == [[], [], ["pooling query"]]
    for index, name in enumerate(LAYERS):
        weights = record[name].weights[0]
        assert torch.allclose(found.weights(index), weights, atol=float(weights.max()) / 500)
    assert found.true_label == "1"
    assert found.predicted_label == str(int(logits.argmax()))
    assert found.probability == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)
    assert found.tokens[:5] == [f"row 1, column {i + 1}" for i in range(4)] + ["row 2, column 1"]
    assert found.regions[5] == [4, 4, 8, 8]
    assert [i for i, relevant in enumerate(found.relevant) if relevant] == [1, 2, 5, 6]
    assert found.answer == [[0, 4, 8, 12]]
    assert found.notes == []
    pooled = record[LAYERS[2]].weights[0][:, 0, [1, 2, 5, 6]].sum(-1)
    assert found.layers[2].mass == pytest.approx(pooled.tolist(), abs=1e-5)


def test_rollout_relevance_and_importance_are_the_librarys(vision: Tiny, picture: Labelled) -> None:
    (found,) = explore(vision, [picture])
    rollout, gradient = found.maps
    assert (rollout.name, gradient.name, gradient.of) == ("rollout", "relevance", found.predicted_label)
    scores = relevance(vision, ([picture.item],)).scores[0]
    assert rollout.values == pytest.approx(scores.tolist(), abs=1e-4)
    scores = relevance(vision, ([picture.item],), method="gradient").scores[0]
    assert gradient.values == pytest.approx((scores / scores.sum()).tolist(), abs=1e-4)

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model([picture.item]), torch.tensor([1]))

    expected = head_importance(vision, [None], loss)
    assert [layer.importance for layer in found.layers] == [
        pytest.approx(expected[name].tolist(), rel=1e-4) for name in LAYERS
    ]


def test_importance_can_be_given_or_left_out(vision: Tiny, picture: Labelled) -> None:
    (found,) = explore(vision, [picture], importance={LAYERS[0]: [3.0, 1.0], LAYERS[1]: [1.0]})
    assert [layer.importance for layer in found.layers] == [[3.0, 1.0], None, None]
    (found,) = explore(vision, [picture], importance=False)
    assert [layer.importance for layer in found.layers] == [None, None, None]


def test_a_sound_can_be_played_and_its_tokens_are_seconds(speech: Tiny) -> None:
    (found,) = explore(speech, [SPEECH])
    assert found.domain == "speech"
    assert found.size == (0.5, 4000)
    assert found.sound.startswith("data:audio/wav;base64,UklGR")
    assert found.image.startswith("data:image/png;base64,")
    assert found.regions[-1][1] == 0.5
    assert found.answer == [[0.25, 0.5]]
    half = [region[0] + region[1] > 0.5 for region in found.regions]
    assert sum(a != b for a, b in zip(half, found.relevant, strict=True)) <= 1
    assert found.true_label == "yes"


def test_a_text_is_cut_into_its_tokens(text: Tiny) -> None:
    (found,) = explore(text, [TEXT])
    # é has two bytes; "<" is kept, whatever the page makes of it
    assert "".join(found.tokens) == TEXT.item
    assert found.notes == ["Tokens that are parts of one character are shown as one."]
    assert [found.tokens[i] for i, relevant in enumerate(found.relevant) if relevant] == list("warm")
    weights = found.weights(0)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=0.02)


def test_models_stay_as_they_were(vision: Tiny, picture: Labelled) -> None:
    vision.train()
    state = torch.get_rng_state()
    before = {name: x.clone() for name, x in vision.state_dict().items()}
    first = explore(vision, [picture])
    assert vision.training
    assert vision.encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, before[name]) for name, x in vision.state_dict().items())
    assert all(p.grad is None for p in vision.parameters())
    assert explore(vision, [picture]) == first


def test_long_items_are_taken_together(vision: Tiny) -> None:
    with seeded():
        item = Labelled(torch.rand(1, 32, 32), 0, (0, 0, 16, 16))
    (found,) = explore(vision, [item], most=20)
    assert len(found.tokens) == 16
    assert found.notes == ["64 tokens are more than 20: blocks of 2 × 2 are shown as one."]
    assert found.tokens[5] == "block at row 3, column 3"
    assert found.regions[5] == [8, 8, 16, 16]
    assert [i for i, relevant in enumerate(found.relevant) if relevant] == [0, 1, 4, 5]
    (whole,) = explore(vision, [item])
    mass = [layer.mass for layer in whole.layers]
    assert [layer.mass for layer in found.layers] == [pytest.approx(each, abs=1e-4) for each in mass]


def test_the_first_right_and_the_first_wrong_are_found(vision: Tiny) -> None:
    with seeded():
        items = [torch.rand(1, 8, 8) for _ in range(6)]
    said = [int(vision([item]).argmax()) for item in items]
    labels = [(label + (i in (0, 3))) % 3 for i, label in enumerate(said)]
    examples = [Labelled(item, label) for item, label in zip(items, labels, strict=True)]
    assert right_and_wrong(vision, examples) == [1, 2, 0]
    assert right_and_wrong(vision, examples, right=9, wrong=9) == [1, 2, 4, 5, 0, 3]


def test_files_give_back_what_was_saved(all_three: list[Exploration], tmp_path: Path) -> None:
    path = save(all_three, tmp_path / "new" / "exploration.json")
    assert load(path) == all_three
    assert save(load(path), tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "must be of format 1: got 2"),
        ({"domain": "touch"}, "domain must be one of vision, speech, text: got 'touch'"),
        ({"smell": 1}, "must have known fields: got 'smell'"),
        ({"layers": []}, "must have a layer"),
        ({"regions": []}, "regions must be one for each of 12 tokens: got 0"),
        ({"relevant": [True]}, "relevant must be one for each of 12 tokens: got 1"),
        ({"tokens": ["one"]}, "must be one for each of 1 tokens: got 12"),
        ({"maps": [{"name": "rollout", "values": [1.0]}]}, "a map must have 12 values: got 1"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    change: dict[str, Any], says: str, vision: Tiny, picture: Labelled, tmp_path: Path
) -> None:
    path = save(explore(vision, [picture]), tmp_path / "x.json")
    path.write_text(json.dumps([json.loads(path.read_text())[0] | change]))
    with pytest.raises(ValueError, match="x.json must hold explorations: got .*" + says):
        load(path)


def test_layers_check_their_numbers(vision: Tiny, picture: Labelled) -> None:
    (found,) = explore(vision, [picture])
    with pytest.raises(ValueError, match="importance must have one finite number for each of 2 heads"):
        replace(found.layers[0], importance=[1.0])
    with pytest.raises(ValueError, match="queries must have one name for each of 12: got 1"):
        replace(found.layers[0], queries=["x"])
    with pytest.raises(ValueError, match="a map must have 12 values"):
        replace(found, maps=[TokenMap("rollout", [])])


def test_refusals_are_one_sentence(vision: Tiny) -> None:
    with pytest.raises(ValueError, match=r"an item must be a picture .* got torch.int64 \[3\]"):
        explore(vision, [torch.tensor([1, 2, 3])])
    with pytest.raises(ValueError, match="a model must be a module or an opened checkpoint: got str"):
        explore("model", [])
    with pytest.raises(ValueError, match="titles must be one for each of 0 items: got 1"):
        explore(vision, [], titles=["x"])
