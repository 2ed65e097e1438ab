"""What training writes is what decoding reads: every schema and variant that is shipped, and the forms one by
one."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.rows.messages import answer_turn, write_text
from dfkdata.schemas import Prompt, Prose, Schema, TextForm, ToolForm
from dfkdata.schemas.dfk_text import Answer
from dfkeval.parsing.decode import Decoded, Failure, decode
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.testing.strategies import hostile_text, instances

SHIPPED = [
    schemas.load(name, variant)
    for name in plugins.names(schemas.FAMILY)
    for variant in plugins.load(schemas.FAMILY, name).VARIANTS
]
EVERY = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def prose(schema: Schema) -> st.SearchStrategy[str]:
    """Texts of several lines, hostile ones, and ones that hold the form's own markers and labels."""
    form = schema.form
    own = [part for pair in form.parts for part in (pair[0], *dict(form.printed), "\n\n", " ", "isi")]
    return st.one_of(hostile_text(), st.lists(st.sampled_from(own), max_size=5).map("".join), st.text())


def valid(schema: Schema, value: dict) -> bool:
    try:
        schema.answer.model_validate(value)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValidationError, UnicodeEncodeError):  # half of a surrogate pair is no text
        return False
    return True


def answers(schema: Schema) -> st.SearchStrategy[dict]:
    made = instances(schema.json_schema, hostile_text())
    for field, role in schema.roles.items():
        if isinstance(role, Prose):
            made = st.tuples(made, prose(schema)).map(lambda pair, field=field: {**pair[0], field: pair[1]})
    return made.filter(lambda value: valid(schema, value))


def written(value: dict, schema: Schema, nulls: str) -> tuple[str, dict]:
    """The answer as training writes it, and the value that stands in it."""
    turn = answer_turn(value, schema, nulls=nulls)
    if not isinstance(schema.form, ToolForm):
        return turn["content"][0]["text"], value
    call = turn["tool_calls"][0]["function"]
    return write_tool_call(call["name"], call["arguments"]), call["arguments"]


def excluded(text: str, value: dict, schema: Schema) -> str | None:
    """Why the text cannot say which value was written."""
    if isinstance(schema.form, ToolForm):
        nullable = [value.get(field) for field in ("style", "mood")]
        return "null spelled" if any(text in ("None", "null") for text in nullable) else None
    if "<|im_end|>" in text or "<|endoftext|>" in text:
        return "end of the turn"
    if not text.strip():
        return "blank"
    if text.lstrip().startswith("<think>"):
        return "think block"
    if not isinstance(schema.form, TextForm):
        return None
    long = [value[field] for field, role in schema.roles.items() if isinstance(role, Prose)]
    if any(part in dict(schema.form.printed) for part in long):
        return "prose printed as a label"
    markers = [marker.strip() for marker, _ in schema.form.parts if marker]
    return "marker inside" if any(marker in part for marker in markers for part in long) else None


