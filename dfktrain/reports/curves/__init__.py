"""Loss curves of a run, an automatic diagnosis, and its time and memory.

`StageCurve` is one stage so far. `diagnosis` reads its losses, `usage` measures memory and time, `plot` draws
the PNG and `page` writes the HTML.

Guarantees:
    - Everything here is a function of the log lines that a run keeps, so that `dfktrain curves` can draw them
      again from its folder.
    - A picture that cannot be drawn never stops a training."""

from __future__ import annotations

from dfktrain.reports.curves.diagnosis import Diagnosis, diagnose
from dfktrain.reports.curves.page import PAGE, write
from dfktrain.reports.curves.stage_curve import StageCurve, from_stage, stage_curves

__all__ = ["PAGE", "Diagnosis", "StageCurve", "diagnose", "from_stage", "stage_curves", "write"]
