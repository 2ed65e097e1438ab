"""Draw the loss curves of a stage, and below them its monitored answers, as a PNG."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import missing_package
from dfktrain.reports.curves.diagnosis import Point
from dfktrain.reports.curves.stage_curve import StageCurve


def available() -> bool:
    """Return whether matplotlib, which draws, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def png(stage: StageCurve, path: str | Path) -> Path:
    """Draw the training and validation loss of a stage over its steps.

    Args:
        stage: The stage.
        path: The PNG file.

    Returns:
        `path`.

    Raises:
        ConfigError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("loss curves", "matplotlib", "train") from error

    panels = stage.watched
    figure = Figure(figsize=(8, 4.5 + 3 * len(panels)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [4.5, *(3.0 for _ in panels)]
    losses, *below = figure.subplots(1 + len(panels), squeeze=False, height_ratios=ratios)[:, 0]
    _losses(losses, stage)
    for axes, (metric, lines) in zip(below, panels, strict=True):
        _lines(axes, lines)
        axes.set(xlabel="step", ylabel=metric)
    for axes in (losses, *below):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # without the library's version in the file, equal curves give equal bytes
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _losses(axes: Any, stage: StageCurve) -> None:
    """Draw both losses, and the step of the lowest validation loss if it rose again."""
    _lines(axes, {"training": stage.training}, ".")
    _lines(axes, {"validation": stage.validation})
    diagnosis = stage.diagnosis
    if diagnosis.since is not None:
        axes.axvline(
            diagnosis.since,
            color="tab:red",
            linestyle=":",
            label=f"lowest validation loss ({diagnosis.since})",
        )
    axes.set(xlabel="step", ylabel="loss a scored token", title=f"{stage.name}: {diagnosis.kind}")


def _lines(axes: Any, series: Mapping[str, Sequence[Point]], mark: str = "o") -> None:
    for name, points in series.items():
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker=mark, markersize=4, linewidth=1.4, label=name)
