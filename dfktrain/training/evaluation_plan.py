"""Prepare the evaluation that a run ends with: its configuration, and what is wrong with it before training.

Guarantees:
    - `check` finds what can be known to be wrong (names, files, metrics without their fields) before training.
    - Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path

from dfkeval.evaluation.rows import read_rows
from dfkeval.runs import config as configs
from dfkeval.runs import presets
from dfkeval.runs.config import EvalConfig
from dfktrain.config.overrides import assignment
from dfktrain.config.run import Evaluate, TrainConfig


def check(config: TrainConfig) -> None:
    """Check an evaluation before training.

    Raises:
        ConfigError: The evaluation's configuration is wrong.
        DataError: Its rows cannot be read.
    """
    if config.evaluate is None:
        return
    settings = evaluation_config(config, config.evaluate, None)
    rows = read_rows(settings)
    configs.resolve(settings, rows[0])
    if "bertscore" in settings.metrics:
        from dfkeval.metrics import bertscore

        bertscore.check_model(settings.options_of("bertscore", bertscore.Options))


def evaluation_config(config: TrainConfig, section: Evaluate, trained: Path | None) -> EvalConfig:
    """Return the configuration of an evaluation.

    Args:
        config: The training configuration.
        section: Its `evaluate` section.
        trained: Folder of the trained adapter or, for kind full, of the trained model; None for the base.

    Raises:
        ConfigError: The evaluation's configuration is wrong.
    """
    file = Path(section.config)
    if not file.suffix:
        presets.text(section.config)  # raises with the names of all presets
        file = presets.FOLDER / f"{section.config}.yaml"
    folder = None if trained is None else str(trained.resolve())  # a relative path would start at `file`
    whole_model = config.adapter.kind == "full" and folder is not None
    changes = [
        assignment("backend.model", folder if whole_model else config.model.name),
        assignment("backend.adapter", None if whole_model else folder),
    ]
    if section.data is not None:
        changes.append(assignment("data", section.data))
    pixels = config.stages[-1].max_pixels
    if pixels is not None:  # the base must see what the tuned model sees
        changes.append(assignment("backend.max_pixels", pixels))
    return configs.read(file, [*changes, *section.set])
