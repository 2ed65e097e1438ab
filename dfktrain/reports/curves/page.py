"""Write the page of a run: losses, learning rate, gradient norm, monitored answers, diagnosis, time and memory.

While the run trains, the page asks the browser to reload it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common import json_files
from dfkdata.pages import LineChart, Look, Words, line_chart
from dfktrain.reports.curves.diagnosis import diagnose
from dfktrain.reports.curves.stage_curve import StageCurve
from dfktrain.reports.curves.usage import Usage

PAGE = "training.html"
"""Name of the page in a run's folder."""

REFRESH_S = 10

BADGES = {"learning": "good", "overfitting": "bad", "flat": "bad", "too short": "warn"}
BANNERS = BADGES | {"too short": "note"}


def write(
    path: str | Path, title: str, stages: Sequence[StageCurve], *, finished: bool, lang: str = "en"
) -> Path:
    """Write the page at once, so that a browser never reads half of it.

    Args:
        path: The HTML file.
        title: Title of the page.
        stages: The stages so far.
        finished: Whether the run is finished; else the browser reloads the page.
        lang: Language of the page's words, "en" or "id".

    Returns:
        `path`.
    """
    path = Path(path)
    json_files.write_bytes(path, html(title, stages, finished=finished, lang=lang).encode())
    return path


def html(title: str, stages: Sequence[StageCurve], *, finished: bool, lang: str = "en") -> str:
    """Return the page; arguments as of `write`."""
    look = Look(lang)
    w = look.w
    state = w("train.finished") if finished else w("train.running", s=REFRESH_S)
    body = look.render(
        "dfktrain.reports",
        "training.html",
        title=title,
        head=_head(stages, w),
        facts=[(w("train.state"), state), *(_cost(stages, w) if len(stages) > 1 else [])],
        stages=[_section(f"s{at + 1}", stage, w) for at, stage in enumerate(stages)],
    )
    nav = [(f"s{at + 1}", stage.name) for at, stage in enumerate(stages)]
    return look.document(title, body, nav=nav, refresh_s=None if finished else REFRESH_S)


def _head(stages: Sequence[StageCurve], w: Words) -> list[str]:
    """Return the newest stage with losses as a sentence: its loss, the first one, validation, steps."""
    stage = next((stage for stage in reversed(stages) if stage.training), None)
    if stage is None:
        return [w("train.waiting"), ""]
    first, last = stage.training[0][1], stage.training[-1]
    head = [w("train.head", last=f"{last[1]:.3g}"), w("train.head_was", first=f"{first:.3g}")]
    if stage.validation:
        head.append(w("train.head_validation", value=f"{stage.validation[-1][1]:.3g}"))
    return [*head, w("train.steps", n=last[0])]


def _cost(stages: Sequence[StageCurve], w: Words) -> list[tuple[str, str]]:
    """Return the time of all stages together."""
    seconds = [stage.usage.seconds for stage in stages if stage.usage]
    return [(w("train.time"), _time(sum(seconds), w))] if seconds else []


def _section(place: str, stage: StageCurve, w: Words) -> dict[str, Any]:
    diagnosis = diagnose(stage.training, stage.validation, w.lang)
    done = int(stage.history[-1]["step"]) if stage.history else 0
    values, step = w("values"), w("train.step")
    beside = {"learning_rate": stage.learning_rate, "gradient_norm": stage.gradient_norm}
    return {
        "place": place,
        "name": stage.name,
        "state": w("train.steps", n=stage.steps)
        if stage.finished
        else w("train.step_of", step=done, n=stage.steps),
        "kind": diagnosis.kind,
        "badge": BADGES[diagnosis.kind],
        "banner": BANNERS[diagnosis.kind],
        "text": diagnosis.text,
        "facts": [*_facts(stage.facts or {}, w), *(described(stage.usage, w) if stage.usage else [])],
        "loss": line_chart(loss_chart(stage, w), values),
        "beside": [
            line_chart(
                LineChart(w(f"train.{name}"), {w(f"train.{name}"): line}, step, w(f"train.{name}_axis")),
                values,
            )
            for name, line in beside.items()
            if line
        ],
        "watched": [
            line_chart(
                LineChart(
                    w("train.answers", metric=metric), lines, x=step, y=metric, marked=tuple(lines),
                ),
                values,
            )
            for metric, lines in stage.watched
        ],
    }  # fmt: skip


def loss_chart(stage: StageCurve, w: Words) -> LineChart:
    """Return the losses of a stage, with a line at the lowest validation loss if it rose again."""
    series = {w("train.training"): stage.training, w("train.validation"): stage.validation}
    since = stage.diagnosis.since
    return LineChart(
        w("train.loss"),
        {name: line for name, line in series.items() if line},
        w("train.step"),
        w("train.loss_axis"),
        marked=(w("train.validation"),),
        log_y=stage.log_loss,
        note=None if since is None else (since, w("train.lowest", step=since)),
    )


def _facts(facts: Mapping[str, str], w: Words) -> list[tuple[str, str]]:
    return [(w.known(f"train.{name}", name), text) for name, text in facts.items()]


def _time(seconds: float, w: Words) -> str:
    return w("train.minutes" if seconds >= 120 else "train.seconds", s=seconds, m=seconds / 60)


def described(usage: Usage, w: Words | None = None) -> list[tuple[str, str]]:
    """Return time and memory as (name, text)."""
    w = w or Words()
    peak = f"{usage.peak_gib:.2f} GiB"
    if usage.share is not None:
        peak = w("train.share", peak=usage.peak_gib, share=usage.share, total=usage.total_gib)
    return [
        (w("train.time"), _time(usage.seconds, w)),
        (w("train.speed"), w("train.per_second", n=usage.tokens_per_second)),
        (w("train.device"), usage.device),
        (w("train.peak"), peak),
        (w("train.for_training"), f"{max(0.0, usage.peak_gib - usage.before_gib):.2f} GiB"),
    ]
