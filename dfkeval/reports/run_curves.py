"""Make curves and notes of the details of a run: calibration, and answers on which schema and class differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkdata.pages import LineChart


def calibration_curves(details: Mapping[str, Any]) -> list[LineChart]:
    """Return the curves of a run's `calibration` details: reliability, abstention, precision by recall."""
    charts = []
    if details.get("reliability"):
        points = [(bin_["confidence"], bin_["accuracy"]) for bin_ in details["reliability"]]
        ideal = [(0.0, 0.0), (1.0, 1.0)]
        counts = [bin_["n"] for bin_ in details["reliability"]]
        series = {"answers (area: n)": points, "ideal": ideal}
        charts.append(
            LineChart("Reliability", series, "confidence", "accuracy", True, guide="ideal", counts=counts)
        )
    if details.get("abstention"):
        points = [(point["kept"], point["accuracy"]) for point in details["abstention"]]
        charts.append(
            LineChart(
                "Leaving out unsure answers", {"answers": points}, x="share kept", y="accuracy", shares=True
            )
        )
    curves = {
        label: [(recall, precision) for recall, precision in points]
        for label, points in details.get("precision_recall", {}).items()
        if points
    }
    if curves:
        charts.append(
            LineChart("Precision and recall by label", curves, x="recall", y="precision", shares=True)
        )
    return charts


def differences(details: Mapping[str, Any], most: int = 5) -> list[str]:
    """Return lines about answers on which JSON Schema and answer class differ."""
    answers = details.get("pydantic_differs") or []
    lines = [f"{answer['id']}: {answer['place']}" for answer in answers[:most]]
    return [*lines, f"and {len(answers) - most} more"] if len(answers) > most else lines


def without_probabilities(details: Mapping[str, Any]) -> str:
    """Return a note on answers without label probabilities; empty if all have them."""
    count = details.get("without_probabilities", 0)
    if not count:
        return ""
    subject = "answer has" if count == 1 else "answers have"
    return (
        f"{count} {subject} no label probabilities: least sure where answers are left out, in no other curve."
    )
