"""Which raw rows take part."""

from __future__ import annotations

import pytest

from dfkdata.common.errors import ConfigError
from dfkdata.conversion.selection import RowFilter, condition


def test_a_filter_counts_the_rows_that_match_and_takes_the_chosen_of_those() -> None:
    rows = [{"lang": "id", "n": n} if n % 2 else {"lang": "en"} for n in range(8)]
    chooser = RowFilter([condition("lang=id")])
    chooser.chosen = {0, 2}
    assert [row["n"] for row in rows if chooser.takes(row)] == [1, 5]
    assert chooser.matching == 4 and not chooser.takes_all
    assert RowFilter(()).takes_all and RowFilter([condition("a=1")]).matches([]), (
        "no object: a reject, not left out"
    )


@pytest.mark.parametrize(
    ("text", "row", "holds"),
    [
        ("a.b=true", {"a": {"b": True}}, True),
        ("a.b=true", {"a": {"b": "true"}}, True),
        ("a=3", {"a": 3}, True),
        ("a!=3", {"a": 3}, False),
        ("a!=3", {}, True),
        ("a=null", {}, True),
        ("a=b=c", {"a": "b=c"}, True),
    ],
)
def test_a_condition_is_about_text_or_json(text: str, row: dict[str, object], holds: bool) -> None:
    assert condition(text).holds(row) is holds


@pytest.mark.parametrize("text", ["lang", "=id", "!=id", ""])
def test_a_condition_without_a_field_or_a_value_says_how_to_write_it(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--where .*: write it as FIELD=VALUE or FIELD!=VALUE, for example"
    ):
        condition(text)
