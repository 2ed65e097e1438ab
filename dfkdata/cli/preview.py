"""`dfkdata preview`: the first rows as they would be trained on."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from dfkdata.cli.options import Input, takes_options
from dfkdata.common.console import examples, write

EXAMPLES = examples(
    "dfkdata preview posts.csv --from dfk_csv",
    "dfkdata preview data.jsonl --from alpaca --rows 5 -o join=newline",
)


@takes_options(
    (
        "format",
        "schema_name",
        "variant",
        "labels",
        "question",
        "images",
        "options",
        "delimiter",
        "encoding",
        "sheet",
        "header_row",
    )
)
def preview_command(
    input: Input,
    options: dict[str, Any],
    rows: Annotated[int, typer.Option("--rows", help="How many rows to show.")] = 2,
) -> None:
    """Print the first rows as they would be trained on, turn by turn."""
    from dfkdata.reports.preview import preview

    write("\n".join(islice(preview(input, **options), rows)) + "\n")
