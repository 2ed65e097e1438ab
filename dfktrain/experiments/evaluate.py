"""Evaluate the tuned model, and the untouched base beside it, on rows that training never saw.

    DIR/evaluation/base/, DIR/evaluation/tuned/    run directories of dfkeval
    DIR/evaluation/comparison.md, report.html      the table, and the page with both

Guarantees:
    - This runs after the weights are saved, so that nothing here can lose them.
    - An evaluation that was stopped continues where it stopped."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfkdata.common import json_files
from dfkdata.common.errors import ConfigError
from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.analysis.comparison import Comparison
from dfkeval.evaluation import evaluate
from dfkeval.runs.run import Run
from dfktrain.config.run import Evaluate, TrainConfig
from dfktrain.training.evaluation_plan import evaluation_config
from dfktrain.training.splits import EVALUATION

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
        noted = "".join(f"\n- {notice}" for notice in self.notices())
        if self.comparison is None:
            return "\n".join(reports.metric_rows(self.tuned)) + noted
        rows = reports.comparison_table(self.comparison)
        return f"{self.comparison.n} rows, base against tuned\n\n{rows}{noted}"

    def write(self) -> None:
        """Write base against tuned to stdout; without a base the headline values of the tuned model."""
        if self.comparison is None:
            reports.write_metrics(self.tuned, option=False)
        else:
            reports.write_comparison(self.comparison, option=False)

    def notices(self) -> list[str]:
        """Return what limits the numbers, of the tuned model and of the base."""
        return [
            f"{run.name}: {notice}"
            for run in (self.tuned, self.base)
            if run is not None
            for notice in reports.notices(run.summary)
        ]

    @property
    def is_unscored(self) -> bool:
        """Whether a metric scored none of the answers."""
        runs = [run for run in (self.tuned, self.base) if run is not None]
        return any(run.summary["unscored"] for run in runs)


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

    record = json_files.read_json_or_none(out.parents[1] / "run.json") or {}
    shared = record.get("overlap", {}).get(EVALUATION)
    return evaluate.evaluate(
        evaluation_config(config, section, trained), out, progress=report, overlap=shared
    )


def _write(base: Run | None, tuned: Run, folder: Path) -> TrainingScores:
    compared = comparison.compare(base, tuned) if base is not None else None
    runs, pairs = [run for run in (base, tuned) if run is not None], [compared] if compared else []
    page = folder / "report.html"
    title = "Base against tuned" if pairs else "Tuned"
    json_files.write_parts(page, reports.page_parts(title, runs, pairs))
    scores = TrainingScores(tuned, base, compared, page)
    (folder / "comparison.md").write_text(scores.table() + "\n", encoding="utf-8")
    return scores
