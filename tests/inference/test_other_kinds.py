"""Recognition, translation, filling and one sense of a joint model: from the tasks' own checkpoints to rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from mmattn.explore import explore
from mmattn.inference import Pictures, Texts, export, load, open_model
from mmattn.inference.kinds.language import regions_around
from tests.inference.made import MEAN, STD, D, Made, Make

ENCODER = {
    "class_path": "mmattn.build_encoder",
    "init_args": {"embed_dim": D, "depth": 2, "num_heads": 2},
}


@pytest.fixture(scope="module")
def recognition(make: Make, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    pytest.importorskip("torchaudio")
    import tasks.speech.recognition.data  # noqa: F401  # so that --data knows the short names
    from tasks.speech.recognition.module import SpeechRecognition

    folder = tmp_path_factory.mktemp("lists")
    for split in ("train", "val", "test"):
        lines = [
            {"audio_filepath": str(path), "text": "ab ba" if path.parent.name == "tone" else "b"}
            for path in sorted((sounds / split).rglob("*.wav"))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    adapter = {
        "class_path": "mmattn.AudioFrames",
        "init_args": {"embed_dim": D, "sample_rate": 4000, "n_mels": 13, "subsampling": 2},
    }
    encoder = {
        "class_path": "mmattn.conformer.build_conformer",
        "init_args": {"embed_dim": D, "depth": 2, "num_heads": 2, "kernel_size": 5},
    }
    return make(
        SpeechRecognition, sounds,
        f"--model.adapter={json.dumps(adapter)}", f"--model.encoder={json.dumps(encoder)}",
        "--model.units=mmattn.recognition.CharacterUnits", "--model.beam_size=3",
        "--data=Manifest", "--data.init_args.sample_rate=4000",
        *(f"--data.init_args.{split}={folder / split}.jsonl" for split in ("train", "val", "test")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def translation(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Made:
    import tasks.text.translation.data  # noqa: F401
    from tasks.text.translation.module import Translation

    folder = tmp_path_factory.mktemp("pairs")
    pairs = [f"{i} kleine Hunde\t{i} small dogs" for i in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]), encoding="utf-8")
    source = {
        "class_path": "mmattn.TextTokens",
        "init_args": {"embed_dim": D, "tokenizer": {"class_path": "mmattn.adapters.text.BPETokenizer",
                                                    "init_args": {"vocab_size": 290}}},
    }  # fmt: skip
    decoder = {
        "class_path": "mmattn.build_decoder",
        "init_args": {"embed_dim": D, "depth": 2, "num_heads": 2, "context": True},
    }
    return make(
        Translation, folder,
        f"--model.source={json.dumps(source)}", f"--model.encoder={json.dumps(ENCODER)}",
        f"--model.decoder={json.dumps(decoder)}", "--model.beam_size=2", "--model.max_length=7",
        "--data=ParallelText", f"--data.init_args.train_file={folder / 'pairs.tsv'}",
    )  # fmt: skip


@pytest.fixture(scope="module", params=["tokens", "ngrams"])
def language(request: pytest.FixtureRequest, make: Make, tmp_path_factory: pytest.TempPathFactory) -> Made:
    import tasks.text.pretraining.data  # noqa: F401
    from tasks.text.pretraining.module import MaskedLanguageModelling

    folder = tmp_path_factory.mktemp("lines")
    lines = [f"number {i} is a good number" for i in range(40)]
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    adapters = {
        "tokens": {
            "class_path": "mmattn.TextTokens",
            "init_args": {"embed_dim": D, "tokenizer": {"class_path": "mmattn.adapters.text.BPETokenizer",
                                                        "init_args": {"vocab_size": 290}}},
        },
        "ngrams": {"class_path": "mmattn.TextNgrams", "init_args": {"embed_dim": D, "buckets": 97}},
    }  # fmt: skip
    return make(
        MaskedLanguageModelling, folder,
        f"--model.adapter={json.dumps(adapters[request.param])}", f"--model.encoder={json.dumps(ENCODER)}",
        "--data=TextLines", f"--data.init_args.train_file={folder / 'lines.txt'}",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_recognition(recognition: Made, tmp_path: Path) -> None:
    export(recognition.checkpoint, tmp_path)
    predictor = load(tmp_path)
    paths = sorted((recognition.root / "test").rglob("*.wav"))
    items = [predictor.read(path) for path in paths]
    own = recognition.task.recognizer.eval()
    with torch.no_grad():
        expected, found = own(items), predictor.model(items)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-5)
        program = torch.export.load(tmp_path / "model.pt2").module()
        for item in items:
            torch.testing.assert_close(program(item[None])[0], own([item]).values, rtol=1e-5, atol=1e-5)
    rows = predictor.predict(items)
    assert [row["text"] for row in rows] == own.transcribe(items, beam_size=3)
    assert json.loads((tmp_path / "config.json").read_text())["outputs"] == {"beam_size": 3}


def test_recognition_is_drawn_as_what_was_heard(recognition: Made) -> None:
    pytest.importorskip("matplotlib")
    predictor = open_model(recognition.checkpoint)
    item = predictor.read(next((recognition.root / "test").rglob("*.wav")))
    heard = predictor.draw(item, {"text": "ab"})
    assert len(heard.axes) >= 2
    silent = predictor.draw(item, {"text": ""})
    assert "attention of the last layer" in silent.axes[0].get_title(loc="right")
    look = predictor.look(item)
    assert len(look.weights) == len(look.regions) == predictor.model.adapter.num_tokens(len(item))
    assert float(look.weights.sum()) == pytest.approx(1.0, abs=1e-5)


def test_translation(translation: Made, tmp_path: Path) -> None:
    bundle = export(translation.checkpoint, tmp_path)
    assert bundle.program == {
        "absent": "a program runs the same steps for all items: got translation, which searches"
    }
    assert not (tmp_path / "model.pt2").exists()
    predictor = load(tmp_path)
    assert predictor.inputs == Texts()
    texts = ["7 kleine Hunde", "Hunde", "drei 3"]
    own = translation.task.translator
    expected = own.translate(texts, beam_size=2, length_penalty=1.0, max_length=7)
    assert predictor.predict(texts) == [{"text": text} for text in expected]
    with torch.no_grad():
        found, own_logits = (
            model.eval()(texts, ["7 small dogs", "dogs", "3"]) for model in (predictor.model, own)
        )
    torch.testing.assert_close(found.values, own_logits.values, rtol=1e-5, atol=1e-5)


def test_translation_is_drawn_as_words_against_words(translation: Made) -> None:
    pytest.importorskip("matplotlib")
    predictor = open_model(translation.checkpoint)
    figure = predictor.draw("7 kleine Hunde", {"text": "7 small dogs"})
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[:3] == ["7", "kleine", "Hunde"]
    assert predictor.draw("7 kleine Hunde", {"text": " "}).axes


def test_filling(language: Made, tmp_path: Path) -> None:
    bundle = export(language.checkpoint, tmp_path)
    predictor = load(tmp_path)
    texts = ["number 3 is a [MASK] number", "[MASK] 7 is [MASK]", "nothing hidden"]
    rows = predictor.predict(texts, top=3)
    own = language.task.model.eval()
    for text, row in zip(texts[:2], rows, strict=False):
        guesses = own.fill(text, 3)
        assert [[fill["text"] for fill in of] for of in row["fills"]] == [
            [g.text for g in of] for of in guesses
        ]
        assert [[fill["probability"] for fill in of] for of in row["fills"]] == [
            pytest.approx([guess.probability for guess in of], abs=1e-6) for of in guesses
        ]
        assert "[MASK]" not in row["text"]
    assert rows[0]["text"] == f"number 3 is a {rows[0]['fills'][0][0]['text'].strip()} number"
    assert rows[2] == {"text": "nothing hidden", "fills": []}
    by_ngrams = type(own.adapter).__name__ == "TextNgrams"
    assert ("absent" in bundle.program) == by_ngrams
    if by_ngrams:
        assert bundle.program["absent"].startswith("a program that fills takes ids: got TextNgrams")
        return
    program = torch.export.load(tmp_path / "model.pt2").module()
    encoded, ids = own._joined(own._encode(["number 3 is a", " number"]))
    assert int((ids == own.vocabulary.size).sum()) == 1
    with torch.no_grad():
        expected = own._logits(own._encoded(encoded, ids).values)
        torch.testing.assert_close(program(ids[None])[0], expected, rtol=1e-5, atol=1e-5)


def test_filling_looks_from_the_hidden_place(language: Made) -> None:
    predictor = open_model(language.checkpoint)
    text = "number 3 is a [MASK] number"
    regions, hidden = regions_around(predictor.model.adapter, text, "[MASK]")
    assert int(hidden.sum()) == 1
    start, stop = regions[hidden][0].tolist()
    assert text[start:stop] == "[MASK]"
    assert "".join(text[a:b] for a, b in regions.tolist()).replace(" ", "") == text.replace(" ", "")
    look = predictor.look(text)
    assert len(look.weights) == len(regions)
    assert float(look.weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert len(predictor.look("nothing hidden").weights) == len(
        regions_around(predictor.model.adapter, "nothing hidden", "[MASK]")[0]
    )


def test_kinds_that_give_texts_can_be_explored(recognition: Made, translation: Made, language: Made) -> None:
    for made, items in (
        (recognition, recognition.items[:1]),
        (translation, ["3 May"]),
        (language, ["the [MASK] film", "the film"]),
    ):
        predictor = open_model(made.checkpoint)
        for found, item in zip(explore(predictor, items), items, strict=True):
            look = predictor.look(item)
            assert found.weights(len(found.layers) - 1).shape[1:] == (len(found.tokens), len(found.tokens))
            assert len(found.tokens) <= len(look.regions)
            assert found.predicted_label == predictor.predict([item])[0]["text"]
            assert found.notes[-1].startswith(
                "Rollout and relevance are of models that score classes; this one is"
            )
            assert not found.maps


def test_one_sense_of_a_joint_checkpoint(
    make: Make, pictures: Path, sounds: Path, texts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchaudio")
    from tasks.joint.module import JointClassification

    senses: dict[str, Any] = {
        "vision": {"class_path": "mmattn.ImagePatches", "init_args": {"embed_dim": D, "patch_size": 4}},
        "text": {"class_path": "mmattn.TextNgrams", "init_args": {"embed_dim": D, "buckets": 97}},
    }
    parts = {
        "vision": {
            "class_path": "tasks.vision.data.ImageFolder",
            "init_args": {"root": str(pictures), "image_size": 16, "batch_size": 5},
        },
        "text": {
            "class_path": "tasks.text.data.TextTable",
            "init_args": {f"{s}_file": str(texts / f"{s}.tsv") for s in ("train", "val", "test")},
        },
    }
    made = make(
        JointClassification, pictures, f"--model.encoder={json.dumps(ENCODER)}",
        *(f"--model.{sense}.adapter={json.dumps(adapter)}" for sense, adapter in senses.items()),
        "--data=tasks.joint.data.JointData", *(f"--data.init_args.{n}={json.dumps(p)}" for n, p in parts.items()),
        batch_size=None,
    )  # fmt: skip
    items = {"vision": [torch.randn(3, 16, 16)], "text": ["a warm film"]}
    for sense in senses:
        export(made.checkpoint, tmp_path / sense, program=False, sense=sense)
        predictor = load(tmp_path / sense)
        with torch.no_grad():
            expected = made.task.eval().logits(sense, items[sense])
            torch.testing.assert_close(predictor.model(items[sense]), expected, rtol=1e-5, atol=1e-5)
        assert predictor.outputs["class_names"] == list(made.task.class_names[sense])
        expected_inputs = Texts() if sense == "text" else Pictures(tuple(MEAN), tuple(STD), (16, 16))
        assert predictor.inputs == expected_inputs
    with pytest.raises(ValueError, match="needs one to be chosen, vision, text: got none"):
        export(made.checkpoint, tmp_path / "none")
