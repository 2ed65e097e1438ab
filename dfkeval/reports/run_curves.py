"""What the metric `calibration` has to show as curves: reliability, abstention, precision by recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkeval.reports.charts import Curve


def calibration_curves(details: Mapping[str, Any]) -> list[Curve]:
    """The curves of a run's `calibration` details, in the order in which they are read; empty without any."""
    found = []
    if details.get("reliability"):
        points = [(each["confidence"], each["accuracy"]) for each in details["reliability"]]
        ideal = [(0.0, 0.0), (1.0, 1.0)]
        counts = [each["n"] for each in details["reliability"]]
        series = {"answers (area: n)": points, "ideal": ideal}
        found.append(
            Curve("Reliability", series, "confidence", "accuracy", True, guide="ideal", counts=counts)
        )
    if details.get("abstention"):
        points = [(each["kept"], each["accuracy"]) for each in details["abstention"]]
        found.append(
            Curve(
                "Leaving out unsure answers", {"answers": points}, x="share kept", y="accuracy", shares=True
            )
        )
    curves = {
        label: [(recall, precision) for recall, precision in points]
        for label, points in details.get("precision_recall", {}).items()
        if points
    }
    if curves:
        found.append(Curve("Precision and recall by label", curves, x="recall", y="precision", shares=True))
    return found


def differences(details: Mapping[str, Any], most: int = 5) -> list[str]:
    """Lines about answers on which JSON Schema and answer class differ; empty without any."""
    found = details.get("pydantic_differs") or []
    lines = [f"{each['id']}: {each['place']}" for each in found[:most]]
    return [*lines, f"and {len(found) - most} more"] if len(found) > most else lines


def without_probabilities(details: Mapping[str, Any]) -> str:
    """What became of answers without label probabilities; empty where all have them."""
    count = details.get("without_probabilities", 0)
    if not count:
        return ""
    each = "answer has" if count == 1 else "answers have"
    return f"{count} {each} no label probabilities: least sure where answers are left out, in no other curve."
