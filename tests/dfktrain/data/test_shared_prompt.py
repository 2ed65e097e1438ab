"""The prompt that the model card prints is what training renders, byte for byte."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, schemas, training_row
from dfkdata.common import plugins
from dfkdata.schemas import Images
from dfkeval.models.rendering import render_sample
from dfktrain import TrainConfig, tiny, train
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from dfktrain.data.shared_prompt import stage_prompts
from dfktrain.data.stage_data import SHAPES, StageData, read_stage
from tests.helpers.models import image_row, text_row, tool_row, write_rows

SHIPPED = [
    (name, variant)
    for name in plugins.names(schemas.FAMILY)
    for variant in plugins.load(schemas.FAMILY, name).VARIANTS
]
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "an answer"}]}


def row_of(name: str, variant: str, value: Any, picture: str, at: int = 0) -> dict[str, Any]:
    """A row as `convert` writes it, each field filled by `value`."""
    schema = schemas.load(name, variant)
    fields = {field: value(field) for field in schema.prompt.fields}
    images = (picture,) if any(isinstance(part, Images) for part in schema.prompt.parts) else ()
    row = training_row(Record(id=f"r{at}", group="", source="a:1", fields=fields, images=images), schema)
    return row | {"messages": [*row["messages"], ANSWER]}


def data_of(folder: Path, rows: list[dict[str, Any]], processor: Any) -> StageData:
    path = write_rows(folder / "rows.jsonl", rows)
    stage = Stage.model_validate({"name": "s", "data": [str(path)], "max_length": 100_000})
    return read_stage(stage, Collator(processor), 1)


def shared_prompt(data: StageData, processor: Any) -> str | None:
    """The only prompt of a stage's rows."""
    prompts = stage_prompts(data, processor)
    return next(iter(prompts)) if len(prompts) == 1 else None


@pytest.mark.parametrize(("name", "variant"), SHIPPED)
def test_every_schema_gives_the_prompt_that_its_rows_have(
    name: str, variant: str, processor: Any, pictures: list[str], tmp_path: Path
) -> None:
    rows = [row_of(name, variant, lambda field: f"some {field}", pictures[0], at) for at in range(2)]
    found = shared_prompt(data_of(tmp_path, rows, processor), processor)
    named = row_of(name, variant, lambda field: f"{{{field}}}", pictures[0])
    assert found is not None and found.encode() == render_sample(named, processor).prompt.encode()
    sample = Collator(processor).encode(named)
    asked = [token for token, label in zip(sample.input_ids, sample.labels, strict=True) if label == IGNORE]
    decoded = processor.tokenizer.decode(asked)
    pads = re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", decoded)
    assert pads.startswith(found), "the tokens of training are those of the text, images apart"


def test_rows_without_a_schema_have_placeholders_for_their_texts(
    processor: Any, pictures: list[str], tmp_path: Path
) -> None:
    system = {"role": "system", "content": "You answer ```briefly```."}
    for row in (
        text_row("a", "a secret", "b"),
        image_row("i", pictures[:1], "a secret", "b"),
        tool_row("t", pictures[:1]),
    ):
        own = row | {"messages": [system, *(turn for turn in row["messages"] if turn["role"] != "system")]}
        found = shared_prompt(data_of(tmp_path, [own], processor), processor)
        assert found is not None and "secret" not in found and "You answer ```briefly```." in found
        named = json.loads(json.dumps(own).replace("a secret", "{text}"))
        if row["id"] != "t":
            assert found == render_sample(named, processor).prompt
        else:
            assert "<tools>" in found


def test_a_row_that_its_schema_did_not_word_is_shown_as_it_is(processor: Any, tmp_path: Path) -> None:
    meta = {"schema": "dfk_label", "variant": None}
    found = shared_prompt(
        data_of(tmp_path, [text_row("a", "own words", "b", meta=meta)], processor), processor
    )
    assert found == render_sample(text_row("a", "{text}", "b"), processor).prompt


