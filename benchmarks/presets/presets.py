"""The presets, their bars and their times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Goal:
    """One promised figure of a preset, over all its runs.

    Attributes:
        metric: name in the results of a run; shares count in percent.
        limit: what is promised.
        at_least: whether the figure must reach the limit, or stay at or under it.
        of: ``"mean"`` over all runs, or ``"worst"``: the worst variant's mean over seeds.
        unit: shown behind the number; what is in percent or BLEU stands in the results as a share.
    """

    metric: str
    limit: float
    at_least: bool = True
    of: Literal["mean", "worst"] = "mean"
    unit: str = "%"

    @property
    def factor(self) -> float:
        """From the number in the results to the number shown."""
        return 100.0 if self.unit in ("%", "BLEU") else 1.0


@dataclass(frozen=True)
class Preset:
    """One line of the table.

    Attributes:
        name: on the command line.
        title: in the table.
        task: module and class of the Lightning task.
        config: YAML file below the repository.
        goals: what is promised.
        minutes: for each run: data, training and test.
        data: key of the folder with the data; ``None`` for embedded data.
        variants: name -> further arguments; each is a run of its own for every seed.
        control: module and function of the control without attention, ``data -> float``; its result is in the
            unit of the first goal's metric.
        before: an earlier stage, whose checkpoint the run takes up: task, config.
        members: models that are trained in a run, with seeds of their own, and whose probabilities are averaged: the
            further arguments of each.
    """

    name: str
    title: str
    task: str
    config: str
    goals: tuple[Goal, ...]
    minutes: float
    data: str | None = None
    variants: tuple[tuple[str, tuple[str, ...]], ...] = (("", ()),)
    control: str | None = None
    before: tuple[str, str] | None = None
    members: tuple[tuple[str, ...], ...] = ((),)

    @property
    def path(self) -> Path:
        """The YAML file."""
        return ROOT / self.config

    @property
    def domain(self) -> str:
        """Folder below ``tasks``."""
        return self.config.split("/")[1]


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
ACCURACY = "test/accuracy"

PRESETS = (
    Preset(
        name="fsdd",
        title="keyword spotting, FSDD, official split",
        task="tasks.speech.module:KeywordSpotting",
        config="tasks/speech/configs/fsdd.yaml",
        goals=(Goal(ACCURACY, 98.5),),
        minutes=5,
        data="fsdd",
        control="tasks.speech.control:linear_control",
    ),
    Preset(
        name="fsdd-speakers",
        title="keyword spotting, FSDD, two models as one, speaker held out",
        task="tasks.speech.module:KeywordSpotting",
        config="tasks/speech/configs/fsdd_speakers.yaml",
        goals=(Goal(ACCURACY, 88.0), Goal(ACCURACY, 75.0, of="worst")),
        members=((),) * 2,
        minutes=5,
        data="fsdd",
        variants=tuple((name, (f"--data.init_args.held_out_speaker={name}",)) for name in SPEAKERS),
        control="tasks.speech.control:linear_control",
    ),
    Preset(
        name="connected-digits",
        title="CTC, connected FSDD digits",
        task="tasks.speech.recognition.module:SpeechRecognition",
        config="tasks/speech/recognition/configs/connected_digits.yaml",
        goals=(Goal("test/wer", 1.3, at_least=False),),
        control="tasks.speech.recognition.control:linear_control",
        minutes=6.5,
        data="fsdd",
    ),
    Preset(
        name="spoken-sentences",
        title="CTC, spoken sentences, unheard voices",
        task="tasks.speech.recognition.module:SpeechRecognition",
        config="tasks/speech/recognition/configs/spoken_sentences.yaml",
        goals=(Goal("test/wer", 8.0, at_least=False),),
        control="tasks.speech.recognition.control:linear_control",
        minutes=5,
    ),
    Preset(
        name="sst2",
        title="text, SST-2, from scratch, five models as one",
        task="tasks.text.module:TextClassification",
        config="tasks/text/configs/sst2.yaml",
        goals=(Goal(ACCURACY, 81.6),),
        members=((),) * 5,
        minutes=5,
        data="sst2",
        control="tasks.text.control:linear_control",
    ),
    Preset(
        name="sst2-pretrained",
        title="text, SST-2, after masked language modelling on its training text, five models as one",
        task="tasks.text.module:TextClassification",
        config="tasks/text/configs/sst2_finetune.yaml",
        goals=(Goal(ACCURACY, 83.0),),
        members=((),) * 5,
        minutes=15,
        data="sst2",
        control="tasks.text.control:linear_control",
        before=(
            "tasks.text.pretraining.module:MaskedLanguageModelling",
            "tasks/text/pretraining/configs/sst2.yaml",
        ),
    ),
    Preset(
        name="multi30k",
        title="translation, Multi30k de-en, beam 5",
        task="tasks.text.translation.module:Translation",
        config="tasks/text/translation/configs/multi30k.yaml",
        goals=(
            Goal("test/bleu", 37.0, unit="BLEU"),
            Goal("decoding/seconds", 30.0, at_least=False, unit="s"),
        ),
        minutes=30,
        data="multi30k",
        control="tasks.text.translation.control:lexicon_control",
    ),
    Preset(
        name="dates",
        title="translation, dates of Babel's locales",
        task="tasks.text.translation.module:Translation",
        config="tasks/text/translation/configs/dates.yaml",
        goals=(Goal("test/exact", 99.0),),
        minutes=3,
        control="tasks.text.translation.control:linear_control",
    ),
    Preset(
        name="cifar10",
        title="vision, CIFAR-10",
        task="tasks.vision.module:ImageClassification",
        config="tasks/vision/configs/cifar10.yaml",
        goals=(Goal(ACCURACY, 76.0),),
        minutes=25,
        data="cifar10",
        control="tasks.vision.control:linear_control",
    ),
)


def preset(name: str) -> Preset:
    """The preset of a name."""
    return next(each for each in PRESETS if each.name == name)
