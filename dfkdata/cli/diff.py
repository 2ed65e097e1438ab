"""`dfkdata diff`: what differs between two converted folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples as _examples
from dfkdata.common.console import write
from dfkdata.common.progress import Progress
from dfkdata.common.tables import TextTable, write_tables
from dfkdata.conversion.folders.comparison import EXAMPLES as MOST_EXAMPLES

if TYPE_CHECKING:
    from dfkdata.conversion.folders.diff import DiffExample, FolderDiff

EXAMPLES = _examples(
    "dfkdata diff data/monday data/tuesday",
    "dfkdata diff data/dfk/train.jsonl other/train.jsonl --examples 10 --json",
)

_ASPECTS = {
    "labels": "labels",
    "prompt": "question",
    "answer": "answer",
    "media": "pictures and other media",
    "facts": "facts beside the turns",
}


def diff_command(
    first: Annotated[
        Path, typer.Argument(help="A folder that convert wrote, or a file of rows.", metavar="DIR_A")
    ],
    second: Annotated[Path, typer.Argument(help="What it is compared with.", metavar="DIR_B")],
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="How many rows of each kind of difference to show.")
    ] = MOST_EXAMPLES,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two converted folders by the ids of their rows: what was added, removed, changed or moved.

    Pictures are compared by their bytes, wherever they lie. Settings and rules that differ in the manifests are
    shown, too. Exits 0 if nothing differs, 1 if something does, 2 after an error."""
    from dfkdata.common.json_files import encode
    from dfkdata.conversion.folders.diff import diff_folders, facts

    with Progress("rows") as progress:
        found = diff_folders(first, second, examples=examples, progress=progress)
    if json:
        write(encode(facts(found)).decode())
    else:
        _show(found)
    if not found.is_equal:
        raise typer.Exit(1)


def _show(found: FolderDiff) -> None:
    for name, folder in zip("AB", found.folders, strict=True):
        write(f"{name}: {folder}\n")
    for note in found.notes:
        write(f"note: {note}\n")
    write_tables(_tables(found))
    write(f"\n{_last_line(found)}\n")


def _tables(found: FolderDiff) -> Iterator[TextTable]:
    rows = [(name, *map(str, counts)) for name, counts in found.rows.items()]
    yield TextTable(("split", "A", "B"), rows, "rows")
    yield TextTable(("what", "rows", "examples"), list(_kinds(found)), "differences")
    for field, labels in found.labels.items():
        yield _label_table(field, labels, [*found.rows])
    changes = [
        (field, before or "none", after or "none", str(n))
        for (field, before, after), n in found.label_changes.items()
    ]
    yield TextTable(("field", "A", "B", "rows"), changes, "changed labels")
    if found.settings:
        from dfkdata.conversion.settings import shown

        settings = [(name, shown(before), shown(after)) for name, before, after in found.settings]
        yield TextTable(("setting", "A", "B"), settings, "settings")


def _last_line(found: FolderDiff) -> str:
    if found.is_equal:
        return f"nothing differs; {found.same} rows are the same"
    named = {"added": found.added, "removed": found.removed, "changed": found.changed, "moved": found.moved}
    counts = [f"{rows} {name}" for name, rows in named.items() if rows]
    if found.settings:
        number = len(found.settings)
        counts.append("1 setting differs" if number == 1 else f"{number} settings differ")
    if any(found.missing):
        counts.append(f"{sum(found.missing)} media files cannot be read")
    return f"{', '.join(counts)}; {found.same} rows are the same"


def _kinds(found: FolderDiff) -> Iterator[tuple[str, str, str]]:
    """Yield what differs, in how many rows, and examples."""
    for kind, rows in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        if rows:
            yield kind, str(rows), _shown_examples(found, kind)
            aspects = found.aspects.items() if kind == "changed" else ()
            yield from ((f"  {_ASPECTS[name]}", str(n), "") for name, n in aspects)
    if found.moved:
        yield "moved", str(found.moved), _shown_examples(found, "moved")
        yield from ((f"  {a} → {b}", str(n), "") for (a, b), n in found.moves.items())
    for place, number, name in (("first", found.twice[0], "A"), ("second", found.twice[1], "B")):
        if number:
            yield f"ids twice in {name}", str(number), _shown_examples(found, f"twice in the {place}")


def _shown_examples(found: FolderDiff, kind: str) -> str:
    return "\n".join(_shown(row, kind) for row in found.examples.get(kind, ()))


def _shown(row: DiffExample, kind: str) -> str:
    places = list(dict.fromkeys(place for place in (row.first, row.second) if place))
    where = f"{' → '.join(places)}{f' {row.id}' if row.id else ''}"
    if kind != "changed":
        return f"{where}: {row.after or row.before}"
    return f"{where}: {_ASPECTS[row.changed[0]]}: {row.before or 'none'} → {row.after or 'none'}"


def _label_table(field: str, labels: dict[str, dict[str, tuple[int, int]]], splits: list[str]) -> TextTable:
    rows = []
    for label, counts in labels.items():
        cells = [counts.get(split, (0, 0)) for split in splits]
        rows.append((label, *(f"{a} → {b}" if a != b else str(a) for a, b in cells)))
    return TextTable(("label", *splits), rows, f"rows by {field}, A → B")
