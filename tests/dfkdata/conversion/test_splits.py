"""Selection, stratified and SITA-compatible splits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfkdata import convert
from dfkdata.common.errors import ConfigError
from dfkdata.conversion.selection import condition, sample
from tests.helpers.rows import caption, rows_of, write


def test_sita_mode_repeats_its_shuffle_bit_for_bit(tmp_path: Path) -> None:
    rows = [caption(n) for n in range(101)] + [caption(0)]
    convert(
        write(tmp_path / "in.jsonl", rows), tmp_path / "out", format="captions", split="sita", validation=0.2
    )
    expected = [row["caption"] for row in rows]
    random.Random(42).shuffle(expected)
    size = int(len(expected) * 0.8)
    found = [
        [row["meta"]["text"] for row in rows_of(tmp_path / "out", part)] for part in ("train", "validation")
    ]
    assert found == [expected[:size], expected[size:]]


def test_caps_of_sita_mode_count_as_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(50)])
    summary = convert(
        source, tmp_path / "out", format="captions", split="sita", validation=0.2, max_samples=8
    )
    assert summary.splits == {"train": 8, "validation": 8}
    assert summary.rows["left_out"] == 34
    with pytest.raises(ConfigError, match="belong to split=sita"):
        convert(source, tmp_path / "other", format="captions", max_samples=8)


def test_a_stratified_split_keeps_shares_and_groups(tmp_path: Path) -> None:
    rows = [caption(n, image_id=n // 3, kind="rare" if n // 3 % 10 == 0 else "common") for n in range(600)]
    source = write(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out"
    convert(source, out, format="captions", stratify="kind", validation=0.25, test=0.25)
    kinds = {row["caption"]: row["kind"] for row in rows}
    groups = []
    for part, share in (("train", 0.5), ("validation", 0.25), ("test", 0.25)):
        found = rows_of(out, part)
        counts = Counter(kinds[row["meta"]["text"]] for row in found)
        assert abs(counts["rare"] / 60 - share) <= 0.05
        assert abs(counts["common"] / 540 - share) <= 0.01
        groups.append({row["meta"]["group"] for row in found})
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_conditions_leave_rows_out_and_count_them(tmp_path: Path) -> None:
    rows = [caption(n, meta={"grounded": n % 2 == 0, "kind": str(n % 3)}) for n in range(30)] + ["broken"]
    source = write(tmp_path / "in.jsonl", rows)
    where = ["meta.grounded=true", "meta.kind!=1"]
    summary = convert(source, tmp_path / "out", format="captions", where=where, validation=0)
    assert summary.rows == {"in": 31, "out": 10, "quarantined": 1, "duplicates": 0, "left_out": 20}
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        condition("grounded")


def test_a_limit_takes_the_first_rows_and_a_sample_takes_seeded_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(40)])

    def texts(out: str, **how: object) -> list[str]:
        convert(source, tmp_path / out, format="captions", validation=0, limit=10, **how)  # type: ignore[arg-type]
        return [row["meta"]["text"] for row in rows_of(tmp_path / out, "train")]

    first = texts("a")
    assert first == [f"A dog number {n}." for n in range(10)]
    some = texts("b", sample=True)
    assert len(some) == 10 and some != first
    assert texts("c", sample=True) == some
    assert texts("d", sample=True, seed=7) != some


def test_a_stratified_sample_keeps_proportions() -> None:
    strata = ["a"] * 90 + ["b"] * 9 + ["c"]
    chosen = sample(strata, 50, 1)
    assert len(chosen) == 50
    assert Counter(strata[at] for at in chosen)["a"] == 45
    assert sample(strata, 50, 1) == chosen
    assert sample(strata, 1000, 1) == set(range(100))


def test_strata_know_a_group_by_the_name_that_rows_have(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Apa {n}?", "output": "Itu.", "case": f" c{n % 40} ", "kind": "x"} for n in range(80)
    ]
    summary = convert(
        rows, tmp_path / "out", format="alpaca", group_by="case", stratify="kind", validation=0.5
    )
    assert summary.splits["validation"] == 40


def asked(classes: int, rows: int) -> list[dict[str, str]]:
    return [
        {"instruction": f"Apa {at} {row}?", "output": "Itu.", "kind": f"k{at}"}
        for at in range(classes)
        for row in range(rows)
    ]


@pytest.mark.parametrize(
    ("classes", "rows", "validation", "test"),
    [(50, 4, 0.1, 0.0), (40, 5, 0.1, 0.1), (40, 6, 0.1, 0.0), (100, 3, 0.2, 0.0), (2, 500, 0.1, 0.2)],
)
def test_many_small_strata_give_their_share(
    classes: int, rows: int, validation: float, test: float, tmp_path: Path
) -> None:
    source = asked(classes, rows)
    split = convert(
        source, tmp_path, format="alpaca", stratify="kind", validation=validation, test=test
    ).splits
    assert split["validation"] == round(len(source) * validation)
    assert split.get("test", 0) == round(len(source) * test)


def test_the_first_rows_are_stratified_as_all_are(tmp_path: Path) -> None:
    rows = asked(2, 50)
    every = convert(rows, tmp_path / "all", format="alpaca", stratify="kind", validation=0.1)
    first = convert(rows, tmp_path / "first", format="alpaca", stratify="kind", validation=0.1, limit=100)
    assert rows_of(tmp_path / "all", "validation") == rows_of(tmp_path / "first", "validation")
    assert every.splits == first.splits and first.splits["validation"] == 10


def test_a_field_that_no_row_has_cannot_stratify(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row has a value 'kint' to stratify by"):
        convert(asked(2, 5), tmp_path, format="alpaca", stratify="kint", validation=0.2)
    with pytest.raises(ConfigError, match="both divide the rows"):
        convert(asked(2, 5), tmp_path, format="alpaca", stratify="kind", split_column="kind")


def test_rows_that_can_be_read_only_once_are_an_error_and_no_empty_conversion(tmp_path: Path) -> None:
    class Once:
        def __init__(self) -> None:
            self.rows = iter(asked(2, 5))

        def __iter__(self) -> Iterator[dict[str, str]]:
            return self.rows

    with pytest.raises(ConfigError, match="10 rows in the first pass and 0 in the second"):
        convert(Once(), tmp_path, format="alpaca", stratify="kind", validation=0.2)
