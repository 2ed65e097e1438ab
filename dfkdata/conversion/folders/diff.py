"""Say what differs between two finished conversions.

How it works. Each row is read once and becomes numbers (`row_table`), which are compared part by part (`comparison`).
Pictures, videos and audio count by their bytes, wherever they lie, and the line of the raw file that a row came from
does not count. Rows of layouts without ids go by what they ask and show.

Guarantees:
    - Memory does not grow with the number of rows (`row_table`).
    - Two folders are equal only if everything could be compared: a picture that cannot be read is a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.conversion import settings
from dfkdata.conversion.folders.comparison import ASPECTS, EXAMPLES, NOWHERE, Pair, TableDifference
from dfkdata.conversion.folders.reading import WHOLE, opened
from dfkdata.conversion.folders.row_table import parts_for
from dfkdata.conversion.folders.side import NAMES, CompareOptions, LabelNames, Side
from dfkdata.rows.messages import before_answer
from dfkdata.rows.record import Record, shorten

LabelTable = dict[str, dict[str, dict[str, tuple[int, int]]]]
"""Field -> label -> split -> rows in the first and in the second folder."""


@dataclass(frozen=True)
class DiffExample:
    """A row that differs.

    Attributes:
        id: Its id; empty in layouts without ids.
        first: Its place in the first folder, such as "train.jsonl:7"; empty if it is not there.
        second: Its place in the second folder.
        changed: What differs: labels, prompt, answer, media, facts.
        before: The beginning of what changed, or of its question, in the first folder.
        after: The same in the second folder.
    """

    id: str
    first: str
    second: str
    changed: tuple[str, ...]
    before: str
    after: str


@dataclass(frozen=True)
class FolderDiff:
    """What differs between two folders of rows.

    Attributes:
        folders: The two, as they were named.
        rows: Split -> rows in the first and in the second.
        same: Rows that are the same in both.
        added: Rows that only the second has.
        removed: Rows that only the first has.
        moved: Rows in another split; they may have changed, too.
        moves: (split in the first, split in the second) -> rows.
        changed: Rows of which something differs.
        aspects: What differs (labels, prompt, answer, media, facts) -> changed rows.
        labels: Field -> label -> split -> rows in the first and in the second.
        label_changes: (field, label before, label after) -> rows; a label is empty if there is none.
        twice: Number of ids that stand more than once in the first and in the second.
        missing: Number of media that cannot be read in the first and in the second.
        settings: (setting, value in the first, value in the second); None for one that was not given.
        examples: "added", "removed", "changed", "moved", "twice in the first", "twice in the second" -> rows.
        notes: What could not be compared, and why.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert, diff_folders
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia."}]
        >>> folders = [tempfile.mkdtemp() + "/out" for _ in range(2)]
        >>> for seed, folder in enumerate(folders):
        ...     _ = convert(rows, folder, format="alpaca", validation=0, seed=seed)
        >>> found = diff_folders(*folders)
        >>> found.rows, found.same, found.settings
        ({'train': (1, 1), 'validation': (0, 0)}, 1, (('seed', 0, 1),))
    """

    folders: tuple[str, str]
    rows: dict[str, tuple[int, int]]
    same: int
    added: int
    removed: int
    moved: int
    moves: dict[tuple[str, str], int]
    changed: int
    aspects: dict[str, int]
    labels: LabelTable
    label_changes: dict[tuple[str, str, str], int]
    twice: tuple[int, int]
    missing: tuple[int, int]
    settings: tuple[settings.Difference, ...]
    examples: dict[str, tuple[DiffExample, ...]]
    notes: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs and everything could be compared."""
        rows = self.added or self.removed or self.moved or self.changed
        return not (rows or self.settings or any(self.missing))


