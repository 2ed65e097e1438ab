"""`dfkdata check`: what `convert` would reject, and why; nothing is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import typer

from dfkdata.cli.options import Input, takes_options
from dfkdata.cli.render import write_summary
from dfkdata.common.console import examples
from dfkdata.common.progress import Progress

EXAMPLES = examples(
    "dfkdata check posts.csv --from dfk_csv --deep",
    "dfkdata check 'shards/*.jsonl.gz' --from alpaca --max-rejects 1%",
)


_FIELDS = (
    "format",
    "schema_name",
    "variant",
    "labels",
    "question",
    "images",
    "delimiter",
    "encoding",
    "sheet",
    "header_row",
    "max_rejects",
    "deep",
)


@takes_options((*_FIELDS, "rules", "options"))
def check_command(input: Input, options: dict[str, Any]) -> None:
    """Check raw data against all rules and write nothing: show what `convert` would reject, and why."""
    from dfkdata.conversion.convert import convert

    with tempfile.TemporaryDirectory() as folder, Progress("rows") as progress:
        summary = convert(input, Path(folder) / "out", validation=0, progress=progress, **options)
    write_summary(summary, files=False)
    if summary.too_many:
        raise typer.Exit(1)
