"""`dfkeval predict`: inputs -> validated answers as JSON, one or many, with any backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from dfkdata.errors import ConfigError

EXAMPLES = (
    "Examples:\n\n"
    "  dfkeval predict --model tiny --adapter train/adapter --image x.jpg --field title=Judul\n\n"
    "  dfkeval predict --model tiny --adapter train/adapter --input p.csv --from dfk_csv --out p.jsonl"
)


def predict_command(
    model: Annotated[str, typer.Option(help='Model folder, hub name, or "tiny".')],
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter.")] = None,
    schema: Annotated[str | None, typer.Option(help="Output schema; default: the adapter's.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture. May be repeated.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="An input as name=text. May be repeated.")] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A raw file with many inputs.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="The raw file's format, as in dfkdata convert.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder where the raw file's pictures are.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSONL of the answers; a stopped run goes on there.")
    ] = None,
) -> None:
    """Ask a model and print what it says as typed JSON; no gold is needed."""
    from dfkdata import read
    from dfkeval.prediction import PredictionError, Predictor

    if (input_ is None) != (from_ is None) or (input_ is None) != (out is None):
        raise ConfigError("many inputs need all three: --input FILE --from FORMAT --out FILE")
    ask = Predictor(model, adapter=adapter, schema=schema)
    if input_ is not None and from_ is not None and out is not None:
        counts = ask.predict(read(input_, from_, images=images), out)
        sys.stdout.write(
            "".join(f"{name}: {count}\n" for name, count in counts.items()) + f"answers: {out}\n"
        )
        return
    fields = dict(_pair(text) for text in field or ())
    try:
        value = ask(images=image or (), **fields)
    except PredictionError as error:
        sys.stdout.write(f"{error.sample.text}\n")
        sys.stderr.write(f"dfkeval: {error}\n")
        raise typer.Exit(1) from error
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--field {text!r}: write it as name=text")
    return name, value
