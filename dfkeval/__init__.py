"""Ask models, read their answers, and score them: parser, backends, metrics, statistics, reports.

Importing the package is light; each name below loads its module on first use, and torch only where a model
runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkdata.common.lazy import lazy_exports

if TYPE_CHECKING:
    from dfkeval.analysis.comparison import Comparison as Comparison
    from dfkeval.analysis.comparison import compare as compare
    from dfkeval.evaluation.evaluate import evaluate as evaluate
    from dfkeval.evaluation.evaluate import score as score
    from dfkeval.evaluation.modes import evaluate_modes as evaluate_modes
    from dfkeval.inference.batch import predict_many as predict_many
    from dfkeval.inference.predictor import PredictionError as PredictionError
    from dfkeval.inference.predictor import Predictor as Predictor
    from dfkeval.parsing.decode import Decoded as Decoded
    from dfkeval.parsing.decode import Failure as Failure
    from dfkeval.parsing.decode import decode as decode
    from dfkeval.parsing.toolcall import ToolCallParser as ToolCallParser
    from dfkeval.parsing.toolcall import parse_tool_call as parse_tool_call
    from dfkeval.parsing.toolcall import parse_tool_calls as parse_tool_calls
    from dfkeval.parsing.toolcall import write_tool_call as write_tool_call
    from dfkeval.runs.config import EvalConfig as EvalConfig
    from dfkeval.runs.run import Run as Run
    from dfkeval.runs.run import load_run as load_run

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Comparison": "analysis.comparison",
        "compare": "analysis.comparison",
        "EvalConfig": "runs.config",
        "Decoded": "parsing.decode",
        "Failure": "parsing.decode",
        "decode": "parsing.decode",
        "PredictionError": "inference.predictor",
        "Predictor": "inference.predictor",
        "predict_many": "inference.batch",
        "Run": "runs.run",
        "evaluate": "evaluation.evaluate",
        "evaluate_modes": "evaluation.modes",
        "load_run": "runs.run",
        "score": "evaluation.evaluate",
        "ToolCallParser": "parsing.toolcall",
        "parse_tool_call": "parsing.toolcall",
        "parse_tool_calls": "parsing.toolcall",
        "write_tool_call": "parsing.toolcall",
    },
)