def diff_folders(
    first: str | Path,
    second: str | Path,
    *,
    examples: int = EXAMPLES,
    progress: Callable[[int], None] | None = None,
) -> FolderDiff:
    """Compare two folders that `convert` wrote, or two files of rows, by the ids of their rows.

    Args:
        first: A folder, or a file of rows (JSONL, packed or not, or Parquet). Against a file, splits do not count.
        second: What it is compared with.
        examples: How many rows of each kind of difference to show.
        progress: Called with the number of rows read, from time to time.

    Returns:
        What differs.

    Raises:
        ConfigError: There is no such folder, or the layout of its rows is not known.
        DataError: A file cannot be read, a row has no id, or names a picture that it may not name.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert, diff_folders
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia.", "id": "1"}]
        >>> folders = [tempfile.mkdtemp() + "/out" for _ in range(2)]
        >>> for folder, answer in zip(folders, ("Halo, dunia.", "Halo!")):
        ...     _ = convert([rows[0] | {"output": answer}], folder, format="alpaca", validation=0)
        >>> found = diff_folders(*folders)
        >>> found.changed, found.aspects["answer"], found.examples["changed"][0].after, found.is_equal
        (1, 1, 'Halo!', False)
    """
    if examples < 0:
        raise ConfigError(f"examples: {examples} is below 0; give a number of rows to show")
    one, two = opened(first), opened(second)
    fields = {name for folder in (one, two) if folder.manifest is not None for name in folder.manifest.labels}
    reading = CompareOptions(
        by_id=one.is_named and two.is_named,
        by_split=WHOLE not in one.files and WHOLE not in two.files,
        labels=LabelNames(fields),
        progress=progress,
    )
    parts = parts_for(max(one.size, two.size))
    with ExitStack() as stack:
        sides = Side(one, parts, reading), Side(two, parts, reading)
        for side in sides:
            stack.enter_context(side.table)
        sides[1].read(sides[0].read())
        found = TableDifference((sides[0].splits, sides[1].splits), examples)
        found.compare(sides[0].table, sides[1].table)
    return _result(sides, found, reading)


def _result(sides: tuple[Side, Side], found: TableDifference, reading: CompareOptions) -> FolderDiff:
    names = [name for number, name in enumerate(NAMES) if any(number in side.splits for side in sides)]
    one, two = (side.folder for side in sides)
    known = one.manifest is not None and two.manifest is not None
    config = [side.manifest.config if side.manifest is not None else None for side in (one, two)]
    counts = found.counts
    return FolderDiff(
        folders=(str(one.path), str(two.path)),
        rows={name: (sides[0].rows[name], sides[1].rows[name]) for name in names},
        same=counts["same"],
        added=counts["added"],
        removed=counts["removed"],
        moved=counts["moved"],
        moves={(NAMES[a], NAMES[b]): rows for (a, b), rows in sorted(found.moves.items())},
        changed=counts["changed"],
        aspects={name: counts[name] for name in ASPECTS if counts[name]},
        labels=_labels(sides, reading, names),
        label_changes=_label_changes(found, reading),
        twice=(found.twice[0], found.twice[1]),
        missing=(sides[0].missing, sides[1].missing),
        settings=tuple(settings.differences(*config)) if known else (),
        examples=_examples(sides, found, reading),
        notes=tuple(_notes(sides, reading)),
    )


def _notes(sides: tuple[Side, Side], reading: CompareOptions) -> list[str]:
    notes = list(dict.fromkeys(side.folder.note for side in sides if side.folder.note))
    if not reading.by_id:
        nameless = next(side.folder for side in sides if not side.folder.is_named)
        notes.append(
            f"rows of the layout {nameless.layout} keep no ids, labels and facts: they go by what they ask and show"
        )
    if not reading.by_split:
        notes.append("a file is compared, so splits do not count")
    for side in sides:
        if side.missing:
            notes.append(f"{side.missing} media files cannot be read, such as {side.first_missing}")
    return notes


def _labels(sides: tuple[Side, Side], reading: CompareOptions, splits: list[str]) -> LabelTable:
    """Return the labels of both sides next to each other, in alphabetical order."""
    counts: Counter[tuple[str, str, str, int]] = Counter()
    for number, side in enumerate(sides):
        for field, label, split, rows in _label_rows(side, reading):
            counts[field, label, split, number] += rows
    table: LabelTable = {}
    for field, label in sorted({key[:2] for key in counts}):
        table.setdefault(field, {})[label] = {
            split: (counts[field, label, split, 0], counts[field, label, split, 1]) for split in splits
        }
    return table


def _label_rows(side: Side, reading: CompareOptions) -> list[tuple[str, str, str, int]]:
    """Return (field, label, split, rows) of a side, as its rows say, or its manifest where they keep no labels."""
    if side.folder.is_named:
        names = reading.labels.labels()
        return [
            (*label, split, rows) for (split, number), rows in side.labels.items() for label in names[number]
        ]
    return [
        (field, label, split if reading.by_split else WHOLE, rows)
        for field, splits in side.label_counts.items()
        for split, labels in splits.items()
        if split in NAMES
        for label, rows in labels.items()
    ]


