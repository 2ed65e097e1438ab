"""Print the result of a conversion as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfkdata.common.console import next_command, write
from dfkdata.common.tables import TextTable, write_tables
from dfkdata.conversion.options import Summary


def write_summary(summary: Summary, *, files: bool = True, card: bool = False) -> None:
    """Print the summary: rows, files, and each rule that rows broke with its first example.

    Args:
        summary: The result of a conversion.
        files: Whether files were written; without them only the rows are counted.
        card: Whether `dfkdata card` reads what was written.
    """
    if not summary.fresh:
        rows = ", ".join(f"{count} {name}" for name, count in summary.splits.items())
        write(f"{summary.folder} holds exactly this conversion ({rows}); nothing to do\n")
        return
    for note in _notes(summary):
        write(f"{note}\n")
    counts = summary.rows | (summary.splits if files else {})
    names = [name.replace("_", " ") for name in counts]
    write_tables(
        [
            TextTable(names, [[*map(str, counts.values())]], "rows"),
            _rules("quarantined", summary.codes),
            _rules("warnings", summary.warnings),
        ]
    )
    if not files:
        return
    if not (summary.folder / "manifest.json").exists():
        says = f"no row could be used, so nothing was left in {summary.folder}"
        write(f"\n{says}; --keep-empty leaves the rejected rows\n")
        return
    write("\n")
    for count, what, name in (
        (summary.rows["quarantined"], "rejected rows, whole", "quarantine"),
        (len(summary.warnings), "rows with warnings", "warnings"),
    ):
        if count:
            write(f"{what}: {summary.folder / name}.jsonl\n")
    if card and summary.rows["out"]:
        next_command("dfkdata", "card", summary.folder)


def _notes(summary: Summary) -> Iterator[str]:
    if summary.detected:
        yield f"read as {summary.detected}"
    if summary.unread:
        yield f"columns that nothing reads: {', '.join(summary.unread)}"


def _rules(title: str, entries: dict[str, dict[str, Any]]) -> TextTable:
    rows = []
    for code, entry in entries.items():
        first = entry["first"]
        example = f"{first['source']}: {first['reason']}"
        example += f" [{first['excerpt']}]" if first.get("excerpt") else ""
        example += f"\n→ {first['hint']}" if first.get("hint") else ""
        about_all = first["source"] == "all rows" and entry["count"] == 1
        rows.append((code, "all" if about_all else str(entry["count"]), example))
    return TextTable((title, "rows", "first example"), rows)
