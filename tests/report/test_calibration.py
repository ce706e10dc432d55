"""Simulated grids: where there is nothing, next to nothing is found; what is said to be found, is."""

from __future__ import annotations

import numpy as np
import pytest

from mmattn.report.claims import judge
from mmattn.report.claims.simulate import Calibration, Design, calibrate, simulate

GRIDS = 200


@pytest.fixture(scope="module", params=[3, 5], ids=["3 seeds", "5 seeds"])
def calibration(request) -> Calibration:
    return calibrate(Design(seeds=request.param), GRIDS)


@pytest.mark.slow
def test_grids_without_effects_support_nothing(calibration):
    assert calibration.grids == GRIDS
    assert calibration.false <= 0.05 * GRIDS


@pytest.mark.slow
def test_effects_of_the_size_that_a_grid_names_are_found(calibration):
    assert calibration.found >= 0.8
    assert calibration.least[1] >= 0.8, calibration.least


@pytest.mark.slow
def test_intervals_hold_the_truth(calibration):
    assert calibration.covered >= 0.93
    assert calibration.planted >= 0.93


def test_a_grid_is_what_was_planted():
    design = Design(seeds=6, examples=4000, spread=0.1, rounds=60)
    effects = {
        "focus/vision/attention-uniform": 20.0,
        "focus/speech/focus": 1.5,
        "heads/text/4-1": 8.0,
        "complement/vision/pairs": 3.0,
        "parallel/speed/gru-attention-train-64": 1.0,
        "core/vision/joint-separate": 1.0,
    }
    judged = judge(simulate(design, np.random.default_rng(0), effects))
    for part in judged.comparisons:
        if part.estimate is not None:
            near = 6 * part.estimate.error
            assert part.estimate.mean == pytest.approx(effects.get(part.id, part.null), abs=near), part.id
    assert effects.keys() <= {part.id for part in judged.comparisons if part.verdict == "supported"}
    assert judged.family == sum(part.primary for part in judged.comparisons)


def test_impossible_effects_are_refused():
    with pytest.raises(ValueError, match=r"a fraction in \(0, 1\): got -0.05"):
        simulate(Design(seeds=2), np.random.default_rng(0), {"heads/vision/4-1": 90.0})


def test_equal_seeds_give_equal_calibrations():
    design = Design(seeds=3, examples=60, rounds=4, lengths=(64,))
    assert calibrate(design, 3, seed=5) == calibrate(design, 3, seed=5)
