"""Draw the curves of a stage with matplotlib: a PNG to look at, an SVG for papers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, missing_package
from dfktrain.reports.curves.diagnosis import Point
from dfktrain.reports.curves.stage_curve import StageCurve

FORMATS = (".png", ".svg")
COLOURS = ("#1f55c4", "#b5530a", "#126b41", "#8a2f8f")
"""Colours of series, told apart by people who see few colours and in print."""
# without versions and dates in the file, equal curves give equal bytes
_METADATA: dict[str, dict[str, str | None]] = {".png": {"Software": None}, ".svg": {"Date": None}}
_STYLE = {
    "svg.hashsalt": "dfk", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#dddeda", "axes.edgecolor": "#8b9199", "font.size": 10, "legend.frameon": False,
}  # fmt: skip


def available() -> bool:
    """Return whether matplotlib, which draws, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(stage: StageCurve, path: str | Path) -> Path:
    """Draw the losses of a stage over its steps, learning rate and gradient norm, and its monitored answers.

    Args:
        stage: The stage.
        path: The file; its suffix says what is written, .png or .svg.

    Returns:
        `path`.

    Raises:
        ConfigError: matplotlib is missing, or the suffix is another.

    Example:
        >>> from dfktrain.reports.curves import stage_curves  # doctest: +SKIP
        >>> draw(stage_curves("runs/first")[0], "loss.svg")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: curves are drawn as {' or '.join(FORMATS)}; name the file so")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("loss curves", "matplotlib", "train") from error

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"learning rate": stage.learning_rate, "gradient norm": stage.gradient_norm}
    beside = {name: line for name, line in beside.items() if line}
    panels = stage.watched
    heights = [4.5, *([2.0] if beside else []), *(3.0 for _ in panels)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, sum(heights)), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        places = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        _losses(figure.add_subplot(places[0, :]), stage)
        for at, (name, line) in enumerate(beside.items()):
            axes = figure.add_subplot(places[1, at] if len(beside) > 1 else places[1, :])
            _lines(axes, {name: line})
            axes.set(xlabel="step", ylabel=name)
        for at, (metric, lines) in enumerate(panels, len(heights) - len(panels)):
            axes = figure.add_subplot(places[at, :])
            _lines(axes, lines, "o")
            axes.set(xlabel="step", ylabel=metric)
            axes.legend()
        figure.savefig(path, format=path.suffix[1:], metadata=_METADATA[path.suffix])
    return path


def _losses(axes: Any, stage: StageCurve) -> None:
    """Draw both losses, and the step of the lowest validation loss if it rose again."""
    _lines(axes, {"training": stage.training})
    _lines(axes, {"validation": stage.validation}, "o", 1)
    diagnosis = stage.diagnosis
    if diagnosis.since is not None:
        label = f"lowest validation loss ({diagnosis.since})"
        axes.axvline(diagnosis.since, color="#b3261e", linestyle=":", label=label)
    if stage.log_loss:
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss per scored token", title=f"{stage.name}: {diagnosis.kind}")
    if axes.has_data():
        axes.legend()


def _lines(axes: Any, series: Mapping[str, Sequence[Point]], mark: str = "", first: int = 0) -> None:
    for at, (name, points) in enumerate(series.items(), first):
        if points:
            steps, values = zip(*points, strict=True)
            alone = "." if len(points) == 1 else mark
            colour = COLOURS[at % len(COLOURS)]
            axes.plot(steps, values, color=colour, marker=alone, markersize=4, linewidth=1.4, label=name)
