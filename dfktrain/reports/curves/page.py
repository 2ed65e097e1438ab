"""Write the page of a run: losses, monitored answers, diagnosis, time and memory of each stage.

While the run trains, the page asks the browser to reload it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from markupsafe import Markup

from dfkdata.common import json_files
from dfkdata.pages import LineChart, Look, line_chart
from dfktrain.reports.curves.stage_curve import StageCurve
from dfktrain.reports.curves.usage import Usage

PAGE = "training.html"
"""Name of the page in a run's folder."""

REFRESH_S = 10

BADGES = {"learning": "good", "overfitting": "bad", "flat": "bad", "too short": "warn"}


def write(path: str | Path, title: str, stages: Sequence[StageCurve], *, finished: bool) -> Path:
    """Write the page at once, so that a browser never reads half of it.

    Args:
        path: The HTML file.
        title: Title of the page.
        stages: The stages so far.
        finished: Whether the run is finished; else the browser reloads the page.

    Returns:
        `path`.
    """
    path = Path(path)
    json_files.write_bytes(path, html(title, stages, finished=finished).encode())
    return path


def html(title: str, stages: Sequence[StageCurve], *, finished: bool) -> str:
    """Return the page; arguments as of `write`."""
    now = "finished" if finished else f"training; this page is read again every {REFRESH_S} seconds"
    head = f'<header><h1>{escape(title)}</h1><p class="quiet">{now}</p></header>'
    body = "\n".join([head, *(_section(stage) for stage in stages)])
    return Look().document(title, Markup(body), refresh_s=None if finished else REFRESH_S)


def _section(stage: StageCurve) -> str:
    diagnosis = stage.diagnosis
    done = stage.history[-1]["step"] if stage.history else 0
    state = f"{stage.steps} steps" if stage.finished else f"step {int(done)} of {stage.steps}"
    series = {"training": stage.training, "validation": stage.validation}
    curves = [
        LineChart("Loss", {name: line for name, line in series.items() if line}, y="loss a scored token"),
        *(LineChart(f"Answers: {metric}", lines, y=metric) for metric, lines in stage.watched),
    ]
    badge = f'<span class="badge {BADGES[diagnosis.kind]}">{escape(diagnosis.kind)}</span>'
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _rows(stage))
    table = f'<div class="panel"><table><tbody>{rows}</tbody></table></div>' if rows else ""
    return (
        f'<section><h2>{escape(stage.name)} <span class="quiet">{state}</span></h2>'
        f'<div class="line">{badge}</div><p>{escape(diagnosis.text)}</p>'
        f"{''.join(map(str, map(line_chart, curves)))}{table}</section>"
    )


def _rows(stage: StageCurve) -> list[tuple[str, str]]:
    return [*(stage.facts or {}).items(), *(described(stage.usage) if stage.usage else [])]


def described(usage: Usage) -> list[tuple[str, str]]:
    """Return time and memory as (name, text)."""
    minutes = f" ({usage.seconds / 60:.1f} minutes)" if usage.seconds >= 120 else ""
    share = f", {usage.share:.1%} of {usage.total_gib:.1f} GiB" if usage.share is not None else ""
    return [
        ("time", f"{usage.seconds:.1f} s{minutes}"),
        ("speed", f"{usage.tokens_per_second:,.0f} trained tokens a second"),
        ("device", usage.device),
        ("peak memory", f"{usage.peak_gib:.2f} GiB{share}"),
        ("of it for training", f"{max(0.0, usage.peak_gib - usage.before_gib):.2f} GiB"),
    ]
