"""Loss curves as a PNG, for papers, cards and messages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dfkdata.errors import missing_package
from dfktrain.story.chapter import Chapter


def available() -> bool:
    """Whether matplotlib, which draws, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def png(chapter: Chapter, path: str | Path) -> Path:
    """Draw the chapter's training and validation loss over steps. Raises `ConfigError` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("loss curves", "matplotlib", "train") from error

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points, mark in (("training", chapter.training, "."), ("validation", chapter.validation, "o")):
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, marker=mark, markersize=4, linewidth=1.4, label=name)
    verdict = chapter.verdict
    if verdict.since is not None:
        axes.axvline(
            verdict.since, color="tab:red", linestyle=":", label=f"lowest validation loss ({verdict.since})"
        )
    axes.set(xlabel="step", ylabel="loss a scored token", title=f"{chapter.name}: {verdict.kind}")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # without the library's version in the file, equal curves give equal bytes
    figure.savefig(path, format="png", metadata={"Software": None})
    return path
