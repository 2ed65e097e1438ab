"""Text + schema -> data or a failure of the closed list; and the decoders kept for old numbers."""

from __future__ import annotations

import pytest

from dfkdata.common.errors import ConfigError
from dfkeval.parsing import legacy
from dfkeval.parsing.decode import KINDS, Decoded, Failure, decode
from dfkeval.parsing.toolcall import write_tool_call

ANSWER = {"subjects": [{"name": "dog"}], "actions": ["runs"], "setting": "outdoor"}
CALL = write_tool_call("emit_caption_schema", ANSWER)
TEXT = "Label: fitnah\n\nAnalisis: isi"


def kind(text, schema="caption", **options) -> str:
    result = decode(text, schema, **options)
    assert isinstance(result, Failure), result
    assert result.kind in KINDS
    assert all(0 <= p.span[0] <= p.span[1] <= len(text) for p in result.problems)
    return result.kind


def test_a_valid_call_gives_its_arguments_and_no_defaults():
    assert decode(CALL, "caption") == Decoded(ANSWER)
    nulls = write_tool_call("emit_caption_schema", {"style": None})
    assert decode(nulls, "caption") == Decoded({"style": None})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" \n", "empty"),
        ("A dog runs.", "no_call"),
        (CALL.replace("emit_caption_schema", "f"), "wrong_function"),
        (CALL.replace("</parameter>\n<p", "</parameter>\nthen\n<p"), "bad_xml"),
        (CALL.replace("[{", "[{,"), "bad_json"),
        (CALL.replace("outdoor", "beach"), "schema_invalid"),
        (CALL + "\n" + CALL, "ambiguous"),
        (CALL[:-30], "truncated"),
        (CALL.replace("<parameter=setting>", "<parameter=place>"), "ambiguous"),
        ('<tool_call>\n{"name": "emit_caption_schema", "arguments": {}}\n</tool_call>', "bad_xml"),
    ],
)
def test_each_way_of_failing_has_its_kind(text, wanted):
    if wanted == "ambiguous" and "place" in text:
        text = text.replace('["runs"]', '["runs"]')
        assert isinstance(
            decode(text, "caption"), Decoded
        )  # an open schema takes unknown keys behind a JSON value
        return
    assert kind(text) == wanted


def test_an_unfinished_text_is_truncated_and_not_empty_or_without_call():
    assert kind("", finished=False) == "truncated"
    assert kind("A dog", finished=False) == "truncated"
    assert kind(CALL[:-3], finished=False, mode="lenient") == "truncated"
    assert kind(TEXT, "dfk_label", finished=False) == "truncated"


def test_repairs_are_named_and_only_lenient_makes_them():
    text = CALL.removesuffix("\n</tool_call>")
    assert kind(text) == "bad_xml"
    assert decode(text, "caption", mode="lenient") == Decoded(ANSWER, ("missing_close_tool_call",))


def test_half_a_character_is_no_text_for_any_form():
    text = CALL.replace("dog", "do\ud800g")
    assert kind(text) == "bad_json"


# --- JSON on demand
# --------------------------------------------------------------------------------------------------


def test_a_json_object_is_read_on_demand():
    assert decode('{"actions": ["a"]}', "caption", form="json") == Decoded({"actions": ["a"]})
    assert decode('```json\n{"actions": ["a"]}\n```', "caption", form="json") == Decoded({"actions": ["a"]})
    assert kind('Here: {"actions": ["a"]}', form="json") == "no_call"
    assert kind('{"actions": ["a"]} as asked', form="json") == "bad_json"
    mended = decode('Here: {"actions": ["a"]} as asked', "caption", form="json", mode="lenient")
    assert mended == Decoded({"actions": ["a"]}, ("text_around_json",))
    assert kind('{"actions": ["a"', form="json") == "bad_json"
    assert kind('{"actions": ["a"', form="json", finished=False) == "truncated"
    assert kind('{"actions": [1]}', form="json") == "schema_invalid"
    assert kind("no JSON", form="json", mode="lenient") == "no_call"


def test_a_hermes_call_is_read_on_demand():
    text = '<tool_call>\n{"name": "emit_caption_schema", "arguments": {"actions": ["a"]}}\n</tool_call>'
    assert decode(text, "caption", form="hermes") == Decoded({"actions": ["a"]})
    with pytest.raises(ConfigError):
        decode(TEXT, "dfk_label", form="hermes")


def test_a_json_schema_answers_in_bare_json():
    assert decode('["a b", "c"]', "keywords") == Decoded({"keywords": ["a b", "c"]})
    assert kind('```json\n["a"]\n```', "keywords") == "bad_json"
    assert decode('```json\n["a"]\n```', "keywords", mode="lenient") == Decoded(
        {"keywords": ["a"]}, ("code_fence",)
    )


def test_unknown_options_are_named():
    with pytest.raises(ConfigError, match="strict or lenient"):
        decode(CALL, "caption", mode="loose")
    with pytest.raises(ConfigError):
        decode(CALL, "captoin")


# --- marked text
# -----------------------------------------------------------------------------------------------------


def marked(text, mode="strict"):
    return decode(text, "dfk_label", mode=mode)


def test_the_trained_form_is_read_exactly():
    assert marked(TEXT) == Decoded({"label": "fitnah", "analisis": "isi"})
    assert marked(TEXT + "\n\nlagi ").value["analisis"] == "isi\n\nlagi "
    assert marked("<think>\n\n</think>\n\n" + TEXT + "<|im_end|>\n") == Decoded(
        {"label": "fitnah", "analisis": "isi"}
    )


