"""How a run ends: the tuned model, and beside it the untouched base, on rows that training never saw.

    DIR/evaluation/base/, DIR/evaluation/tuned/    run directories of dfkeval
    DIR/evaluation/comparison.md, report.html      the table, and the page with both

Promises: called after the weights are saved, so nothing here can lose them; everything that can be known to
be wrong (names, files, metrics that find no field) is said by `check`, before the first step; a run that
stopped while asking goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkdata.common.errors import ConfigError
from dfktrain.config.run import Evaluate, TrainConfig

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison
    from dfkeval.runs.config import EvalConfig
    from dfkeval.runs.run import Run

FOLDER = "evaluation"

#: Called after each answer with ("base" or "tuned", answered, rows).
OnAnswer = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainingScores:
    """tuned: the run of the trained model. base, comparison: None where `before` is off. report: the page."""

    tuned: Run
    base: Run | None
    comparison: Comparison | None
    report: Path

    def table(self) -> str:
        """Base against tuned in Markdown, or the tuned model's own numbers."""
        from dfkeval import reports as report

        if self.comparison is None:
            return "\n".join(report.metric_rows(self.tuned))
        from dfkeval.analysis.comparison import HEADLINES

        names = [name for name in HEADLINES if name in self.comparison.differences]
        shown = report.comparison_table(self.comparison, names or list(self.comparison.differences))
        return f"{self.comparison.n} rows, base against tuned\n\n{shown}"


def check(config: TrainConfig) -> None:
    """Raise `ConfigError` or `DataError` for an evaluation that could not be run after training."""
    from dfkeval.evaluation.rows import read_rows
    from dfkeval.runs import config as configs

    if config.evaluate is None:
        return
    settings = evaluation(config, config.evaluate, None)
    rows = read_rows(settings)
    configs.resolve(settings, rows[0])
    if "bertscore" in settings.metrics:
        from dfkeval.metrics import bertscore

        bertscore.check_model(settings.options_of("bertscore", bertscore.Options))


def evaluation(config: TrainConfig, wanted: Evaluate, trained: Path | None) -> EvalConfig:
    """The evaluation of the trained weights, or of the base (None)."""
    from dfkeval.runs import config as configs
    from dfkeval.runs import presets

    file = Path(wanted.config)
    if not file.suffix:
        presets.text(wanted.config)  # which names the presets there are
        file = presets.FOLDER / f"{wanted.config}.yaml"
    made = None if trained is None else str(trained.resolve())  # a relative path would start at `file`
    whole = config.adapter.kind == "full" and made is not None
    changes = [
        _set("backend.model", made if whole else config.model.name),
        _set("backend.adapter", None if whole else made),
    ]
    if wanted.data is not None:
        changes.append(_set("data", wanted.data))
    pixels = config.stages[-1].max_pixels
    if pixels is not None:
        changes.append(_set("backend.max_pixels", pixels))  # the base must see what the tuned model sees
    return configs.read(file, [*changes, *wanted.set])


def _set(place: str, value: object) -> str:
    return f"{place}={json.dumps(value, ensure_ascii=False)}"  # JSON is YAML


def score(config: TrainConfig, out: Path, trained: Path, on_answer: OnAnswer | None = None) -> TrainingScores:
    """Ask and score what `evaluate` says. trained: the saved adapter (kind full: the saved model)."""
    if config.evaluate is None:
        raise ConfigError("this configuration has no evaluate: section")
    _forget()
    wanted, folder = config.evaluate, out / FOLDER
    base = _asked(config, wanted, None, folder / "base", on_answer) if wanted.before else None
    tuned = _asked(config, wanted, trained, folder / "tuned", on_answer)
    return _written(base, tuned, folder)


def _forget() -> None:
    """Give back the memory of the model that was trained; what is asked is loaded from disk."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _asked(
    config: TrainConfig, wanted: Evaluate, trained: Path | None, out: Path, on_answer: OnAnswer | None
) -> Run:
    from dfkeval.evaluation import evaluate

    def tell(done: int, total: int) -> None:
        if on_answer is not None:
            on_answer(out.name, done, total)

    return evaluate.evaluate(evaluation(config, wanted, trained), out, progress=tell)


def _written(base: Run | None, tuned: Run, folder: Path) -> TrainingScores:
    from dfkeval import reports as report
    from dfkeval.analysis import comparison

    compared = comparison.compare(base, tuned) if base is not None else None
    runs, pairs = [run for run in (base, tuned) if run is not None], [compared] if compared else []
    page = folder / "report.html"
    page.write_text(report.page("base against tuned" if pairs else "tuned", runs, pairs), encoding="utf-8")
    found = TrainingScores(tuned, base, compared, page)
    (folder / "comparison.md").write_text(found.table() + "\n", encoding="utf-8")
    return found
