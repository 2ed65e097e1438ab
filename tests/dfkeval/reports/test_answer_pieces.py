"""The pieces of an answer join to it, whatever it is, and say where fields and problems stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata import schemas
from dfkeval.reports.answer_pieces import pieces
from tests.helpers.runs import CAPTION, DFK, answer_text, caption_gold, dfk_gold

ANSWER = schemas.load("answer")
KEYWORDS = schemas.load("keywords")
PARTS = st.sampled_from(
    ["Label: ", "fitnah", "\n\nAnalisis: ", "<tool_call>", "<function=emit_caption_schema>", "<parameter=setting>",
     "\n",      "</parameter>", "</function>", "</tool_call>",
     '{"answer": "', '"}', "[", "]", "😀", "<think>", "</think>", "x"]
)  # fmt: skip


def fields_of(schema: schemas.Schema) -> dict[str, int]:
    return {name: at for at, name in enumerate(schema.answer.model_fields)}


@given(
    st.lists(PARTS, max_size=14).map("".join),
    st.sampled_from([DFK, CAPTION, ANSWER, KEYWORDS]),
    st.booleans(),
)
def test_pieces_join_to_the_answer(text: str, schema: schemas.Schema, finished: bool) -> None:
    found, problems = pieces(text, schema, fields_of(schema), finished=finished)
    assert "".join(piece for piece, _, _ in found) == text
    assert all(
        -1 <= field < len(schema.answer.model_fields) and -1 <= at < len(problems) for _, field, at in found
    )


@pytest.mark.parametrize(
    ("schema", "gold", "form"),
    [(DFK, dfk_gold(2), "schema"), (CAPTION, caption_gold(0), "schema"),
     (ANSWER, {"answer": "Jakarta, \"ya\""}, "schema"),
     (CAPTION, {"setting": "outdoor", "actions": ["run, jump"]}, "json")],
)  # fmt: skip
def test_each_field_of_a_good_answer_is_found(
    schema: schemas.Schema, gold: dict[str, object], form: str
) -> None:
    import json

    text = json.dumps(gold) if form == "json" else answer_text(gold, schema)
    found, problems = pieces(text, schema, fields_of(schema), form=form)  # type: ignore[arg-type]
    names = list(schema.answer.model_fields)
    assert {names[field] for _, field, _ in found if field >= 0} == set(gold)
    assert problems == []


def test_a_wrong_label_is_the_place_of_its_problem() -> None:
    text = "Label: bohong\n\nAnalisis: 😀 Tanpa bukti."
    found, problems = pieces(text, DFK, fields_of(DFK))
    assert [piece for piece, _, at in found if at >= 0] == ["bohong"]
    assert problems == [
        "unknown_label: 'bohong' names none of netral, disinformasi, fitnah, ujaran kebencian"
    ]
