"""Tables that commands show and reports write: one value, drawn on a terminal, in a pipe and as Markdown.

How it works: columns of numbers stand right and are never broken; texts fold within the width of the terminal. Columns
that a reader can do without (`spare`) are left out first, if the width is too small. A pipe or a log gets the same
columns without lines and without folding, so that one row stays on one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfkdata.common.console import styled, terminal, write

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable

_NUMBER = re.compile(r"(n/a|all|[-+<>\[(]*\s?[\d][\d.,%e+\-\]\[()\s<>]*)?", re.ASCII)
#: Columns of a pipe: no row is that wide.
_WHOLE = 100_000
#: Letters that a column gets at least: names and numbers, and words of a text.
_NAME, _WORD = 32, 13
#: Columns that texts get besides, before other columns are left out for them.
_AIR = 4


@dataclass(frozen=True)
class TextTable:
    """Rows of text under a header.

    Attributes:
        header: Names of the columns.
        rows: As many cells a row as there are columns.
        title: Stands above the table; may be empty.
        spare: Names of columns that are left out where they do not fit, the first one first.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    spare: Sequence[str] = ()

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table; cells are escaped."""
        lines = ["| " + " | ".join(self.header) + " |", "|" + "---|" * len(self.header)]
        return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in self.rows]

    def without(self, name: str) -> TextTable:
        """Return the table without a column."""
        keep = [at for at, column in enumerate(self.header) if column != name]
        rows = [[row[at] for at in keep] for row in self.rows]
        return TextTable(
            [self.header[at] for at in keep], rows, self.title, [n for n in self.spare if n != name]
        )


def write_table(table: TextTable) -> None:
    """Write a table to stdout, within the width of the terminal."""
    on_terminal = sys.stdout.isatty()
    if table.title:
        terminal().print(styled(table.title, "bold"))
    console = terminal(width=None if on_terminal else _WHOLE)
    drawn = _drawn(table, lines=on_terminal)
    if on_terminal:
        left_out = []
        while table.spare and _widths(console, drawn).minimum > console.width - _AIR:
            left_out.append(table.spare[0])
            table = table.without(table.spare[0])
            drawn = _drawn(table, lines=True)
        if (least := _widths(console, drawn).minimum) > console.width:
            console = terminal(width=least)  # the terminal breaks the lines; no number is cut
        console.print(drawn)
        if left_out:
            console.print(styled(f"left out, for they do not fit: {', '.join(left_out)}", "dim"))
        return
    with console.capture() as captured:
        console.print(drawn)
    write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _widths(console: Console, drawn: RichTable) -> Measurement:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(max_width=_WHOLE), drawn)


def write_tables(tables: Iterable[TextTable]) -> None:
    """Write several tables with an empty line between them; one without rows is left out."""
    for at, table in enumerate(table for table in tables if table.rows):
        write("\n" if at else "")
        write_table(table)


def _drawn(table: TextTable, *, lines: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(
        box=box.SIMPLE_HEAD if lines else None, show_edge=False, pad_edge=False, header_style="bold",
        padding=(0, 1 if lines else 2, 0, 0),
    )  # fmt: skip
    for at, name in enumerate(table.header):
        numbers = at > 0 and all(_NUMBER.fullmatch(row[at]) for row in table.rows)
        longest = max((len(line) for row in table.rows for line in row[at].splitlines()), default=0)
        least = longest if numbers or at == 0 else min(longest, _WORD)
        drawn.add_column(
            styled(_header(name, longest) if lines else name), justify="right" if numbers else "left",
            overflow="fold", min_width=min(least, _NAME),
        )  # fmt: skip
    for row in table.rows:
        drawn.add_row(*map(styled, row))
    return drawn


def _header(name: str, longest: int) -> str:
    """Return a name in two lines if it is longer than what stands below it: `labels` over `.accuracy`."""
    return name.replace(".", "\n.", 1) if len(name) > longest else name


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
