"""Conditions for pipelines.

A gate is one comparison such as `labels.macro_f1.low < 0.8`; when it holds, the command exits 1."""

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
_GATE = re.compile(r"\s*([\w.<>]+?)\.(value|low|high|n)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Gate:
    """`metric`.`part` `sign` `bound`."""

    metric: str
    part: str
    sign: str
    bound: float

    def fails(self, summary: dict[str, Any]) -> bool:
        """Whether the condition holds, or has no number to hold for. Raises `ConfigError` for an unknown
        metric."""
        found = summary["metrics"]
        if self.metric not in found:
            near = suggestion(self.metric, sorted(found))
            raise ConfigError(f"--fail-if: the run has no metric {self.metric!r}{near}")
        value = found[self.metric][self.part]
        return value is None or _SIGNS[self.sign](value, self.bound)


def gate(text: str) -> Gate:
    """Read "labels.macro_f1.low < 0.8". Raises `ConfigError` with the form when it is not one."""
    found = _GATE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--fail-if {text!r}: write METRIC.value, .low, .high or .n, a sign and a number, "
            "for example 'labels.macro_f1.low < 0.8'"
        )
    return Gate(found[1], found[2], found[3], float(found[4]))
