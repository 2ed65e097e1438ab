"""Print the result of a conversion as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from dfkdata.common.console import styled, terminal
from dfkdata.conversion.options import Summary


def write_summary(summary: Summary, *, files: bool = True) -> None:
    """Print the summary: rows, files, and each rule that rows broke with its first example.

    Args:
        summary: The result of a conversion.
        files: Whether files were written; without them only the rows are counted.
    """

    console = terminal()
    for says in _notes(summary):
        console.print(styled(says))
    counts = summary.rows | (summary.splits if files else {})
    table = Table(title="rows", title_justify="left")
    for name in counts:
        table.add_column(styled(name), justify="right")
    table.add_row(*(str(number) for number in counts.values()))
    console.print(table)
    for title, entries in (("quarantined", summary.codes), ("warnings", summary.warnings)):
        if entries:
            console.print(_table(title, entries))
    if files and not (summary.folder / "manifest.json").exists():
        says = f"no row could be used, so nothing was left in {summary.folder}"
        console.print(styled(f"{says}; --keep-empty leaves the rejected rows"))
    elif files:
        for count, what, name in (
            (summary.rows["quarantined"], "rejected rows, whole", "quarantine"),
            (len(summary.warnings), "rows with warnings", "warnings"),
        ):
            if count:
                console.print(styled(f"{what}: {summary.folder / name}.jsonl"))


def _notes(summary: Summary) -> Iterator[str]:
    if summary.detected:
        yield f"read as {summary.detected}"
    if not summary.fresh:
        yield f"{summary.folder} holds exactly this conversion; nothing to do"
    if summary.unread:
        yield f"columns that nothing reads: {', '.join(summary.unread)}"


def _table(title: str, entries: dict[str, dict[str, Any]]) -> Table:

    table = Table(title=title, title_justify="left")
    for name in ("rule", "rows", "first example"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for code, entry in entries.items():
        first = entry["first"]
        example = f"{first['source']}: {first['reason']}"
        example += f" [{first['excerpt']}]" if first.get("excerpt") else ""
        example += f"\n→ {first['hint']}" if first.get("hint") else ""
        about_all = first["source"] == "all rows" and entry["count"] == 1
        table.add_row(styled(code), "all" if about_all else str(entry["count"]), styled(example))
    return table
