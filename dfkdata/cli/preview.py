"""`dfkdata preview`: the first rows as they would be trained on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from dfkdata.cli.options import Input, Redact, takes_options
from dfkdata.common.console import examples, write
from dfkdata.pages.words import Language

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
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the rows as a page with their pictures instead.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="Language of the words on the page.")] = "en",
    redact: Redact = False,
) -> None:
    """Print the first rows as they would be trained on, turn by turn."""
    from dfkdata.reports.preview import preview, preview_page

    if html is not None:
        write(f"{preview_page(input, path=html, rows=rows, lang=lang, redact=redact, **options)}\n")
        return
    write("\n".join(islice(preview(input, redact=redact, **options), rows)) + "\n")
