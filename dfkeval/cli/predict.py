"""`dfkeval predict`: answer one question or many as validated JSON, with any backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dfkdata.common.console import examples, key_value, part_of, say, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfkeval.cli import model_options
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkeval.inference.predictor import Predictor

EXAMPLES = examples(
    "dfkeval predict --model tiny --adapter train/adapter --image x.jpg --field title=Judul",
    "dfkeval predict --model tiny --adapter train/adapter --input posts.csv --out preds.jsonl",
)


@leaves("{out} keeps every answer that came; the same command goes on there", when="out")
def predict_command(
    model: model_options.Model = None,
    adapter: model_options.Adapter = None,
    schema: model_options.SchemaName = None,
    variant: model_options.Variant = None,
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
    confidences: model_options.Confidences = False,
    threshold: model_options.ThresholdText = None,
    scaffold: model_options.ScaffoldFile = None,
    url: model_options.Url = None,
    key: model_options.Key = None,
    backend: model_options.BackendText = None,
    set_: model_options.Settings = None,
) -> None:
    """Ask a model and print what it says as typed JSON; no gold is needed."""
    from dfkeval.inference import backend_options
    from dfkeval.inference.predictor import Predictor

    quiet_libraries()
    _check_options(input_, out, from_, shard, image, field)
    fields = dict(key_value(text, "--field", "name=text") for text in field or ())
    predictor = Predictor(
        backend=backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend),
        schema=schema,
        variant=variant,
        settings=set_ or (),
        scaffold=scaffold,
        confidences=confidences,
        threshold=model_options.threshold_of(threshold or ()),
    )
    if input_ is not None and out is not None:
        _predict_file(predictor, input_, from_, images, out, shard)
    else:
        _predict_one(predictor, image or (), fields)


def _check_options(
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


def _predict_one(predictor: Predictor, images: Sequence[Path], fields: dict[str, str]) -> None:
    """Print the value, or the whole prediction if confidences are asked; exit with 1 without a value."""
    from dfkeval.inference.batch import prediction_of

    missing = [str(path) for path in images if not path.is_file()]
    if missing:
        raise ConfigError(f"--image {missing[0]}: no such file")
    prediction = prediction_of(predictor.sample(images=images, fields=fields), predictor)
    shown: Any = prediction.value
    if predictor.confidences:
        shown = {
            "value": prediction.value, "outcome": prediction.outcome, "label": prediction.label,
            "confidence": prediction.confidence, "label_probs": prediction.label_probs,
        }  # fmt: skip
    if prediction.value is None:
        say(f"dfkeval: no valid answer ({prediction.outcome}): {'; '.join(prediction.problems) or '-'}")
        if not predictor.confidences:
            write(f"{prediction.text}\n")
            raise typer.Exit(1)
    write(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n")
    if prediction.value is None:
        raise typer.Exit(1)


def _predict_file(
    predictor: Predictor, input_: Path, format: str | None, images: Path | None, out: Path, shard: str | None
) -> None:
    from dfkeval.inference import backend_options, batch, inputs
    from dfkeval.types import NOT_ANSWERED

    place, count = part_of(shard)
    store = out.with_name(out.name + ".media")
    total = sum(1 for _ in inputs.rows(input_, format, images=images, store=store))
    rows = inputs.rows(input_, format, images=images, store=store)
    if not total:
        say(f"dfkeval: {input_} holds no rows")
    bar = Progress("answers")
    in_shard = len(range(place - 1, total, count))
    counts = batch.predict_many(
        predictor, rows, out, part=(place, count), progress=lambda done: bar(done, in_shard)
    )
    write("".join(f"{name}: {number}\n" for name, number in counts.items()) + f"answers: {out}\n")
    backend_options.warn_of_adapter(predictor.backend)
    failed = sum(counts.get(name, 0) for name in NOT_ANSWERED)
    if failed:
        say(f"dfkeval: {failed} requests failed; the same command again asks only these")
        raise typer.Exit(1)
