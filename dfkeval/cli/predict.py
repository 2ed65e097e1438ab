"""`dfkeval predict`: inputs -> validated answers as JSON, one or many, with any backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dfkdata.common.errors import ConfigError
from dfkdata.common.progress import Progress
from dfkeval.cli import model_options as engine_options
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkeval.inference.predictor import Predictor, Threshold

EXAMPLES = (
    "Examples:\n\n"
    "  dfkeval predict --model tiny --adapter train/adapter --image x.jpg --field title=Judul\n\n"
    "  dfkeval predict --model tiny --adapter train/adapter --input posts.csv --out preds.jsonl"
)


def predict_command(
    model: engine_options.Model = None,
    adapter: engine_options.Adapter = None,
    schema: engine_options.SchemaName = None,
    variant: engine_options.Variant = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture. May be repeated.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="An input as name=text. May be repeated.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", help="Many inputs: CSV, JSONL, …, or a folder of pictures.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Its raw format as in dfkdata convert; default: columns by name."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder where the input's picture names start.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSONL of the answers; a stopped run goes on there.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="Only this part of the input: 3/16.")] = None,
    confidences: Annotated[bool, typer.Option(help="Also say how sure the model is of each label.")] = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Abstain below this probability: 0.8, or for one label fitnah=0.9."),
    ] = None,
    scaffold: engine_options.ScaffoldFile = None,
    url: engine_options.Url = None,
    key: engine_options.Key = None,
    backend: engine_options.BackendText = None,
    set_: engine_options.Settings = None,
) -> None:
    """Ask a model and print what it says as typed JSON; no gold is needed."""
    from dfkeval.inference import backend_options
    from dfkeval.inference.predictor import Predictor

    quiet_libraries()
    _check_many(input_, out, from_, shard, image, field)
    fields = dict(pair(text) for text in field or ())
    ask = Predictor(
        backend=backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend),
        schema=schema,
        variant=variant,
        settings=set_ or (),
        scaffold=scaffold,
        confidences=confidences,
        threshold=threshold_of(threshold or ()),
    )
    if input_ is not None and out is not None:
        _many(ask, input_, from_, images, out, shard)
    else:
        _one(ask, image or (), fields)


def _check_many(
    input_: Path | None, out: Path | None, from_: str | None, shard: str | None,
    image: Sequence[Path] | None, field: Sequence[str] | None,
) -> None:  # fmt: skip
    if (input_ is None) != (out is None):
        raise ConfigError("many inputs need both: --input FILE --out FILE")
    if input_ is None and (from_ is not None or shard is not None):
        raise ConfigError("--from and --shard go with --input FILE --out FILE")
    if input_ is None and not image and not field:
        raise ConfigError("nothing to ask: give --image FILE, --field name=text, or --input FILE --out FILE")
    if input_ is not None and (image or field):
        raise ConfigError("--image and --field ask one row; leave them out with --input")


def _one(ask: Predictor, images: Sequence[Path], fields: dict[str, str]) -> None:
    """Print the value; with confidences the whole prediction. Exit 1 without a value."""
    from dfkeval.inference.batch import of_sample

    missing = [str(path) for path in images if not path.is_file()]
    if missing:
        raise ConfigError(f"--image {missing[0]}: no such file")
    found = of_sample(ask.sample(images=images, fields=fields), ask)
    shown: Any = found.value
    if ask.confidences:
        shown = {
            "value": found.value, "outcome": found.outcome, "label": found.label,
            "confidence": found.confidence, "label_probs": found.label_probs,
        }  # fmt: skip
    if found.value is None:
        sys.stderr.write(f"dfkeval: no valid answer ({found.outcome}): {'; '.join(found.problems) or '-'}\n")
        if not ask.confidences:
            sys.stdout.write(f"{found.text}\n")
            raise typer.Exit(1)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n")
    if found.value is None:
        raise typer.Exit(1)


def _many(
    ask: Predictor, given: Path, format: str | None, images: Path | None, out: Path, shard: str | None
) -> None:
    from dfkeval.inference import batch, inputs
    from dfkeval.types import NOT_ANSWERED

    place, count = part_of(shard)
    store = out.with_name(out.name + ".media")
    total = sum(1 for _ in inputs.rows(given, format, images=images, store=store))
    rows = inputs.rows(given, format, images=images, store=store)
    if not total:
        sys.stderr.write(f"dfkeval: {given} holds no rows\n")
    bar = Progress("answers")
    mine = len(range(place - 1, total, count))
    counts = batch.many(ask, rows, out, part=(place, count), progress=lambda done: bar(done, mine))
    sys.stdout.write("".join(f"{name}: {number}\n" for name, number in counts.items()) + f"answers: {out}\n")
    failed = sum(counts.get(name, 0) for name in NOT_ANSWERED)
    if failed:
        sys.stderr.write(f"dfkeval: {failed} requests failed; the same command again asks only these\n")
        raise typer.Exit(1)


def part_of(shard: str | None) -> tuple[int, int]:
    """(3, 16) for "3/16"; (1, 1) for None. Raises `ConfigError`."""
    if shard is None:
        return (1, 1)
    place, sign, count = shard.partition("/")
    if not (sign and place.isdecimal() and count.isdecimal() and 1 <= int(place) <= int(count)):
        raise ConfigError(f"--shard {shard!r}: write 3/16 for the third of sixteen parts")
    return int(place), int(count)


def threshold_of(texts: Sequence[str]) -> Threshold | None:
    """["0.8"] -> 0.8; ["fitnah=0.9"] -> {"fitnah": 0.9}. Raises `ConfigError`."""
    if not texts:
        return None
    plain = [text for text in texts if "=" not in text]
    if plain and len(texts) > 1:
        raise ConfigError("--threshold: give one number for all labels, or label=number for each")
    if plain:
        return _number(plain[0])
    return {name.strip(): _number(value) for name, value in map(pair_of("--threshold"), texts)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--threshold {text!r}: write a number such as 0.8, or label=0.8") from None


def pair_of(option: str) -> Callable[[str], tuple[str, str]]:
    """name=text -> (name, text), for an option of this name."""

    def read(text: str) -> tuple[str, str]:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"{option} {text!r}: write it as name=text")
        return name, value

    return read


pair = pair_of("--field")
