"""`dfkeval label`: turn captions into training rows with a teacher model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dfkdata.common.console import examples, next_command, say, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfkeval.cli import model_options
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dfkdata.rows.record import Record, Reject
    from dfkeval.inference.labelling.files import Totals

EXAMPLES = examples(
    "dfkeval label captions.jsonl --url http://127.0.0.1:8000/v1 --model teacher --out labels",
    "dfkeval label captions.csv --model Qwen/Qwen3.5-0.8B --prompt enhance --out labels --dry-run",
)


@leaves("{out} keeps every caption that was answered; the same command goes on there")
def label_command(
    captions: Annotated[Path, typer.Argument(help="CSV, JSONL, … with a column caption.", metavar="INPUT")],
    out: Annotated[Path, typer.Option(help="Folder of the rows; a stopped run goes on there.")],
    model: model_options.Model = None,
    adapter: model_options.Adapter = None,
    prompt: Annotated[
        Literal["strict", "enhance"], typer.Option(help="strict: literal; enhance: style and mood inferred.")
    ] = "strict",
    schema: Annotated[str | None, typer.Option(help="Another schema with a tool.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Raw format of the input; default: columns by name.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder where picture names start.")] = None,
    validators: Annotated[
        str | None,
        typer.Option(help="Validators as YAML; default '{schema_valid: {}, grounding: {minimum: 1.0}}'."),
    ] = None,
    tool_choice: Annotated[
        Literal["forced", "auto"], typer.Option(help="forced: the teacher has to call the tool.")
    ] = "forced",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    price_prompt: Annotated[
        float | None, typer.Option(min=0, help="Price of a million prompt tokens.")
    ] = None,
    price_output: Annotated[
        float | None, typer.Option(min=0, help="Price of a million answer tokens.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Ask no more when the answers could cost more than this.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the estimate and ask nothing.")] = False,
    url: model_options.Url = None,
    key: model_options.Key = None,
    backend: model_options.BackendText = None,
    set_: model_options.Settings = None,
) -> None:
    """Ask a teacher for the structure of each caption and keep what the validators accept as training rows."""
    from itertools import islice

    from dfkdata import schemas
    from dfkeval import backends
    from dfkeval.inference import backend_options, inputs
    from dfkeval.inference.labelling import budget, run, teacher
    from dfkeval.inference.predictor import default_sampling

    quiet_libraries()
    config = backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend)
    default = default_sampling(schemas.load(schema or teacher.PROMPTS[prompt][0]))
    sampling = backend_options.changed(default, set_ or (), "--set")
    accept = _validators(validators)
    store = out / "media"
    labeller = teacher.Labeller(
        backends.start(config), prompt=prompt, schema=schema, validators=accept,
        tool_choice=tool_choice, sampling=sampling, prices=budget.Prices(price_prompt, price_output),
    )  # fmt: skip
    budget.Budget(max_cost, labeller.prices, sampling.limit)  # refuse a cap without prices first

    def rows() -> Iterator[Record | Reject]:
        return islice(inputs.rows(captions, from_, images=images, store=store), limit)

    expected = run.estimate(labeller, rows())
    say(
        f"{expected.rows} captions to ask, of {expected.total} rows: about {expected.prompt_tokens} prompt"
        f" tokens, at most {expected.output_tokens} answer tokens, {_money(expected.cost, 'at most ')}"
    )
    if not expected.total:
        say(f"dfkeval: {captions} holds no rows")
    if dry_run or not expected.total:
        return
    bar = Progress("captions")
    counts = run.label(labeller, rows(), out, cap=max_cost, progress=lambda done: bar(done, expected.total))
    _write_totals(counts, out, labeller.schema.name)
    backend_options.warn_of_adapter(labeller.backend)
    _exit_if_unfinished(counts, expected.total, max_cost)


def _exit_if_unfinished(counts: Totals, total: int, max_cost: float | None) -> None:
    """Exit with 1 if requests failed, or the cap on the cost left rows unasked."""
    if counts.failed:
        say(f"dfkeval: {counts.failed} requests failed; the same command again asks only these")
    if counts.stopped:
        left = total - counts.kept - counts.rejected - counts.failed
        say(
            f"dfkeval: {left} rows are not asked, which could cost more than --max-cost {max_cost:g}; "
            "a larger one goes on there"
        )
    if counts.failed or counts.stopped:
        raise typer.Exit(1)


def _validators(text: str | None) -> dict[str, dict[str, Any]] | None:
    from dfkdata.common.config import parse_yaml

    if text is None:
        return None
    parsed = parse_yaml(text, "--validators")
    if not isinstance(parsed, dict) or not all(
        options is None or isinstance(options, dict) for options in parsed.values()
    ):
        raise ConfigError("--validators: write names with options, '{grounding: {minimum: 0.9}}'")
    return {str(name): options or {} for name, options in parsed.items()}


def _money(cost: float | None, about: str = "") -> str:
    return (
        "cost unknown (give --price-prompt and --price-output)" if cost is None else f"cost {about}{cost:.4f}"
    )


def _write_totals(counts: Totals, out: Path, schema: str) -> None:
    from dfkeval.inference.labelling.files import KEPT, REJECTED

    reasons = ", ".join(f"{name} {count}" for name, count in counts.reasons.most_common())
    write(
        f"kept: {counts.kept}\n"
        f"rejected: {counts.rejected + counts.failed}{f' ({reasons})' if reasons else ''}\n"
        f"tokens: {counts.prompt_tokens} prompt, {counts.output_tokens} answer; {_money(counts.cost)}\n"
        f"rows: {out / KEPT}\nrejects: {out / REJECTED}\n"
    )
    if counts.kept:
        rows = ("--from", "task_1", "--schema", schema, "--to", "messages", "--out", out / "data")
        next_command("dfkdata", "convert", out / KEPT, *rows)
