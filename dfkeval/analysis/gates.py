"""Check conditions on the numbers of a run, for pipelines.

A gate is one comparison such as `labels.macro_f1.low < 0.8`; if it holds, the command exits 1."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
#: Names of metrics hold those of labels, with any signs.
_METRIC, _NUMBER = r"\S(?:.*\S)?", r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_GATE = re.compile(rf"\s*({_METRIC})\.(value|low|high|n)\s*(<=|>=|<|>)\s*({_NUMBER})\s*", re.ASCII)


@dataclass(frozen=True)
class Gate:
    """The condition `metric`.`part` `sign` `bound`."""

    metric: str
    part: str
    sign: str
    bound: float

    def fails(self, summary: dict[str, Any]) -> bool:
        """Return whether the condition holds, or the metric has no number.

        Args:
            summary: The run's summary.

        Raises:
            ConfigError: The run has no such metric, or no row could be scored by it.
        """
        metrics = summary["metrics"]
        if self.metric not in metrics:
            near = suggestion(self.metric, sorted(metrics))
            raise ConfigError(f"--fail-if: the run has no metric {self.metric!r}{near}")
        reason = summary.get("unscored", {}).get(self.metric.split(".")[0])
        if reason is not None:
            raise ConfigError(f"--fail-if {self.metric}: {reason} for it, so the condition says nothing")
        value = metrics[self.metric][self.part]
        return value is None or _SIGNS[self.sign](value, self.bound)


def gate(text: str) -> Gate:
    """Read a condition such as "labels.macro_f1.low < 0.8". Raises `ConfigError` that shows the form."""
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--fail-if {text!r}: write METRIC.value, .low, .high or .n, a sign and a number, "
            "for example 'labels.macro_f1.low < 0.8'"
        )
    return Gate(match[1], match[2], match[3], float(match[4]))
