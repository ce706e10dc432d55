"""Alignments against the best of all paths, and the picture of one."""

from __future__ import annotations

from itertools import groupby, pairwise, product

import pytest
import torch

from mmattn.recognition import align, draw_alignment
from mmattn.recognition.alignment import token_spans


def best_path(logits: torch.Tensor, ids: list[int]) -> tuple[int, ...]:
    """The most probable alignment, out of all."""
    log_probs = logits.log_softmax(-1).tolist()
    paths = (
        path
        for path in product([0, *sorted(set(ids))], repeat=len(logits))
        if [unit for unit, _ in groupby(path) if unit] == ids
    )
    return max(paths, key=lambda path: sum(log_probs[t][unit] for t, unit in enumerate(path)))


@pytest.mark.parametrize("ids", [[1], [2, 2], [1, 2, 1], [3, 3, 1]])
def test_spans_are_those_of_the_best_path(ids):
    logits = torch.randn(6, 4) * 2
    path, probs = best_path(logits, ids), logits.softmax(-1)
    runs, begin = [], 0
    for unit, run in groupby(path):
        stop = begin + len(list(run))
        if unit:
            runs.append((unit, begin, stop, probs[begin:stop, unit].mean().item()))
        begin = stop
    found = [(span.token, span.start, span.end, span.score) for span in token_spans(logits, ids)]
    assert [span[:3] for span in found] == [run[:3] for run in runs]
    assert [span[3] for span in found] == pytest.approx([run[3] for run in runs], rel=1e-4)


def test_units_in_samples(make, waves):
    recognizer, wave = make(), waves[0]
    found = align(recognizer, wave, "ab ba")
    assert [unit.character for unit in found] == list("ab ba")
    regions = recognizer.adapter.regions([wave])[0]
    spans = token_spans(recognizer([wave]).values.detach(), recognizer.units.encode(["ab ba"])[0])
    for unit, span in zip(found, spans, strict=True):
        assert unit.start_sample == regions[span.start, 0]
        assert unit.stop_sample == regions[span.end - 1, 1]
        assert 0 < unit.score < 1
    starts = [unit.start_sample for unit in found]
    assert starts == sorted(starts)
    assert all(a.stop_sample <= b.start_sample for a, b in pairwise(found))
    assert found[-1].stop_sample <= len(wave)


def test_nothing_said_is_nothing_aligned(make, waves):
    assert align(make(), waves[0], "") == []


def test_a_wave_too_short_for_its_text(make):
    with pytest.raises(ValueError, match="first 'abc' with 2 tokens for 3 units that need 3"):
        align(make(), torch.randn(200), "abc")


def test_the_picture_shows_units_and_their_attention(make, waves, tmp_path):
    pytest.importorskip("matplotlib")
    recognizer, wave, text = make(), waves[3], "ab c"
    figure = draw_alignment(recognizer, wave, text, layer=1, head=2)
    above, below = figure.axes[:2]
    assert [label.get_text() for label in below.get_yticklabels()] == ["a", "b", "␣", "c"]
    assert [label.get_text() for label in above.texts] == ["a", "b", "␣", "c"]
    assert above.get_xlim() == below.get_xlim() == (0, len(wave) / 4000)
    found = align(recognizer, wave, text)
    for row, (box, unit) in enumerate(zip(below.patches, found, strict=True)):
        assert box.get_y() == row
        assert box.get_x() * 4000 == pytest.approx(unit.start_sample)
        assert (box.get_x() + box.get_width()) * 4000 == pytest.approx(unit.stop_sample)
    from mmattn import observe

    with torch.no_grad(), observe(recognizer.encoder, weights=True) as record:
        logits = recognizer([wave])
    weights = record["blocks.1.attention"].weights[0, 2]
    spans = token_spans(logits.values, recognizer.units.encode([text])[0])
    want = torch.stack([weights[span.start : span.end].mean(0) for span in spans])
    drawn = torch.from_numpy(below.collections[0].get_array().reshape(want.shape).data)
    torch.testing.assert_close(drawn, want, rtol=1e-5, atol=1e-6)
    figure.savefig(tmp_path / "alignment.png")
    assert (tmp_path / "alignment.png").stat().st_size > 5000


def test_the_mean_of_all_heads(make, waves):
    pytest.importorskip("matplotlib")
    recognizer = make()
    heads = [
        draw_alignment(recognizer, waves[0], "ab", head=head).axes[1].collections[0].get_array()
        for head in (0, 1, 2, None)
    ]
    mean = sum(heads[:3]) / 3
    assert abs(mean - heads[3]).max() < 1e-6
    assert abs(heads[0] - heads[3]).max() > 1e-4


@pytest.mark.parametrize(
    ("message", "text", "options"),
    [
        ("at least one unit to draw: got ''", "", {}),
        ("layer must be one of 2 with attention: got 2", "a", {"layer": 2}),
        ("layer must be one of 2 with attention: got -3", "a", {"layer": -3}),
        ("head must be one of 3: got 3", "a", {"head": 3}),
        ("too short", "abc" * 99, {}),
    ],
)
def test_errors(make, waves, message, text, options):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=message):
        draw_alignment(make(), waves[0], text, **options)
