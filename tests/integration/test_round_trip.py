"""Raw values -> prompt and target as the model sees them -> the text it should say -> the same values again.

The golden texts are what the published adapters were trained on: the DFK form as its training code renders
it, and the caption call with the tool that the json-captioner model card prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from transformers.utils.chat_template_utils import render_jinja_template  # noqa: E402 (after importorskip)

from dfkdata import Record, prompt, training_row  # noqa: E402
from dfkdata.schemas import load  # noqa: E402
from dfkeval import decode  # noqa: E402
from dfktrain import tiny  # noqa: E402
from tests.helpers.places import GOLDEN  # noqa: E402

INSTRUCTION = (
    "Anda adalah seorang analis konten media sosial ahli. Diberikan tangkapan layar dari sebuah unggahan "
    "media sosial, tentukan label kategori pelanggaran dan berikan analisis detail mengenai pelanggaran yang "
    "ditemukan."
)
POST = Record(
    id="1",
    group="g",
    source="posts.csv:2",
    fields={"title": "Judul satu", "text": "Isi dua"},
    images=("a.png",),
    gold={"label": "fitnah", "analisis": "Menuduh tanpa bukti.\nBaris dua."},
)
CAPTION_TOOL = GOLDEN / "schemas" / "caption_tool.json"


def _render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **options: Any) -> str:
    template = (tiny.path() / "chat_template.jinja").read_text(encoding="utf-8")
    texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, **options)
    return str(texts[0])


def test_a_dfk_row_is_rendered_as_the_published_adapters_training_code_renders_it() -> None:
    row = training_row(POST, load("dfk_label"))
    assert _render(row["messages"]) == (
        f"<|im_start|>user\n{INSTRUCTION}Judul: Judul satu\nKonteks: Isi dua"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "Label: fitnah\n\nAnalisis: Menuduh tanpa bukti.\nBaris dua.<|im_end|>\n"
    )


def test_the_card_variant_is_rendered_as_the_model_card_prints_it() -> None:
    row = training_row(POST, load("dfk_label", "card"))
    assert _render(row["messages"]) == (
        f"<|im_start|>user\n{INSTRUCTION}\nJudul: Judul satu\nKonteks: Isi dua\n"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "Label: fitnah\nAnalisis: Menuduh tanpa bukti.\nBaris dua.<|im_end|>\n"
    )


def test_the_caption_tool_equals_the_printed_one_byte_for_byte() -> None:
    assert json.dumps(load("caption").tools) == json.dumps(
        json.loads(CAPTION_TOOL.read_text(encoding="utf-8"))
    )


def test_a_caption_row_asks_with_its_text_and_an_image_alone_with_a_fixed_question() -> None:
    schema = load("caption")
    text = Record(id="1", group="1", source="x:1", fields={"caption": "A long table."})
    image = Record(id="1", group="1", source="x:1", images=("a.png",))
    both = Record(id="1", group="1", source="x:1", fields={"caption": "A long table."}, images=("a.png",))
    ask = "Extract the structured representation of what this image shows."
    assert [part.get("text", "<image>") for part in prompt(text, schema)[-1]["content"]] == ["A long table."]
    assert [part.get("text", "<image>") for part in prompt(image, schema)[-1]["content"]] == ["<image>", ask]
    assert [part.get("text", "<image>") for part in prompt(both, schema)[-1]["content"]] == [
        "<image>",
        "A long table.",
    ]


GOLD = {
    "subjects": [{"name": "table", "attributes": ["long"]}],
    "actions": [],
    "setting": "indoor",
    "style": None,
}


@pytest.mark.parametrize(("nulls", "written"), [("omit", False), ("keep", True)])
def test_null_slots_are_left_out_of_targets_unless_they_are_kept(nulls: Any, written: bool) -> None:
    record = Record(id="1", group="1", source="x:1", fields={"caption": "x"}, gold=GOLD)
    row = training_row(record, load("caption"), nulls=nulls)
    assert ("<parameter=style>\nNone\n</parameter>" in _render(row["messages"], row["tools"])) is written


@pytest.mark.parametrize("dialect", ["qwen3.5", "qwen3.6", "qwen3.8"])
@pytest.mark.parametrize(
    ("schema", "gold"),
    [
        ("dfk_label", POST.gold),
        ("caption", {key: value for key, value in GOLD.items() if value is not None}),
        (
            "caption",
            {
                "subjects": [{"name": 'é "x" </parameter>', "attributes": []}],
                "actions": ["a\nb"],
                "setting": "unknown",
            },
        ),
    ],
)
def test_what_the_template_writes_decodes_to_the_gold(
    schema: str, gold: dict[str, Any], dialect: str
) -> None:
    record = Record(id="1", group="1", source="x:1", fields={"caption": "x"}, gold=gold)
    row = training_row(record, load(schema))
    asked = _render(row["messages"][:-1], row.get("tools"), add_generation_prompt=True)
    whole = _render(row["messages"], row.get("tools"), dialect=dialect)
    assert whole.startswith(asked)
    decoded = decode(whole[len(asked) :].removesuffix("<|im_end|>\n"), schema)
    assert getattr(decoded, "value", decoded) == gold
