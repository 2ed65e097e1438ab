"""Tables of rows are compared as a plain search over all rows would compare them, in any number of parts."""

from __future__ import annotations

import random
from collections import Counter
from itertools import zip_longest

import pytest

from dfkdata.conversion.folders.comparison import ASPECTS, TableDifference
from dfkdata.conversion.folders.row_table import RowNumbers, RowTable, parts_for, place_of, split_and_line

SPLITS = [0, 1]


def drawn(draw: random.Random, ids: int, rows: int) -> list[RowNumbers]:
    """Rows of few ids and contents in two files, so that ids repeat, move and change."""
    lines = [0, 0]
    made = []
    for _ in range(rows):
        split = draw.randrange(2)
        lines[split] += 1
        key = draw.randrange(ids) * (2**64 // ids)
        content = [draw.randrange(2) for _ in range(4)]
        made.append(RowNumbers(key, *content, place_of(split, lines[split]), draw.randrange(3)))
    return made


def content(row: RowNumbers) -> tuple[int, ...]:
    return tuple(getattr(row, name) for name in ASPECTS)


def expected(first: list[RowNumbers], second: list[RowNumbers]) -> Counter[str]:
    """Pair the rows of each id by the documented rule, one by one."""
    counts = Counter[str]()
    for key in {row.key for row in (*first, *second)}:
        ones = sorted((row for row in first if row.key == key), key=lambda row: row.place)
        others = sorted((row for row in second if row.key == key), key=lambda row: row.place)
        pairs: list[tuple[RowNumbers, RowNumbers]] = []
        for strict in (True, False):
            for one in [*ones]:
                same = [
                    other
                    for other in others
                    if content(other) == content(one)
                    and (not strict or split_and_line(other.place)[0] == split_and_line(one.place)[0])
                ]
                if same:
                    pairs.append((one, same[0]))
                    ones.remove(one)
                    others.remove(same[0])
        for one, other in zip_longest(ones, others):
            if one is None or other is None:
                counts["added" if one is None else "removed"] += 1
            else:
                pairs.append((one, other))
        for one, other in pairs:
            moved = split_and_line(one.place)[0] != split_and_line(other.place)[0]
            counts["moved"] += moved
            counts["changed"] += content(one) != content(other)
            counts["same"] += content(one) == content(other) and not moved
            counts.update(name for name in ASPECTS if getattr(one, name) != getattr(other, name))
    return counts


def found(first: list[RowNumbers], second: list[RowNumbers], parts: int) -> TableDifference:
    tables = RowTable(parts), RowTable(parts)
    for table, rows in zip(tables, (first, second), strict=True):
        for row in rows:
            table.add(row)
    with tables[0], tables[1]:
        difference = TableDifference((SPLITS, SPLITS), examples=3)
        difference.compare(*tables)
    return difference


@pytest.mark.parametrize("seed", range(12))
def test_tables_differ_as_a_search_over_all_rows_says(seed: int) -> None:
    draw = random.Random(seed)
    ids = draw.choice([3, 20, 80])
    first, second = (drawn(draw, ids, draw.randrange(60)) for _ in range(2))
    whole = found(first, second, 1)
    assert +whole.counts == +expected(first, second)
    repeated = [sum(n > 1 for n in Counter(row.key for row in rows).values()) for rows in (first, second)]
    assert whole.twice == repeated
    in_parts = found(first, second, 7)
    assert in_parts.counts == whole.counts
    assert in_parts.examples == whole.examples
    assert (in_parts.moves, in_parts.labels, in_parts.twice) == (whole.moves, whole.labels, whole.twice)


def test_rows_of_full_buffers_come_back_from_disk() -> None:
    rows = [RowNumbers(at * 2**44, at, 1, 2, 3, place_of(1, at), 4) for at in range(3000)]
    with RowTable(3) as table:
        for row in rows:
            table.add(row)
        back = [tuple(map(int, row)) for part in range(3) for row in table.part(part)]
        assert sum(map(len, table._buffers)) < 52 * len(rows) / 2  # most of them are on disk
    assert sorted(back) == sorted(map(tuple, rows))


def test_larger_files_are_divided_into_more_parts() -> None:
    assert [parts_for(size) for size in (0, 1 << 20, 160 << 20, 1 << 50)] == [1, 1, 10, 1024]
