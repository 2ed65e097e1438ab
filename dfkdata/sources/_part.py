"""One piece of an input: a file, a folder of pictures, a tar of samples, or rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfkdata.sources._dialect import Dialect, TableOptions
from dfkdata.sources._rejects import SourcedRow


@dataclass(frozen=True)
class Span:
    """Whole rows of a file that lie one after another, and what a reader of the file knows where they begin.

    Attributes:
        start: Their first byte.
        stop: The byte behind them.
        line: Lines of the file before them.
        dialect: How the file is written if it is a table; None for others.
        header: The names of a table's columns; None before its header was read.
    """

    start: int
    stop: int
    line: int
    dialect: Dialect | None = None
    header: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Part:
    """One file (or the rows in memory) of an input.

    Attributes:
        name: Its name in sources and in the manifest.
        root: Where image names start unless the user says otherwise.
        also: Where they may start, too: the one folder in which everything of an archive lies.
        path: The file; None for rows in memory and for folders of pictures.
        memory: The rows in memory.
        tables: How it is written if it is a table.
        facts: How it was read; filled while a table is read.
        lost: Columns that the format does not read; filled while the first rows are read.
        split: The split that the source itself puts its rows in; None leaves it to the splitter.
        fetched: Whether it comes from an archive or the Hub, and may not name folders outside its own.
        reads: Reads its rows where they are more than the rows of one file.
        span: The rows that are read; None for all.
    """

    name: str
    root: Path
    path: Path | None = None
    memory: Iterable[Any] = ()
    tables: TableOptions = field(default_factory=TableOptions)
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    lost: list[str] = field(default_factory=list, compare=False)
    split: str | None = None
    also: tuple[Path, ...] = ()
    fetched: bool = False
    reads: Callable[[Part], Iterator[SourcedRow]] | None = field(default=None, compare=False)
    span: Span | None = None


def is_litter(name: str) -> bool:
    """Return whether a program left a file beside the data: macOS in zips, office programs while they are open."""
    return any(step.startswith((".", "__MACOSX", "~$")) for step in name.split("/"))
