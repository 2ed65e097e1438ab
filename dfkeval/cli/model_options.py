"""Command-line options that select the model or server, shared by `predict`, `label` and `serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import key_value
from dfkdata.common.errors import ConfigError

if TYPE_CHECKING:
    from dfkeval.inference.predictor import Threshold

Model = Annotated[
    str | None, typer.Option(help='Model folder, hub name or "tiny"; with --url the name on the server.')
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter.")]
Url = Annotated[
    list[str] | None,
    typer.Option("--url", help="An OpenAI-compatible server, ending in /v1. May be repeated."),
]
Key = Annotated[str | None, typer.Option(help="Name of the environment variable with the server's key.")]
BackendText = Annotated[
    str | None,
    typer.Option("--backend", help="Any backend as YAML, '{kind: scripted, …}', or a file with it."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A sampling setting: max_new_tokens=64. May be repeated."),
]
SchemaName = Annotated[str | None, typer.Option(help="Output schema; default: the adapter's.")]
Variant = Annotated[str | None, typer.Option(help="Its prompt and answer form; default: the adapter's.")]
Confidences = Annotated[bool, typer.Option(help="Also say how sure the model is of each label.")]
ThresholdText = Annotated[
    list[str] | None,
    typer.Option(help="Abstain below this probability: 0.8, or for one label fitnah=0.9."),
]
ScaffoldFile = Annotated[Path | None, typer.Option(help="A task_1 file: ask with its system text and tools.")]


def threshold_of(texts: Sequence[str]) -> Threshold | None:
    """Return the threshold of `--threshold`: ["0.8"] gives 0.8, ["fitnah=0.9"] gives {"fitnah": 0.9}.

    Raises:
        ConfigError: A text is written otherwise, or one number stands beside others.
    """
    if not texts:
        return None
    numbers = [text for text in texts if "=" not in text]
    if numbers and len(texts) > 1:
        raise ConfigError("--threshold: give one number for all labels, or label=number for each")
    if numbers:
        return _number(numbers[0])
    pairs = (key_value(text, "--threshold", "label=number") for text in texts)
    return {name.strip(): _number(value) for name, value in pairs}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--threshold {text!r}: write a number such as 0.8, or label=0.8") from None
