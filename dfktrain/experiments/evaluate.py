"""Evaluate the tuned model, and the untouched base beside it, on rows that training never saw.

    DIR/evaluation/base/, DIR/evaluation/tuned/    run directories of dfkeval
    DIR/evaluation/comparison.md, report.html      the table, and the page with both

Guarantees:
    - This runs after the weights are saved, so that nothing here can lose them.
    - `check` finds what can be known to be wrong (names, files, metrics without their fields) before training.
    - An evaluation that was stopped continues where it stopped."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.analysis.comparison import HEADLINES, Comparison
from dfkeval.evaluation import evaluate
from dfkeval.evaluation.rows import read_rows
from dfkeval.runs import config as configs
from dfkeval.runs import presets
from dfkeval.runs.config import EvalConfig
from dfkeval.runs.run import Run
from dfktrain.config.overrides import assignment
from dfktrain.config.run import Evaluate, TrainConfig

FOLDER = "evaluation"
"""Folder of the evaluation in a run's folder."""

OnAnswer = Callable[[str, int, int], None]
"""Called after each answer with ("base" or "tuned", number of answers, number of rows)."""


@dataclass(frozen=True)
class TrainingScores:
    """The evaluation of a training run.

    Attributes:
        tuned: Evaluation of the trained model.
        base: Evaluation of the base; None if `before` is off.
        comparison: Base against tuned model; None if `before` is off.
        report: The HTML page.
    """

    tuned: Run
    base: Run | None
    comparison: Comparison | None
    report: Path

    def table(self) -> str:
        """Return base against tuned in Markdown; without a base the numbers of the tuned model."""
        if self.comparison is None:
            return "\n".join(reports.metric_rows(self.tuned))
        headlines = [name for name in HEADLINES if name in self.comparison.differences]
        rows = reports.comparison_table(self.comparison, headlines or list(self.comparison.differences))
        return f"{self.comparison.n} rows, base against tuned\n\n{rows}"


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


def score(config: TrainConfig, out: Path, trained: Path, on_answer: OnAnswer | None = None) -> TrainingScores:
    """Evaluate base and tuned model as the section `evaluate` says, and compare them.

    Args:
        config: The training configuration.
        out: Folder of the training run.
        trained: The saved adapter or, for kind full, the saved model.
        on_answer: Called after each answer.

    Raises:
        ConfigError: The configuration has no section `evaluate`, or the evaluation is wrong.
        DataError: The rows cannot be read.
        BackendError: A model cannot be loaded.
    """
    if config.evaluate is None:
        raise ConfigError("this configuration has no evaluate: section")
    _free_memory()
    section, folder = config.evaluate, out / FOLDER
    base = _evaluate(config, section, None, folder / "base", on_answer) if section.before else None
    tuned = _evaluate(config, section, trained, folder / "tuned", on_answer)
    return _write(base, tuned, folder)


def _free_memory() -> None:
    """Free the memory of the model that was trained; the evaluation loads its models from disk."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _evaluate(
    config: TrainConfig, section: Evaluate, trained: Path | None, out: Path, on_answer: OnAnswer | None
) -> Run:
    def report(done: int, total: int) -> None:
        if on_answer is not None:
            on_answer(out.name, done, total)

    return evaluate.evaluate(evaluation_config(config, section, trained), out, progress=report)


def _write(base: Run | None, tuned: Run, folder: Path) -> TrainingScores:
    compared = comparison.compare(base, tuned) if base is not None else None
    runs, pairs = [run for run in (base, tuned) if run is not None], [compared] if compared else []
    page = folder / "report.html"
    page.write_text(reports.page("base against tuned" if pairs else "tuned", runs, pairs), encoding="utf-8")
    scores = TrainingScores(tuned, base, compared, page)
    (folder / "comparison.md").write_text(scores.table() + "\n", encoding="utf-8")
    return scores