@pytest.mark.parametrize("examples", [80, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("schema", SHIPPED, ids=lambda schema: f"{schema.name}/{schema.variant}")
def test_what_training_writes_is_decoded_to_the_same_value(schema, examples):
    counts: Counter[str] = Counter()

    @settings(EVERY, max_examples=examples)
    @given(answers(schema), st.sampled_from(["omit", "keep"]))
    def prove(value, nulls):
        text, wanted = written(value, schema, nulls)
        why = excluded(text, value, schema)
        got = decode(text, schema)
        counts[why or "read back"] += 1
        if why is None:
            assert got == Decoded(wanted)
        elif why == "marker inside":
            assert got == Decoded(wanted) or got.kind == "ambiguous"

    prove()
    assert counts["read back"] > counts.total() / 3, counts


# --- free text
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schema", "field"), [("answer", "answer"), ("summary", "ringkasan")])
def test_free_text_is_the_value_in_full(schema, field):
    text = "Satu.\n\nLabel: dua\n\n- tiga\n"
    for mode in ("strict", "lenient"):
        assert decode("<think>\n\n</think>\n\nisi<|im_end|>\n", schema, mode=mode) == Decoded({field: "isi"})
    assert decode(text, schema) == Decoded({field: text})
    assert decode("\n" + text, schema, mode="lenient") == Decoded({field: text.strip()}, ("outer_blanks",))


def test_free_text_of_which_nothing_is_visible_is_empty():
    for text in ("<think>\n\n</think>\n\n<|im_end|>", "<think>never closed", "<|im_end|>"):
        assert decode(text, "answer").kind == "empty"


# --- a form with an end
# -----------------------------------------------------------------------------------------------------

LONG = "satu\n\ndua\n- tiga"
EXPLAINED = f"Penjelasan:\n{LONG}\nKesimpulan:\nLabel: Fitnah."


def explained(text: str, mode: str = "strict") -> Decoded | Failure:
    return decode(text, "dfk_explained", mode=mode)


def test_the_first_value_may_have_several_lines_where_the_form_has_an_end():
    for mode in ("strict", "lenient"):
        assert explained(EXPLAINED, mode) == Decoded({"label": "fitnah", "analisis": LONG})


def test_a_marker_that_stands_twice_is_ambiguous_where_values_have_several_lines():
    inside = EXPLAINED.replace("dua", "x\nKesimpulan:\nLabel: Netral.")
    for text in (inside, EXPLAINED + "\n" + EXPLAINED.replace("Fitnah", "Netral")):
        assert explained(text).kind == "ambiguous"
    got = explained(EXPLAINED + "\n" + EXPLAINED.replace("Fitnah", "Netral"), "lenient")
    assert got == Decoded({"label": "fitnah", "analisis": LONG}, ("text_behind", "second_answer"))


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        (EXPLAINED.removesuffix("."), ("missing_end",)),
        (EXPLAINED + "\n", ("outer_blanks",)),
        (EXPLAINED + "\n\nSemoga membantu.", ("text_behind",)),
        (EXPLAINED.replace("Label: Fitnah", "Label: **Fitnah**"), ("emphasis",)),
        (EXPLAINED.replace("Penjelasan:\n", "penjelasan: "), ("marker_spelling",)),
        (EXPLAINED.replace("Kesimpulan:\nL", "**Kesimpulan:** L"), ("marker_spelling", "marker_spacing")),
        ("Baik.\n" + EXPLAINED, ("text_before",)),
    ],
)
def test_lenient_mends_a_form_with_an_end_and_names_how(text, repairs):
    assert explained(text, "lenient") == Decoded({"label": "fitnah", "analisis": LONG}, repairs)
    assert isinstance(explained(text), Failure)


def test_a_form_with_an_end_is_refused_without_its_markers():
    assert explained("halo.").kind == "no_call"
    assert explained("Penjelasan:\nisi").kind == "bad_text"
    assert explained("Penjelasan:\nisi\nKesimpulan:\nLabel:", "lenient").kind == "unknown_label"


# --- printed labels
# -----------------------------------------------------------------------------------------------------


def test_the_printed_spelling_of_a_label_is_no_alias_and_others_are():
    line = "Label: **{}.** penjelasan: isi"
    assert decode(line.format("Non-DFK"), "dfk_text_raw") == Decoded({"label": "non_dfk", "analisis": "isi"})
    for spelled in ("non_dfk", "bukan dfk"):
        got = decode(line.format(spelled), "dfk_text_raw")
        assert got == Decoded({"label": "non_dfk", "analisis": "isi"}, ("label_alias",))


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ("Label: **Fitnah.** penjelasan: isi\npenjelasan: lagi ", ("outer_blanks",)),
        ("label: **Fitnah.** penjelasan: isi\npenjelasan: lagi", ("marker_spelling",)),
        (
            "Label: Fitnah Penjelasan: isi\npenjelasan: lagi",
            ("marker_spelling", "marker_spacing"),
        ),
    ],
)
def test_lenient_reads_the_one_line_form_up_to_its_first_marker(text, repairs):
    wanted = {"label": "fitnah", "analisis": "isi\npenjelasan: lagi"}
    assert decode(text, "dfk_text", mode="lenient") == Decoded(wanted, repairs)


def test_a_marker_without_words_is_found_as_it_stands():
    form = TextForm((("Label: ", "label"), (" | ", "analisis")))
    schema = Schema("own", "own", Answer, Prompt(()), form)
    value = {"label": "fitnah", "analisis": "isi"}
    assert decode(write_text(value, form), schema) == Decoded(value)
    assert decode("x\nLabel: fitnah | isi", schema, mode="lenient") == Decoded(value, ("text_before",))
    assert isinstance(decode("x\nLabel: fitnah isi", schema, mode="lenient"), Failure)


def test_a_marker_within_a_line_that_stands_twice_is_ambiguous_where_the_form_has_an_end():
    form = TextForm((("Isi: ", "analisis"), (" | ", "label")), end=".")
    schema = Schema("own", "own", Answer, Prompt(()), form)
    assert decode("Isi: a | Fitnah.", schema) == Decoded(
        {"label": "fitnah", "analisis": "a"}, ("label_alias",)
    )
    assert decode("Isi: a | b | Fitnah.", schema).kind == "ambiguous"
    assert decode("Isi: a | b | Fitnah.", schema, mode="lenient").kind == "unknown_label"