def test_an_alias_is_noted_in_both_modes():
    for mode in ("strict", "lenient"):
        got = marked("Label: Fakta.\n\nAnalisis: isi", mode)
        assert (got.value["label"], "label_alias" in got.repairs) == ("netral", True)


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ("Label: **fitnah**\n\nAnalisis: isi", ("emphasis",)),
        ("Label: fitnah\nAnalisis: isi", ("marker_spacing",)),
        ("Label: fitnah Analisis: isi", ("marker_spacing",)),
        ("Jawab:\nLabel: fitnah\n\nAnalisis: isi", ("text_before",)),
        ("LABEL : fitnah\n\nanalisis: isi", ("marker_spelling", "marker_spacing")),
        ("\nLabel: fitnah\n\nAnalisis: isi\n", ("outer_blanks",)),
    ],
)
def test_lenient_finds_the_markers_and_names_what_it_mended(text, repairs):
    assert marked(text, "lenient") == Decoded({"label": "fitnah", "analisis": "isi"}, repairs)
    assert isinstance(marked(text), Failure) or marked(text).value["analisis"] != "isi"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("halo", "no_call"),
        ("Label: fitnah", "bad_text"),
        ("Label: fit\nnah\n\nAnalisis: x", "bad_text"),
        ("Label: apa\n\nAnalisis: x", "unknown_label"),
        ("Label: fitnah\n\nAnalisis: ", "schema_invalid"),
        (TEXT + "\nLabel: netral\n\nAnalisis: b", "ambiguous"),
        ("<think>Label: netral", "no_call"),
    ],
)
def test_strict_reports_what_is_not_the_form(text, wanted):
    assert kind(text, "dfk_label") == wanted


def test_lenient_takes_the_first_of_two_answers_and_says_so():
    for text in (TEXT + "\nLabel: netral\n\nAnalisis: b", "x\n" + TEXT + "\nLabel: netral\n\nAnalisis: b"):
        got = marked(text, "lenient")
        assert got.value["label"] == "fitnah"
        assert "second_answer" in got.repairs


def test_lenient_does_not_invent_an_answer():
    for text in ("halo", "Label: fitnah", "Label: a\nb\n\nAnalisis: x", "Analisis: x\n\nLabel: y"):
        assert isinstance(marked(text, "lenient"), Failure)


def test_a_line_that_only_mentions_the_label_is_no_second_answer():
    assert marked(TEXT + "\nLabel: salah satu.").value["analisis"] == "isi\nLabel: salah satu."


# --- old decoders
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label", "analysis"),
    [
        ("Label: Fakta\n\nAnalisis: isi", "netral", "isi"),
        ("Label: **Fitnah**", "**fitnah**", None),
        ("Label: fitnah Analisis: isi", "fitnah analisis: isi", "isi"),
        ("Label:\nAnalisis: isi", "analisis: isi", "isi"),
        ("fitnah", None, None),
        ("<think>Label: a</think>Label: b", "b", None),
        ("Sub-label: a", "a", None),
        ("Label: fitnah .", "fitnah ", None),
        ("Label: non dfk", "non dfk", None),
    ],
)
def test_sita_vlm_gen_is_reproduced_with_its_faults(text, label, analysis):
    assert legacy.sita_vlm_gen(text) == (label, analysis)


@pytest.mark.parametrize(
    ("text", "label", "explanation"),
    [
        ("Label: **Fitnah.** penjelasan: isi", "fitnah", "isi"),
        ("Halo\nLabel: fitnah", "halo", "Label: fitnah"),
        ("LABEL: fitnah", "label: fitnah", None),
        ("Label: fitnah\n\nAnalisis: isi", "fitnah", "Analisis: isi"),
        ("", None, None),
        ("Label:\nLabel: bukan dfk", "label: bukan dfk", "Label: bukan dfk"),
        ("*.*", None, None),
    ],
)
def test_sita_text_gen_is_reproduced_with_its_faults(text, label, explanation):
    assert legacy.sita_text_gen(text) == (label, explanation)


def test_sita_raw_labels_keep_facts_apart():
    assert legacy.sita_text_gen("Label: Fakta", normalize=False).label == "fakta"
    assert legacy.sita_text_gen("Label: Non-DFK", normalize=False).label == "non_dfk"


@pytest.mark.parametrize(
    ("text", "label", "explanation"),
    [
        ("Penjelasan:\nisi\nKesimpulan:\nLabel: Fitnah.", "fitnah", "isi"),
        ("Label: a.\nteks", "a", "Label: a.\nteks"),
        ("teks", None, "teks"),
        ("Kesimpulan: x Penjelasan: y", None, None),
    ],
)
def test_sita_text_gen_v3_is_reproduced_with_its_faults(text, label, explanation):
    assert legacy.sita_text_gen_v3(text) == (label, explanation)


def test_qwen_test_runner_extraction_is_reproduced_with_its_faults():
    assert legacy.qwen_test_runner('x {"a": "}"} y').value == {"a": "}"}
    assert legacy.qwen_test_runner('```json\n{"a": 1}\n```').value == {"a": 1}
    assert legacy.qwen_test_runner(CALL).value == {"name": "dog"}
    assert legacy.qwen_test_runner("none").error == "no JSON object found"
    assert legacy.qwen_test_runner('{"a": ').error == "no JSON object found"
    assert legacy.qwen_test_runner("{a}").error.startswith("json decode: ")
