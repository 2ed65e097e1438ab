"""The story of a run while it is told: loss curves, what they mean, what the run cost.

`StageCurve` is one stage so far. `verdict` reads its losses, `usage` its memory and time, `drawing` makes the
PNG, `page` the HTML, and `recorder` is the Trainer's callback that keeps both up to date. Promises:
everything here is a function of the log lines that the run keeps anyway, so a story can be told again from
its folder; a picture that cannot be drawn never stops a training."""

from __future__ import annotations

from dfktrain.reports.curves.diagnosis import Diagnosis, diagnose
from dfktrain.reports.curves.page import PAGE, write
from dfktrain.reports.curves.stage_curve import StageCurve, from_stage, stage_curves

__all__ = ["PAGE", "Diagnosis", "StageCurve", "diagnose", "from_stage", "stage_curves", "write"]
