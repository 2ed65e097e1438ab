"""`dfkdata convert`: raw data into a folder of training files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dfkdata.cli.options import Input, takes_options
from dfkdata.cli.render import write_summary
from dfkdata.common.console import examples
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfkdata.conversion.options import ConvertOptions

EXAMPLES = examples(
    "dfkdata convert posts.csv --from dfk_csv --to messages --out data/dfk --test 0.1",
    "dfkdata convert captions.jsonl --from captions --to swift --out data/caption --max-rejects 2%",
)


_FIELDS = [name for name in ConvertOptions.model_fields if name != "progress"]


@leaves(
    "what {out} held stays until the new files are whole; the same command converts again (with --workers it goes on)"
)
@takes_options(_FIELDS, required=("to",))
def convert_command(
    input: Input,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    options: dict[str, Any],
) -> None:
    """Convert raw data into a folder of training files.

    Writes train.jsonl, validation.jsonl, test.jsonl (if rows are held out for it), quarantine.jsonl (rows
    that cannot be used, whole, each with its reason), duplicates.jsonl, warnings.jsonl and manifest.json. If no
    row can be used, nothing is left; --keep-empty leaves the rejected rows. --workers N writes the same files in N
    processes and goes on where a run that was stopped ended."""
    from dfkdata.conversion.convert import convert

    with Progress("rows") as progress:
        summary = convert(input, out, progress=progress, **options)
    write_summary(summary, card=options["to"] == "messages")
    if summary.too_many or not summary.rows["out"]:
        raise typer.Exit(1)
