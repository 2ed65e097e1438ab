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


def diagnose(training: Sequence[Point], validation: Sequence[Point] = ()) -> Diagnosis:
    """Return the diagnosis of a stage.

    Args:
        training: Training losses in the order of steps; values that are not finite are ignored.
        validation: Validation losses likewise.
    """
    training = [point for point in training if math.isfinite(point[1])]
    validation = [point for point in validation if math.isfinite(point[1])]
    if len(training) < FEWEST:
        return Diagnosis(
            "too short", f"{len(training)} training losses are too few to read a trend ({FEWEST} are)"
        )
    falls = _falls([loss for _, loss in training])
    best = min(validation, key=lambda point: point[1], default=None)
    if best is not None and falls and _rises(best, validation):
        return Diagnosis("overfitting", _overfitting(best, validation[-1]), best[0])
    if not falls:
        return Diagnosis("flat", _flat(training, validation))
    return Diagnosis("learning", _learning(training, validation))


def _falls(losses: Sequence[float]) -> bool:
    """Return whether the mean of the last third lies below that of the first by more than noise and 1 %."""
    third = max(2, len(losses) // 3)
    first, last = losses[:third], losses[-third:]
    drop = statistics.fmean(first) - statistics.fmean(last)
    error = math.sqrt((statistics.variance(first) + statistics.variance(last)) / third)
    return drop > SMALLEST * abs(statistics.fmean(first)) and drop > ERRORS * error


def _rises(best: Point, validation: Sequence[Point]) -> bool:
    return validation[-1][1] > best[1] * (1 + SMALLEST)


def _overfitting(best: Point, last: Point) -> str:
    return (
        f"Overfitting since step {best[0]}: the training loss falls while the validation loss rose from "
        f"{best[1]:.4f} to {last[1]:.4f}. Use the checkpoint of step {best[0]} (best: true keeps it) or "
        f"train less."
    )


def _flat(training: Sequence[Point], validation: Sequence[Point]) -> str:
    summary = f"the training loss went from {training[0][1]:.4f} to {training[-1][1]:.4f}"
    if validation:
        summary += f", the validation loss from {validation[0][1]:.4f} to {validation[-1][1]:.4f}"
    return f"Flat: {summary}. Look at the data, its mask (dfktrain check), the learning rate and the rank."


def _learning(training: Sequence[Point], validation: Sequence[Point]) -> str:
    summary = f"Learning: the training loss fell from {training[0][1]:.4f} to {training[-1][1]:.4f}"
    if len(validation) < 2:
        return f"{summary}. Without validation rows over several evaluations, overfitting would not be seen."
    return f"{summary}, the validation loss from {validation[0][1]:.4f} to {validation[-1][1]:.4f}."
