"""Diagnose loss curves: learning, overfitting since a step, or flat.

How it works: these are the rules that a hosted fine-tuning service gives its users. If both losses fall, the
model learns. If the training loss falls and the validation loss rises, it overfits, since the step of the
lowest validation loss. If both stay high or rise, the curve is flat. The constants below say what counts as a
fall; with too few points there is no diagnosis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dfkdata.pages import Words

Point = tuple[int, float]
"""(step, loss)."""

FEWEST = 6
"""Training points below which no trend is read."""

SMALLEST = 0.01
"""Share of the loss that a fall or a rise must have: one per cent."""

ERRORS = 2.0
"""Standard errors that the fall of the training loss must have, between its first and its last third."""


@dataclass(frozen=True)
class Diagnosis:
    """What loss curves say.

    Attributes:
        kind: The diagnosis.
        text: One or two sentences, with what to do.
        since: Step of the lowest validation loss if `kind` is "overfitting", else None.
    """

    kind: Literal["learning", "overfitting", "flat", "too short"]
    text: str
    since: int | None = None


def diagnose(training: Sequence[Point], validation: Sequence[Point] = (), lang: str = "en") -> Diagnosis:
    """Return the diagnosis of a stage.

    Args:
        training: Training losses in the order of steps; values that are not finite are ignored.
        validation: Validation losses likewise.
        lang: Language of the text, "en" or "id".
    """
    w = Words(lang)
    training = [point for point in training if math.isfinite(point[1])]
    validation = [point for point in validation if math.isfinite(point[1])]
    if len(training) < FEWEST:
        return Diagnosis("too short", w("diagnosis.too short", n=len(training), fewest=FEWEST))
    falls = _falls([loss for _, loss in training])
    best = min(validation, key=lambda point: point[1], default=None)
    losses = {"first": training[0][1], "last": training[-1][1]}
    if validation:
        losses |= {"first_validation": validation[0][1], "last_validation": validation[-1][1]}
    if best is not None and falls and _rises(best, validation):
        text = w("diagnosis.overfitting", step=best[0], best=best[1], **losses)
        return Diagnosis("overfitting", text, best[0])
    if not falls:
        return Diagnosis("flat", w("diagnosis.flat_validated" if validation else "diagnosis.flat", **losses))
    return Diagnosis(
        "learning",
        w("diagnosis.learning_validated" if len(validation) > 1 else "diagnosis.learning", **losses),
    )


def _falls(losses: Sequence[float]) -> bool:
    """Return whether the mean of the last third lies below that of the first by more than noise and 1 %."""
    third = max(2, len(losses) // 3)
    first, last = losses[:third], losses[-third:]
    drop = statistics.fmean(first) - statistics.fmean(last)
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / third)
    return drop > SMALLEST * abs(statistics.fmean(first)) and drop > ERRORS * error


def _rises(best: Point, validation: Sequence[Point]) -> bool:
    return validation[-1][1] > best[1] * (1 + SMALLEST)
