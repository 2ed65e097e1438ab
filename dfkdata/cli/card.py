"""`dfkdata card`: a page about a converted data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.cli.options import Redact
from dfkdata.common.console import examples, write
from dfkdata.pages.words import Language

EXAMPLES = examples("dfkdata card data/dfk", "dfkdata card data/dfk --samples 24 --out card.html --redact")


def card_command(
    folder: Annotated[Path, typer.Argument(help="A folder that convert wrote, in the messages layout.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default: card.html in the folder.")
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", help="How many rows to show with their pictures.")
    ] = 96,
    lang: Annotated[Language, typer.Option(help="Language of the words on the page.")] = "en",
    redact: Redact = False,
) -> None:
    """Write a page about a converted data set: counts, labels, lengths, rules and rows with pictures."""
    from dfkdata.reports.dataset_card import write_card

    write(f"{write_card(folder, out or folder / 'card.html', samples=samples, lang=lang, redact=redact)}\n")
