"""The `dfkdata` command: arguments in, one library call, its result out.

Data goes to stdout, progress and errors to stderr. Exit 0: done. 1: done, with more rejects than
--max-rejects allows; all files are written. 2: wrong usage, or an error that names its way out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkdata.errors import ConfigError, DfkError

if TYPE_CHECKING:
    from dfkdata.plan import Summary

app = typer.Typer(
    name="dfkdata",
    help="Raw data in, training rows out: nothing lost and nothing silent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class Nulls(StrEnum):
    """Whether null slots stand in the target of a tool call."""

    omit = "omit"
    keep = "keep"


def main() -> None:
    """Entry point of the console command: an error meant for the user is one message on stderr and exit 2."""
    try:
        app()
    except DfkError as error:
        sys.stderr.write(f"dfkdata: {error}\n")
        sys.exit(2)


def _examples(*lines: str) -> str:
    """The end of a help text; \b keeps the lines apart."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@app.callback()
def _root() -> None:
    """Keeps `convert` a subcommand while it is the only one."""


@app.command(
    epilog=_examples(
        "dfkdata convert posts.csv --from dfk_csv --to messages --out data/dfk --test 0.1",
        "dfkdata convert captions.jsonl --from captions --to messages --out data/caption --max-rejects 2%",
    )
)
def convert(
    input: Annotated[Path, typer.Argument(help="The raw file.")],
    from_: Annotated[str, typer.Option("--from", help="Raw format of the input.")],
    to: Annotated[str, typer.Option("--to", help="Training layout to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    schema: Annotated[
        str | None, typer.Option("--schema", help="Output schema; default: the format's own.")
    ] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Variant of the schema.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder where image names start; default: the input's.")
    ] = None,
    images_per_row: Annotated[
        str | None, typer.Option("--images-per-row", help="all or first; formats with several images a row.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split.")] = 42,
    max_rejects: Annotated[
        str, typer.Option("--max-rejects", help="Exit 1 above this share (2%) or count (5).")
    ] = "0%",
    validation: Annotated[float, typer.Option("--validation", help="Share of groups held out.")] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Share of groups held out for the test.")] = 0.0,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="Field whose value keeps rows on one side.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option("--split-column", help="Field that names each row's split.")
    ] = None,
    validation_file: Annotated[
        Path | None, typer.Option("--validation-file", help="A file of validation rows.")
    ] = None,
    test_file: Annotated[Path | None, typer.Option("--test-file", help="A file of test rows.")] = None,
    nulls: Annotated[
        Nulls, typer.Option("--nulls", help="omit or keep null slots in tool-call targets.")
    ] = Nulls.omit,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE, an option of the format.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another conversion in --out.")
    ] = False,
) -> None:
    """Convert a raw file into a folder of training files.

    Writes train.jsonl, validation.jsonl, test.jsonl where rows are held out for it, quarantine.jsonl (rows
    that cannot be used, whole, each with its reason), duplicates.jsonl and manifest.json."""
    from dfkdata.pipeline import convert as run

    options = _options(option or [])
    if images_per_row is not None:
        options["images_per_row"] = images_per_row
    summary = run(
        input,
        out,
        format=from_,
        to=to,
        schema=schema,
        variant=variant,
        images=images,
        seed=seed,
        max_rejects=max_rejects,
        validation=validation,
        test=test,
        group_by=group_by,
        split_column=split_column,
        validation_file=validation_file,
        test_file=test_file,
        overwrite=overwrite,
        nulls=nulls.value,
        options=options,
    )
    _show(summary)
    if summary.too_many:
        raise typer.Exit(1)


def _options(pairs: list[str]) -> dict[str, Any]:
    """["key=value"] -> {key: value}, values as text. Raises `ConfigError` where there is no "="."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (_, equals, _) in zip(pairs, split, strict=True):
        if not equals:
            raise ConfigError(f"--option {pair!r}: write it as KEY=VALUE")
    return {key: value for key, _, value in split}


def _show(summary: Summary) -> None:
    """The summary: rows, files, and each rule that rows broke with its first example."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not summary.fresh:
        console.print(Text(f"{summary.folder} holds exactly this conversion; nothing to do"))
    table = Table(title="rows", title_justify="left")
    for name in (*summary.rows, *summary.splits):
        table.add_column(name, justify="right")
    table.add_row(*(str(number) for number in (*summary.rows.values(), *summary.splits.values())))
    console.print(table)
    for title, found in (("quarantined", summary.codes), ("warnings", summary.warnings)):
        if found:
            console.print(_rules(title, found))
    if summary.rows["quarantined"]:
        console.print(Text(f"rejected rows, whole: {summary.folder / 'quarantine.jsonl'}"))


def _rules(title: str, found: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for name in ("rule", "rows", "first example"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for code, entry in found.items():
        first = entry["first"]
        example = f"{first['source']}: {first['reason']}"
        example += f" [{first['excerpt']}]" if first.get("excerpt") else ""
        example += f"\n→ {first['hint']}" if first.get("hint") else ""
        table.add_row(code, str(entry["count"]), Text(example))
    return table
