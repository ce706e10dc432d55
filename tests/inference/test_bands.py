"""A model for voices never heard is used like any other: its adapter trims and normalises what a user hands in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("torchaudio")

from mmattn.inference import Sounds, export, load, open_model
from tests.inference.made import D, Made, Make


@pytest.fixture(scope="module")
def made(make: Make, sounds: Path) -> Made:
    import tasks.speech.data  # noqa: F401
    from tasks.speech.module import KeywordSpotting

    return make(
        KeywordSpotting, sounds, "--model.encoder=mmattn.build_encoder",
        f"--model.encoder.init_args.embed_dim={D}", "--model.encoder.init_args.depth=1",
        "--model.encoder.init_args.num_heads=2", "--model.pool_heads=2",
        "--model.adapter=mmattn.adapters.BandNormFrames", f"--model.adapter.init_args.embed_dim={D}",
        "--model.adapter.init_args.sample_rate=4000", "--model.adapter.init_args.n_mels=13",
        "--model.adapter.init_args.bands=0.5", "--model.adapter.init_args.floor=0.01",
        "--model.adapter.init_args.trim_db=30",
        "--data=AudioFolder", f"--data.init_args.root={sounds}", "--data.init_args.sample_rate=4000",
    )  # fmt: skip


def test_it_predicts_from_a_checkpoint_and_from_an_exported_folder(made: Made, tmp_path: Path) -> None:
    expected = made.logits()
    direct = open_model(made.checkpoint)
    assert direct.inputs == Sounds(4000)
    with torch.no_grad():
        torch.testing.assert_close(direct.model(made.items), expected, rtol=1e-5, atol=1e-5)
    export(made.checkpoint, tmp_path / "model")
    assert not (tmp_path / "model" / "model.pt2").exists()  # each wave is cut to a length of its own
    assert load(tmp_path / "model").predict(made.items) == direct.predict(made.items)


def test_silence_around_a_sound_changes_nothing_and_is_not_looked_at(made: Made) -> None:
    predictor = open_model(made.checkpoint)
    sound = torch.cat([torch.randn(1199), torch.zeros(1)])  # pre-emphasis hears the end one sample longer
    wave = torch.cat([torch.zeros(400), sound, torch.zeros(400)])
    wide = torch.cat([torch.zeros(1200), wave, torch.zeros(3000)])
    [first], [second] = predictor.predict([wave]), predictor.predict([wide])
    assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-6)
    regions = predictor.look(wide).regions
    # 30 ms are left, and half of the 20 ms that hold the first sample
    assert int(regions.min()) == 1200 + 400 - 160
    assert int(regions.max()) == 1200 + 1600 + 160


def test_the_whole_sound_is_drawn(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    predictor = open_model(made.checkpoint)
    wave = torch.cat([torch.zeros(1200), torch.randn(2000), torch.zeros(3000)])
    figure = predictor.draw(wave, predictor.predict([wave])[0])
    assert figure.axes[0].images[0].get_array().shape == (13, 1 + 6200 // 40)