def _label_changes(found: TableDifference, reading: CompareOptions) -> dict[tuple[str, str, str], int]:
    names, changes = reading.labels.labels(), Counter[tuple[str, str, str]]()
    for (before, after), rows in found.labels.items():
        old, new = dict(names[before]), dict(names[after])
        for field in sorted(old.keys() | new.keys()):
            if old.get(field) != new.get(field):
                changes[field, old.get(field, ""), new.get(field, "")] += rows
    return dict(sorted(changes.items(), key=lambda entry: (-entry[1], entry[0])))


def _examples(
    sides: tuple[Side, Side], found: TableDifference, reading: CompareOptions
) -> dict[str, tuple[DiffExample, ...]]:
    pairs = [pair for kind in found.examples.values() for pair in kind]
    records = [
        sides[0].records({pair.first for pair in pairs} - {NOWHERE}),
        sides[1].records({pair.second for pair in pairs} - {NOWHERE}),
    ]
    return {
        kind: tuple(_example(pair, sides, records, reading) for pair in found.examples[kind])
        for kind in sorted(found.examples)
        if found.examples[kind]
    }


def _example(
    pair: Pair, sides: tuple[Side, Side], records: list[dict[int, Record]], reading: CompareOptions
) -> DiffExample:
    first, second = records[0].get(pair.first), records[1].get(pair.second)
    record = first or second
    aspect = pair.aspects[0] if pair.aspects else "prompt"
    return DiffExample(
        id=record.id if record is not None and reading.by_id else "",
        first=sides[0].where(pair.first) if first is not None else "",
        second=sides[1].where(pair.second) if second is not None else "",
        changed=pair.aspects,
        before=_excerpt(first, aspect, reading),
        after=_excerpt(second, aspect, reading),
    )


def _excerpt(record: Record | None, aspect: str, reading: CompareOptions) -> str:
    """Return the beginning of one aspect of a row."""
    if record is None:
        return ""
    turns = record.messages or []
    asked = before_answer(turns)
    match aspect:
        case "labels":
            return shorten(", ".join(value for _, value in reading.labels.of(record)))
        case "media":
            return shorten(", ".join((*record.images, *record.videos, *record.audios)))
        case "facts":
            return shorten({"group": record.group, **record.meta})
        case "answer":
            return shorten(_text(turns[len(asked) :]))
        case _:
            return shorten(_text([turn for turn in asked if turn.get("role") == "user"]))


def _text(turns: list[dict[str, Any]]) -> str:
    texts = []
    for turn in turns:
        texts += [part["text"] for part in turn["content"] if part.get("type") == "text"]
        texts += [str(call.get("function")) for call in turn.get("tool_calls") or ()]
    return " ".join(texts)


def facts(found: FolderDiff) -> dict[str, Any]:
    """Return a comparison as plain data for JSON."""

    def two(values: tuple[Any, Any]) -> dict[str, Any]:
        return {"first": values[0], "second": values[1]}

    return {
        "first": found.folders[0],
        "second": found.folders[1],
        "equal": found.is_equal,
        "rows": {name: two(rows) for name, rows in found.rows.items()},
        "same": found.same,
        "added": found.added,
        "removed": found.removed,
        "changed": {"rows": found.changed, **found.aspects},
        "moved": {
            "rows": found.moved,
            "moves": [{"from": a, "to": b, "rows": rows} for (a, b), rows in found.moves.items()],
        },
        "labels": {
            field: {label: {split: two(n) for split, n in of.items()} for label, of in labels.items()}
            for field, labels in found.labels.items()
        },
        "label_changes": [
            {"field": field, "from": before, "to": after, "rows": rows}
            for (field, before, after), rows in found.label_changes.items()
        ],
        "ids_twice": two(found.twice),
        "media_missing": two(found.missing),
        "settings": [{"setting": name, **two((a, b))} for name, a, b in found.settings],
        "examples": {
            kind: [{name: getattr(row, name) for name in DiffExample.__dataclass_fields__} for row in rows]
            for kind, rows in found.examples.items()
        },
        "notes": [*found.notes],
    }
