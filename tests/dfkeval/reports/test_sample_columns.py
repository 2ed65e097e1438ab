"""Columns of the index hold facts that tell rows apart, whatever the rows call them."""

from __future__ import annotations

from msgspec.structs import replace

from dfkeval.reports.sample_columns import MOST_FACTS, SLICES, FactColumns
from tests.helpers.runs import DFK, sample_of

SAMPLE = sample_of(0, DFK)


def slices_of(*facts: dict[str, str]) -> dict[str, dict[str, object]]:
    columns = FactColumns()
    for fact in facts:
        columns.add(replace(SAMPLE, slices=fact))
    return columns.slices()


def test_a_fact_with_few_values_is_a_column_and_a_row_without_it_has_the_empty_one() -> None:
    found = slices_of({"lang": "id"}, {}, {"lang": "en", "late": "x"})
    assert found["lang"] == {"values": ["", "en", "id"], "rows": [2, 0, 1]}
    assert found["late"] == {"values": ["", "x"], "rows": [0, 0, 1]}


def test_a_fact_that_is_always_the_same_or_always_another_is_none() -> None:
    rows = [{"same": "a", "number": str(at), "two": str(at % 2)} for at in range(SLICES + 5)]
    assert list(slices_of(*rows)) == ["two"]


def test_a_name_of_its_own_in_every_row_costs_no_more_than_the_first_names() -> None:
    found = slices_of(*({f"name{at}": "x"} for at in range(1, 5 * MOST_FACTS)))
    assert list(found) == [f"name{at}" for at in range(1, MOST_FACTS + 1)]
