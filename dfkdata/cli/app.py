"""The `dfkdata` command: arguments in, one library call, its result out.

Data goes to stdout, progress and errors to stderr. Exit 0: done. 1: done, with more rejects than
--max-rejects allows; all files are written. 2: wrong usage, or an error that names its way out."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dfkdata.common.errors import ConfigError, DfkError

if TYPE_CHECKING:
    from dfkdata.conversion.options import Summary
    from dfkdata.validation.rules import Policy

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


class Split(StrEnum):
    """How rows are divided where nothing fixes it."""

    hash = "hash"
    sita = "sita"


class Materialize(StrEnum):
    """What becomes of the images: their paths are written, copies are made, or the rows hold them."""

    link = "link"
    copy = "copy"
    embed = "embed"


class Language(StrEnum):
    """Language of the texts that answers are grounded in."""

    en = "en"
    id = "id"


def main() -> None:
    """Entry point of the console command: an error meant for the user is one message on stderr and exit 2."""
    try:
        app()
    except DfkError as error:
        sys.stderr.write(f"dfkdata: {error}\n")
        sys.exit(2)


def _examples(*lines: str) -> str:
    r"""The end of a help text; \b keeps the lines apart."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


Input = Annotated[str, typer.Argument(help="File, folder, pattern, zip, tar or hf://datasets/ORG/NAME@REV.")]
From = Annotated[str, typer.Option("--from", help="Raw format of the input.")]
SchemaName = Annotated[str | None, typer.Option("--schema", help="Output schema; default: the format's own.")]
Variant = Annotated[str | None, typer.Option("--variant", help="Variant of the schema.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder where image names start; default: the input's.")
]
PerRow = Annotated[
    str | None, typer.Option("--images-per-row", help="all or first, where rows list several images.")
]
Option = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE, an option of the format.")
]
RuleOption = Annotated[list[str] | None, typer.Option("--rule", help="CODE=quarantine|warn|fix|off.")]
MaxRejects = Annotated[str, typer.Option("--max-rejects", help="Exit 1 above this share (2%) or count (5).")]
Deep = Annotated[
    bool, typer.Option("--deep", help="Decode every picture; look for near duplicates across splits.")
]


@app.command(
    epilog=_examples(
        "dfkdata convert posts.csv --from dfk_csv --to messages --out data/dfk --test 0.1",
        "dfkdata convert captions.jsonl --from captions --to swift --out data/caption --max-rejects 2%",
    )
)
def convert(
    input: Input,
    from_: From,
    to: Annotated[str, typer.Option("--to", help="Training layout to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    schema: SchemaName = None,
    variant: Variant = None,
    images: Images = None,
    images_per_row: PerRow = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of split and sample.")] = 42,
    max_rejects: MaxRejects = "0%",
    validation: Annotated[float, typer.Option("--validation", help="Share of groups held out.")] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Share of groups held out for the test.")] = 0.0,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="Field whose value keeps rows on one side.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option("--split-column", help="Field that names each row's split.")
    ] = None,
    validation_file: Annotated[str | None, typer.Option("--validation-file", help="Validation rows.")] = None,
    test_file: Annotated[str | None, typer.Option("--test-file", help="Test rows.")] = None,
    stratify: Annotated[
        str | None, typer.Option("--stratify", help="Field whose values keep their shares.")
    ] = None,
    split: Annotated[
        Split, typer.Option("--split", help="sita repeats that framework's shuffle.")
    ] = Split.hash,
    max_samples: Annotated[int | None, typer.Option("--max-samples", help="Cap of --split sita.")] = None,
    subsample: Annotated[
        float, typer.Option("--subsample", help="Share of each label, of --split sita.")
    ] = 1.0,
    where: Annotated[list[str] | None, typer.Option("--where", help="FIELD=VALUE or FIELD!=VALUE.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only that many rows.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Choose the --limit rows at random.")] = False,
    hub_config: Annotated[str | None, typer.Option("--hub-config", help="Config of a hub data set.")] = None,
    hub_split: Annotated[str | None, typer.Option("--hub-split", help="Split of a hub data set.")] = None,
    materialize: Annotated[Materialize, typer.Option("--materialize", help="Images.")] = Materialize.link,
    deep: Deep = False,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="tokenizer.json for --max-tokens.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Text tokens that a row may have.")
    ] = None,
    grounding: Annotated[
        float | None, typer.Option("--grounding", help="Share of answers in their text.")
    ] = None,
    grounding_language: Annotated[
        Language, typer.Option("--grounding-language", help="Of the texts.")
    ] = Language.en,
    balance: Annotated[bool, typer.Option("--balance", help="Class weights into the manifest.")] = False,
    nulls: Annotated[Nulls, typer.Option("--nulls", help="Null slots in tool-call targets.")] = Nulls.omit,
    rule: RuleOption = None,
    option: Option = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another conversion in --out.")
    ] = False,
) -> None:
    """Convert raw data into a folder of training files.

    Writes train.jsonl, validation.jsonl, test.jsonl where rows are held out for it, quarantine.jsonl (rows
    that cannot be used, whole, each with its reason), duplicates.jsonl and manifest.json."""
    from dfkdata.conversion.convert import convert as run

    with _Progress() as progress:
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
            stratify=stratify,
            split=split.value,
            max_samples=max_samples,
            subsample=subsample,
            where=where,
            limit=limit,
            sample=sample,
            hub_config=hub_config,
            hub_split=hub_split,
            materialize=materialize.value,
            deep=deep,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            grounding=grounding,
            grounding_language=grounding_language.value,
            balance=balance,
            overwrite=overwrite,
            nulls=nulls.value,
            rules=_rules(rule),
            options=_options(option, images_per_row),
            progress=progress.seen,
        )
    _show(summary)
    if summary.too_many:
        raise typer.Exit(1)


