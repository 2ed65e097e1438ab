"""What the model said and how good it is: parser, decoding, generation harness, metrics, statistics, reports.

Importing the package is light; each name below loads its module on first use, and torch only where a model
runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfkeval.comparison import Comparison as Comparison
    from dfkeval.comparison import compare as compare
    from dfkeval.config import EvalConfig as EvalConfig
    from dfkeval.decoding import Decoded as Decoded
    from dfkeval.decoding import Failure as Failure
    from dfkeval.decoding import decode as decode
    from dfkeval.harness import Run as Run
    from dfkeval.harness import evaluate as evaluate
    from dfkeval.harness import load_run as load_run
    from dfkeval.harness import score as score
    from dfkeval.modes import evaluate_modes as evaluate_modes
    from dfkeval.prediction import PredictionError as PredictionError
    from dfkeval.prediction import Predictor as Predictor
    from dfkeval.toolcall import ToolCallParser as ToolCallParser
    from dfkeval.toolcall import parse_tool_call as parse_tool_call
    from dfkeval.toolcall import parse_tool_calls as parse_tool_calls
    from dfkeval.toolcall import write_tool_call as write_tool_call

_HOME = {
    "Comparison": "comparison",
    "compare": "comparison",
    "EvalConfig": "config",
    "Decoded": "decoding",
    "Failure": "decoding",
    "decode": "decoding",
    "PredictionError": "prediction",
    "Predictor": "prediction",
    "Run": "harness",
    "evaluate": "harness",
    "evaluate_modes": "modes",
    "load_run": "harness",
    "score": "harness",
    "ToolCallParser": "toolcall",
    "parse_tool_call": "toolcall",
    "parse_tool_calls": "toolcall",
    "write_tool_call": "toolcall",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'dfkeval' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"dfkeval.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
