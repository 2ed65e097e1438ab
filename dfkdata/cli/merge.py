"""`dfkdata merge`: several converted folders in one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, write
from dfkdata.common.faults import leaves
from dfkdata.common.progress import Progress
from dfkdata.common.tables import TextTable, write_tables

if TYPE_CHECKING:
    from dfkdata.conversion.folders.merge import MergeSummary

EXAMPLES = examples(
    "dfkdata merge data/first data/second --out data/all",
    "dfkdata merge data/* --out all --on-overlap drop-train --on-conflict first --materialize copy",
)

_OnConflict = StrEnum("_OnConflict", {"error": "error", "first": "first"})
_OnOverlap = StrEnum("_OnOverlap", {"error": "error", "drop-train": "drop-train"})
_Materialize = StrEnum("_Materialize", {"link": "link", "copy": "copy"})
_Paths = StrEnum("_Paths", {"relative": "relative", "absolute": "absolute"})

_REASONS = {
    "copy": "copies of rows that stay",
    "conflict": "rows of an id that another row has",
    "groups": "training rows of a group that is held out",
    "prompts": "training rows that ask nearly what a held-out row asks",
    "pictures": "training rows that show a picture which is held out",
    "media": "training rows with video or audio that is held out",
}


@leaves("what {out} held stays until the new files are whole; the same command merges again")
def merge_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders that convert wrote.", metavar="DIR...")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    on_conflict: Annotated[
        _OnConflict | None,
        typer.Option(
            help="Rows of one id with different contents: an error (the default), or the first stays."
        ),
    ] = None,
    on_overlap: Annotated[
        _OnOverlap | None,
        typer.Option(
            help="Training rows like held-out rows of another folder: an error (the default), or left out."
        ),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A setting that may differ, such as from or rule. May be repeated."
        ),
    ] = None,
    materialize: Annotated[
        _Materialize, typer.Option(help="Name the pictures where they are, or copy them.")
    ] = _Materialize.link,
    paths: Annotated[
        _Paths, typer.Option(help="Write media paths as seen from the rows' file, or from everywhere.")
    ] = _Paths.relative,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is in the output folder.")
    ] = False,
) -> None:
    """Merge converted folders of one kind into one folder, under one policy.

    Copies of rows are left out and counted. What a merge leaves out lies in left_out.jsonl, each row with its reason.
    Rows of one id that differ, and training rows that are like held-out rows of another folder, are an error unless
    an option says what becomes of them. If no row is there, nothing is left and the exit status is 1."""
    from dfkdata.conversion.folders.merge import merge_folders

    with Progress("rows") as progress:
        summary = merge_folders(
            folders,
            out,
            on_conflict=on_conflict.value if on_conflict else None,
            on_overlap=on_overlap.value if on_overlap else None,
            accept=accept or (),
            materialize=materialize.value,
            paths=paths.value,
            overwrite=overwrite,
            progress=progress,
        )
    for option, given, used in (
        ("on-conflict", on_conflict, summary.on_conflict),
        ("on-overlap", on_overlap, summary.on_overlap),
    ):
        if given is None and used != "error":
            write(f"--{option} {used}, as a folder was merged before\n")
    _show(summary)
    if not summary.rows["out"]:
        raise typer.Exit(1)


def _show(summary: MergeSummary) -> None:
    if not summary.fresh:
        splits = ", ".join(f"{count} {name}" for name, count in summary.splits.items())
        write(f"{summary.folder} holds exactly this merge ({splits}); nothing to do\n")
        return
    counts = summary.rows | summary.splits
    reasons = [(_REASONS.get(name, name), str(number)) for name, number in summary.left_out.items()]
    write_tables(
        [
            TextTable([name.replace("_", " ") for name in counts], [[*map(str, counts.values())]], "rows"),
            TextTable(("left out", "rows"), reasons),
        ]
    )
    if not summary.looked:
        write("\nthere are many pictures: only those with equal bytes were compared across splits\n")
    if not summary.rows["out"]:
        write(f"\nthe folders hold no row, so nothing was left in {summary.folder}\n")
    elif summary.left_out:
        write(f"\nrows that were left out: {summary.folder / 'left_out.jsonl'}\n")