def test_rows_of_several_shapes_have_a_prompt_each_with_their_number(
    processor: Any, pictures: list[str], tmp_path: Path
) -> None:
    system = [{"role": "system", "content": "be brief"}]
    brief = [text_row(f"s{n}", "y", "b") for n in range(3)]
    brief = [row | {"messages": [*system, *row["messages"]]} for row in brief]
    plain = [text_row(f"p{n}", "x", "b") for n in range(2)]
    seen = [image_row("i", pictures[:1], "z", "b")]
    both = [image_row("j", pictures[:2], "z", "b")]
    schema = [row_of("caption", dict(SHIPPED)["caption"], lambda field: "A red car.", pictures[0])]
    rows = [*plain, *brief, *seen, *both, *schema]
    found = stage_prompts(data_of(tmp_path, rows, processor), processor)
    assert list(found.values()) == [3, 2, 1, 1, 1]
    named = [
        brief[0] | {"messages": [*system, *text_row("", "{text}", "b")["messages"]]},
        text_row("p", "{text}", "b"),
        image_row("i", pictures[:1], "{text}", "b"),
        image_row("j", pictures[:2], "{text}", "b"),
        row_of("caption", dict(SHIPPED)["caption"], lambda field: f"{{{field}}}", pictures[0]),
    ]
    assert list(found) == [render_sample(row | {"id": "n"}, processor).prompt for row in named]


def test_rows_that_each_have_a_system_text_of_their_own_are_counted_and_not_kept(
    processor: Any, tmp_path: Path
) -> None:
    rows = [
        row | {"messages": [{"role": "system", "content": f"be {row['id']}"}, *row["messages"]]}
        for row in (text_row(f"r{n}", "y", "b") for n in range(SHAPES + 5))
    ]
    data = data_of(tmp_path, rows, processor)
    assert (len(data.shapes), data.shapeless) == (SHAPES, 5)
    assert len(stage_prompts(data, processor)) == SHAPES


def test_the_model_card_prints_the_prompts_of_all_stages(pictures: list[str], tmp_path: Path) -> None:
    write_rows(
        tmp_path / "text.jsonl", [text_row("a", "satu", "b"), image_row("i", pictures[:1], "dua", "c")]
    )
    write_rows(tmp_path / "more.jsonl", [tool_row("t", pictures[:1]), text_row("x", "tiga", "d")])
    stages = [
        {"name": name, "data": [str(tmp_path / file)], "steps": 1, "batch_size": 1, "max_length": 9999}
        for name, file in (("one", "text.jsonl"), ("two", "more.jsonl"))
    ]
    made = {"model": {"name": "tiny"}, "adapter": {"rank": 2}, "stages": stages}
    result = train(TrainConfig.model_validate(made), tmp_path / "run")
    card = (tmp_path / "run/adapter/README.md").read_text()
    texts = {text for stage in result.stages for text in stage.prompts}
    assert len(texts) == 3 and "Rows ask in 3 ways." in card
    for text in texts:
        assert f"```text\n{text}\n```" in card
    assert "Stage one, 1 rows; stage two, 1 rows:" in card
    assert result.stages[0].prompt is None


def test_the_model_card_prints_it_byte_for_byte(pictures: list[str], tmp_path: Path) -> None:
    variant = dict(SHIPPED)["caption"]
    rows = [row_of("caption", variant, lambda field: "A red car.", pictures[0], at) for at in range(2)]
    write_rows(tmp_path / "rows.jsonl", rows)
    stage = {
        "name": "s",
        "data": [str(tmp_path / "rows.jsonl")],
        "steps": 1,
        "batch_size": 1,
        "max_length": 9999,
    }
    made = {"model": {"name": "tiny"}, "adapter": {"rank": 2}, "stages": [stage]}
    result = train(TrainConfig.model_validate(made), tmp_path / "run")
    _, processor = tiny.load()
    named = row_of("caption", variant, lambda field: f"{{{field}}}", pictures[0])
    expected = render_sample(named, processor).prompt
    card = (tmp_path / "run/adapter/README.md").read_bytes()
    assert b"```text\n" + expected.encode() + b"\n```" in card
    assert "<tools>" in expected and "<|image_pad|>" in expected and "<|im_start|>assistant" in expected
    again = train(TrainConfig.model_validate(made), tmp_path / "run")  # from the record of the stage
    assert result.stages[0].prompt == again.stages[0].prompt == expected
