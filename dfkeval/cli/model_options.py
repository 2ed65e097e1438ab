"""The options by which `predict`, `label` and `serve` are told who answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
ScaffoldFile = Annotated[Path | None, typer.Option(help="A task_1 file: ask with its system text and tools.")]
