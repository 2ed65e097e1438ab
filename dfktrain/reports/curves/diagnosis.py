"""What loss curves say, in words: learning, overfitting since a step, or flat.

Strategy: the rules that a hosted fine-tuning service gives its users. Both losses fall: it learns. The
training loss falls and the validation loss rises: it overfits, since the step of the lowest validation
loss. Both stay high or rise: flat. What counts as falling is stated below, so that two people read one
curve alike. Promises: pure; needs no more than the log lines; too few points are no verdict."""

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
    """since: the step of the lowest validation loss, for "overfitting" only. text: one or two sentences,
    with the way out."""

    kind: Literal["learning", "overfitting", "flat", "too short"]
    text: str
    since: int | None = None


def diagnose(training: Sequence[Point], validation: Sequence[Point] = ()) -> Diagnosis:
    """The verdict on losses in order of steps. Points that are no finite numbers are left out."""
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
    """Whether the mean of the last third lies below that of the first by more than noise and one per cent."""
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
    seen = f"the training loss went from {training[0][1]:.4f} to {training[-1][1]:.4f}"
    if validation:
        seen += f", the validation loss from {validation[0][1]:.4f} to {validation[-1][1]:.4f}"
    return f"Flat: {seen}. Look at the data, its mask (dfktrain check), the learning rate and the rank."


def _learning(training: Sequence[Point], validation: Sequence[Point]) -> str:
    seen = f"Learning: the training loss fell from {training[0][1]:.4f} to {training[-1][1]:.4f}"
    if len(validation) < 2:
        return f"{seen}. Without validation rows over several evaluations, overfitting would not be seen."
    return f"{seen}, the validation loss from {validation[0][1]:.4f} to {validation[-1][1]:.4f}."
