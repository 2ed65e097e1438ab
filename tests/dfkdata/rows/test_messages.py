"""Prompts and targets, byte for byte, of the systems that published adapters come from; and the way back from
disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, load_rows, prompt, schemas, training_row
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.rows.messages import read_text, write_text
from dfkdata.schemas import BaseAnswer, TextForm

POST = Record(
    id="p",
    group="g",
    source="f:1",
    fields={"title": "Banjir", "text": "Air naik."},
    images=("a.png",),
    gold={"label": "netral", "analisis": "Sesuai."},
)
VIOLATION = (
    "Anda adalah seorang analis konten media sosial ahli. Diberikan tangkapan layar dari sebuah {}, tentukan "
    "label kategori pelanggaran dan berikan analisis detail mengenai pelanggaran yang ditemukan."
)


def flat(messages: list[dict[str, Any]]) -> str:
    """The turns as a plain template renders them: parts one after the other."""
    return "".join(
        f"<{turn['role']}>" + "".join(part.get("text", "<image>") for part in turn["content"])
        for turn in messages
    )


def test_the_default_post_prompt_is_what_the_adapter_was_trained_on() -> None:
    row = training_row(POST, schemas.load("dfk_label"))
    instruction = VIOLATION.format("unggahan media sosial")
    asked = f"<user>{instruction}Judul: Banjir\nKonteks: Air naik.<image>"
    assert flat(row["messages"]) == asked + "<assistant>Label: netral\n\nAnalisis: Sesuai."
    assert [part["type"] for part in row["messages"][0]["content"]] == ["text", "text", "image"]


def test_the_card_variant_is_what_the_model_card_prints() -> None:
    row = training_row(POST, schemas.load("dfk_label", "card"))
    instruction = VIOLATION.format("unggahan media sosial")
    asked = f"<user>{instruction}\nJudul: Banjir\nKonteks: Air naik.\n<image>"
    assert flat(row["messages"]) == asked + "<assistant>Label: netral\nAnalisis: Sesuai."


def test_claims_and_image_only_ask_with_their_own_instruction() -> None:
    record = Record(
        id="p",
        group="g",
        source="f:1",
        images=("a", "b"),
        fields={"ringkasan": "R", "klaim": "", "fakta": "F"},
    )
    instruction = VIOLATION.format("konten")
    asked = prompt(record, schemas.load("dfk_label", "claims"))
    assert flat(asked) == f"<user>{instruction}Ringkasan: R\nFakta: F<image><image>"
    assert (
        flat(prompt(record, schemas.load("dfk_label", "image_only"))) == f"<user>{instruction}<image><image>"
    )


def test_a_summary_is_asked_with_its_instruction_and_the_image() -> None:
    record = Record(id="p", group="g", source="f:1", images=("a",), gold={"ringkasan": "R"})
    asked = "<user>Berikan ringkasan dari konten yang ditampilkan pada tangkapan layar berikut.<image>"
    assert flat(training_row(record, schemas.load("summary"))["messages"]) == asked + "<assistant>R"


def test_a_caption_without_text_is_asked_about_its_image_and_nulls_are_left_out() -> None:
    schema = schemas.load("caption")
    record = Record(id="c", group="g", source="f:1", images=("a",), gold={"subjects": [], "mood": None})
    asked, answer = training_row(record, schema)["messages"][1:]
    assert flat([asked]) == "<user><image>Extract the structured representation of what this image shows."
    assert answer["tool_calls"][0]["function"] == {
        "name": "emit_caption_schema",
        "arguments": {"subjects": []},
    }
    kept = training_row(record, schema, nulls="keep")
    assert kept["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"subjects": [], "mood": None}
    assert kept["meta"]["gold"] == {"subjects": []}


def test_a_caption_text_is_asked_as_it_is() -> None:
    record = Record(id="c", group="g", source="f:1", fields={"caption": "two dogs"})
    system, user = prompt(record, schemas.load("caption"))
    assert flat([user]) == "<user>two dogs"
    assert system["content"][0]["text"].splitlines() == [
        "You are a caption-structuring assistant. Convert each",
        "image caption into JSON matching the schema. Only include subjects, attributes,",
        "and actions explicitly mentioned in the caption. Use null/[] for unspecified",
        "fields.",
    ]


PRINTED_SCHEMA = """{"$defs": {"SubjectValue": {"description": "A single entity in the caption.",
"properties": {"name": {"maxLength": 64, "minLength": 1, "title": "Name", "type": "string"}, "attributes":
{"items": {"type": "string"}, "maxItems": 8, "title": "Attributes", "type": "array"}}, "required": ["name"],
"title": "SubjectValue", "type": "object"}}, "properties": {"subjects": {"items": {"$ref":
"#/$defs/SubjectValue"}, "maxItems": 8, "title": "Subjects", "type": "array"}, "actions": {"items": {"type":
"string"}, "maxItems": 8, "title": "Actions", "type": "array"}, "setting": {"default": "unknown", "enum":
["indoor", "outdoor", "unknown"], "title": "Setting", "type": "string"}, "style": {"anyOf": [{"maxLength": 64,
"type": "string"}, {"type": "null"}], "default": null, "title": "Style", "const": null}, "mood": {"anyOf":
[{"maxLength": 64, "type": "string"}, {"type": "null"}], "default": null, "title": "Mood", "const": null}},
"title": "Caption", "type": "object"}"""


def test_the_caption_tool_is_the_printed_one_key_for_key_and_in_order() -> None:
    (tool,) = schemas.load("caption").tools or []
    assert json.dumps(tool["function"]["parameters"]) == json.dumps(json.loads(PRINTED_SCHEMA))


def test_enhanced_captions_may_fill_style_and_mood() -> None:
    parameters = schemas.load("caption_enhance").json_schema
    assert "const" not in parameters["properties"]["mood"]
    schemas.load("caption_enhance").answer.model_validate({"mood": "calm"})


@pytest.mark.parametrize("name", plugins.names("dfkdata.schemas"))
def test_every_schema_keeps_the_contract(name: str) -> None:
    module = plugins.load("dfkdata.schemas", name)
    assert issubclass(module.Answer, BaseAnswer)
    for variant in module.VARIANTS:
        loaded = schemas.load(name, variant)
        assert loaded.roles, "an answer without roles cannot be scored"
        assert set(loaded.json_schema["properties"]) == set(module.Answer.model_fields)
        assert schemas.load(module).answer is module.Answer
    with pytest.raises(ConfigError, match="has no variant"):
        schemas.load(name, "nonsense")


FORMS = [
    (name, variant, loaded.form)
    for name in plugins.names("dfkdata.schemas")
    for variant in plugins.load("dfkdata.schemas", name).VARIANTS
    if isinstance((loaded := schemas.load(name, variant)).form, TextForm)
]


@pytest.mark.parametrize(("name", "variant", "form"), FORMS, ids=[f"{a}-{b}" for a, b, _ in FORMS])
def test_what_a_text_form_writes_it_reads(name: str, variant: str, form: TextForm) -> None:
    gold = {field: "ujaran kebencian" if field == "label" else "Satu.\nDua: tiga." for _, field in form.parts}
    printed = dict(form.printed)
    expected = {field: printed.get(value, value) for field, value in gold.items()}
    assert read_text(write_text(gold, form), form) == expected
    assert read_text("something else", form) in (None, {form.parts[0][1]: "something else"})


def test_the_answer_forms_of_claims_are_the_published_ones() -> None:
    gold = {"label": "ujaran kebencian", "analisis": "Menghina."}
    bold, turned = schemas.load("dfk_text").form, schemas.load("dfk_explained").form
    assert isinstance(bold, TextForm) and isinstance(turned, TextForm)
    assert write_text(gold, bold) == "Label: **Ujaran Kebencian.** penjelasan: Menghina."
    assert write_text(gold, turned) == "Penjelasan:\nMenghina.\nKesimpulan:\nLabel: Ujaran Kebencian."


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"id": "1"}', '{"id": "1", "messages": 5}'])
def test_a_line_that_is_no_row_is_an_error_with_its_place(line: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"id": "0", "messages": []}}\n{line}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        list(load_rows(tmp_path / "rows.jsonl"))


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(load_rows("nowhere.jsonl"))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"messages": ["hello"]}, "a turn of `messages` is not an object with a `role`"),
        ({"messages": [{"content": "x"}]}, "a turn of `messages` is not an object with a `role`"),
        ({"images": "a.png"}, "`images` is not a list of paths"),
        ({"videos": [1]}, "`videos` is not a list of paths"),
    ],
)
def test_a_row_of_the_wrong_shape_is_named_with_its_line(
    tmp_path: Path, part: dict[str, Any], told: str
) -> None:
    row = {"id": "a", "messages": [{"role": "user", "content": "x"}]} | part
    (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=f"x.jsonl:1: {told}"):
        list(load_rows(tmp_path / "x.jsonl"))