@app.command(
    epilog=_examples(
        "dfkdata check posts.csv --from dfk_csv --deep",
        "dfkdata check 'shards/*.jsonl.gz' --from alpaca --max-rejects 1%",
    )
)
def check(
    input: Input,
    from_: From,
    schema: SchemaName = None,
    variant: Variant = None,
    images: Images = None,
    images_per_row: PerRow = None,
    max_rejects: MaxRejects = "0%",
    deep: Deep = False,
    rule: RuleOption = None,
    option: Option = None,
) -> None:
    """Hold raw data to all rules and write nothing: what `convert` would quarantine, and why."""
    from dfkdata.conversion.convert import convert as run

    with tempfile.TemporaryDirectory() as folder, _Progress() as progress:
        summary = run(
            input,
            Path(folder) / "out",
            format=from_,
            schema=schema,
            variant=variant,
            images=images,
            validation=0,
            max_rejects=max_rejects,
            deep=deep,
            rules=_rules(rule),
            options=_options(option, images_per_row),
            progress=progress.seen,
        )
    _show(summary, files=False)
    if summary.too_many:
        raise typer.Exit(1)


@app.command(
    epilog=_examples(
        "dfkdata preview posts.csv --from dfk_csv",
        "dfkdata preview data.jsonl --from alpaca --rows 5 -o join=newline",
    )
)
def preview(
    input: Input,
    from_: From,
    schema: SchemaName = None,
    variant: Variant = None,
    images: Images = None,
    images_per_row: PerRow = None,
    rows: Annotated[int, typer.Option("--rows", help="How many rows to show.")] = 2,
    option: Option = None,
) -> None:
    """Print the first rows as they would be trained on, turn by turn."""
    from itertools import islice

    from dfkdata.reports.preview import shown

    found = shown(input, from_, schema, variant, images, _options(option, images_per_row))
    sys.stdout.write("\n".join(islice(found, rows)) + "\n")


@app.command(epilog=_examples("dfkdata card data/dfk", "dfkdata card data/dfk --samples 24 --out card.html"))
def card(
    folder: Annotated[Path, typer.Argument(help="A folder that convert wrote, in the messages layout.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default: card.html in the folder.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="How many rows to picture.")] = 12,
) -> None:
    """Write a page about a converted data set: counts, labels, lengths, rules, and rows with their
    pictures."""
    from dfkdata.reports.dataset_card import write_card

    sys.stdout.write(f"{write_card(folder, out or folder / 'card.html', samples=samples)}\n")


@app.command(epilog=_examples("dfkdata schema caption", "dfkdata schema dfk_label --variant card"))
def schema(
    name: Annotated[str, typer.Argument(help="Name of an output schema.")],
    variant: Variant = None,
) -> None:
    """Print an output schema: its JSON Schema, roles, variants and tools."""
    import msgspec

    from dfkdata.reports.preview import schema_facts

    text = msgspec.json.format(msgspec.json.encode(schema_facts(name, variant)), indent=2)
    sys.stdout.write(text.decode() + "\n")


def _options(pairs: list[str] | None, images_per_row: str | None) -> dict[str, Any]:
    """["key=value"] -> {key: value}, values as text. Raises `ConfigError` where there is no "="."""
    options: dict[str, Any] = dict(_pair(pair, "--option") for pair in pairs or ())
    return options | ({"images_per_row": images_per_row} if images_per_row is not None else {})


def _rules(pairs: list[str] | None) -> dict[str, Policy]:
    return cast("dict[str, Policy]", dict(_pair(pair, "--rule") for pair in pairs or ()))


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option} {text!r}: write it as KEY=VALUE")
    return key, value


class _Progress:
    """A line on stderr with the number of rows and their rate, on a terminal and after two seconds."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.completed} rows"),
            TimeElapsedColumn(),
            TextColumn("{task.speed:.0f} rows/s"),
        )
        self._bar = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self._task = self._bar.add_task("rows", total=None)
        return self

    def seen(self, rows: int) -> None:
        """Tell how many rows were read."""
        if not self._bar.live.is_started and (self._bar.tasks[0].elapsed or 0) > 2:
            self._bar.start()
        self._bar.update(self._task, completed=rows)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _show(summary: Summary, *, files: bool = True) -> None:
    """The summary: rows, files, and each rule that rows broke with its first example."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not summary.fresh:
        console.print(Text(f"{summary.folder} holds exactly this conversion; nothing to do"))
    counts = summary.rows | (summary.splits if files else {})
    table = Table(title="rows", title_justify="left")
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*(str(number) for number in counts.values()))
    console.print(table)
    for title, found in (("quarantined", summary.codes), ("warnings", summary.warnings)):
        if found:
            console.print(_table(title, found))
    if summary.rows["quarantined"] and files:
        console.print(Text(f"rejected rows, whole: {summary.folder / 'quarantine.jsonl'}"))


def _table(title: str, found: dict[str, dict[str, Any]]) -> Any:
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
