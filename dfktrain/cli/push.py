"""`dfktrain push`: send the weights of a run, its card and curves to a model repository of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.faults import leaves
from dfkdata.common.tables import TextTable, write_table
from dfktrain.cli._common import quiet

EXAMPLES = examples(
    "dfktrain push runs/first --to ORG/NAME --dry-run",
    "HF_TOKEN=... dfktrain push runs/first --to ORG/NAME --revision v2",
    "HF_TOKEN=... dfktrain push runs/stopped --to ORG/NAME --checkpoint",
)


@leaves("{to} has all files of this command or none; the same command sends them again")
def push_command(
    run: Annotated[
        Path, typer.Argument(help="A run's folder, or one with an adapter or a merged model.", metavar="DIR")
    ],
    to: Annotated[str, typer.Option("--to", help="The model repository: ORG/NAME.")],
    dry_run: Annotated[
        bool, typer.Option(help="List what would be sent, and the card; send nothing.")
    ] = False,
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="Of a new repository; an existing one stays as it is."),
    ] = True,
    revision: Annotated[str | None, typer.Option(help="The branch; default: the main one.")] = None,
    checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint",
            help="Send the newest complete checkpoint of a stopped run, with optimiser, scheduler and random "
            "states, to the folder checkpoint/; dfktrain run --resume hf://ORG/NAME continues from it.",
        ),
    ] = False,
) -> None:
    """Send weights, card, dfk.json and curves to the Hub, and nothing else; the token is HF_TOKEN."""
    from dfktrain import hub
    from dfktrain.training import hub_resume

    quiet()
    hub.check_name(to)
    files = hub_resume.plan(run) if checkpoint else hub.plan(run)
    write_table(TextTable(("file", "bytes"), [(file.name, f"{file.size:,}") for file in files]))
    write(f"\n{sum(file.size for file in files):,} bytes in {len(files)} files\n")
    if dry_run and not checkpoint:
        card = next((file.content for file in files if file.name == "README.md"), None)
        write("\nno card: README.md is missing\n" if card is None else f"\n{_text(card)}")
    if dry_run:
        write(f"\ndry run: nothing was sent to {to}\n")
        return
    replaces = hub_resume.FOLDER if checkpoint else None
    address = hub.send(files, to, private=private, revision=revision, replaces=replaces)
    write(f"sent: {address}\n")
    if checkpoint:
        write(f"continue elsewhere: dfktrain run CONFIG --out DIR --resume {address}\n")


def _text(content: bytes | Path) -> str:
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()
