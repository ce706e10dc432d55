"""LightningCLI for the tasks: configured by YAML, and one clear sentence for what is wrong."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mmattn.training.memory import quick_memory
from mmattn.training.predictions import WritePredictions
from mmattn.training.record import RecordRun
from mmattn.training.sentences import one_sentence
from mmattn.training.task import Task


class OneSentenceParser(LightningArgumentParser):
    """Says what is wrong with the arguments in one sentence, and exits with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the process with the sentence."""
        self.exit(2, f"error: {one_sentence(message)}\n")


class TaskCLI(LightningCLI):
    """The command line of one domain: ``fit``, ``validate``, ``test`` and ``predict``.

    Args:
        model_class: the domain's task.
        args: arguments; ``None`` takes those of the process.
        run: whether to run the subcommand, or only to build everything that it needs.
    """

    def __init__(self, model_class: type[Task], args: Sequence[str] | None = None, run: bool = True) -> None:
        self._task = model_class
        super().__init__(
            model_class,
            model_class.data_class,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"deterministic": True, "callbacks": [RecordRun(), WritePredictions()]},
            auto_configure_optimizers=False,
            args=None if args is None else list(args),
            run=run,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Parsers, of the subcommands too, that explain errors in one sentence."""
        # an abbreviated or misspelt option must not pass for another one
        parser = OneSentenceParser(**{"allow_abbrev": False, **kwargs})
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="a YAML file with settings")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What the task takes from the data, such as the number and names of the classes."""
        for argument, attribute in self._task.from_data.items():
            parser.link_arguments(f"data.{attribute}", f"model.{argument}", apply_on="instantiate")

    def instantiate_classes(self) -> None:
        """Build data, model and trainer, and check that the first two fit each other."""
        super().instantiate_classes()
        self.model.check_data(self.datamodule)
        self.model.recipe = self._recipe()

    def _recipe(self) -> dict[str, Any]:
        """Class and arguments of the task as plain data, with what came from the data, and how these are prepared."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        parser = self._parser(self.subcommand)
        arguments = dict(yaml.safe_load(parser.dump(config, skip_none=False, skip_validation=True))["model"])
        for argument, attribute in self._task.from_data.items():
            value = getattr(self.datamodule, attribute)
            arguments[argument] = list(value) if isinstance(value, tuple) else value
        name = f"{self._task.__module__}.{self._task.__qualname__}"
        return {"class_path": name, "init_args": arguments, "inputs": self.datamodule.inputs}


class ConsoleCLI(TaskCLI):
    """:class:`TaskCLI` for a person at a terminal: errors of settings and data end it with one sentence."""

    def before_instantiate_classes(self) -> None:
        """Say at once that a checkpoint is missing, not after the data are loaded."""
        path = self._get(self.config, "ckpt_path")
        if path and path not in ("best", "last", "hpc", "registry") and not Path(path).exists():
            sys.exit(f"error: ckpt_path must be a file: got {path}, which does not exist")

    def instantiate_classes(self) -> None:
        """Build data, model and trainer, read the data and prepare the model for them: what is wrong with any of
        them is said in a sentence, before work is lost."""
        try:
            super().instantiate_classes()
            self.datamodule.setup()
            self.model.prepare(self.datamodule, self.subcommand)
        except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
            raise SystemExit(f"error: {one_sentence(str(error))}") from error


def main(model_class: type[Task], program: str) -> None:
    """Run a task's command line with the arguments of the process."""
    args = sys.argv[1:]
    if args and args[0].split("=")[0] in ("--config", "-c"):
        known = ("fit", "validate", "test", "predict")
        subcommand = next((word for word in args if word in known), "fit")
        rest = " ".join(word for word in args if word not in known)
        sys.exit(f"error: the subcommand comes before --config: python -m {program} {subcommand} {rest}")
    quick_memory()
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}.utilities.rank_zero").addFilter(_no_advertisement)
    ConsoleCLI(model_class)


def _no_advertisement(record: logging.LogRecord) -> bool:
    """Leave out Lightning's tips about other products."""
    return "litlogger" not in record.getMessage()
